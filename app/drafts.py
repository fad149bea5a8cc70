"""Captures that were sent but not begun yet: checked, looked at, and ready to become jobs."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.inspector import Inspector
from app.uploads import ADVICE, clean_name, receive, strays
from recon.errors import InputError, ReconError

DAYS = 1.0
"""How long a draft is kept."""


@dataclass(frozen=True)
class Draft:
    """A capture with what was found in it.

    Attributes:
        id: what it is called by.
        source: the file or folder.
        found: see :func:`app.inspector.findings`.
    """

    id: str
    source: Path
    found: dict[str, Any]


class Drafts:
    """The drafts in ``folder``, which belongs to them alone.

    Args:
        folder: where they are; emptied, as nobody remembers those of an earlier server.
        uploads: the only place that uploaded files may come from.
        inspector: looks at them.
    """

    def __init__(self, folder: Path, uploads: Path, inspector: Inspector) -> None:
        self.folder, self._uploads, self._inspector = folder, uploads, inspector
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def add(self, files: Sequence[str]) -> Draft:
        """Take uploaded files in and look at them.

        Raises:
            ReconError: they are no capture, too many, too large, or were not uploaded; nothing is kept.
        """
        self._forget_old()
        paths = [self._uploaded(name) for name in files]
        draft = uuid.uuid4().hex
        try:
            left_out = strays(paths)
            source = receive([path for path in paths if path not in left_out], self.folder / draft)
            found = self._inspector.look(source)
            if left_out:
                names = ", ".join(clean_name(path.name) for path in left_out)
                found = {**found, "warnings": [f"Left out, being no photos: {names}.", *found["warnings"]]}
            return Draft(draft, source, found)
        except ReconError as error:
            shutil.rmtree(self.folder / draft, ignore_errors=True)
            error.message = error.message.replace(f"{self.folder / draft}/", "")  # people know what they sent
            raise
        except BaseException:
            shutil.rmtree(self.folder / draft, ignore_errors=True)
            raise

    def look(self, source: Path) -> Draft:
        """Return a capture of our own as a draft without id.

        Raises:
            ReconError: it is no capture.
        """
        return Draft("", source, self._inspector.look(source))

    def source(self, draft: str) -> Path:
        """Return where the capture of a draft is.

        Raises:
            InputError: there is no such draft (any more).
        """
        if re.fullmatch(r"[0-9a-f]{32}", draft):
            for path in (self.folder / draft).glob("[!.]*"):
                return path
        raise InputError("These files are not here any more.", "Drop them again.", "no-input")

    def _uploaded(self, name: str) -> Path:
        """Return an uploaded file; a path that a forged request names is refused here, should Gradio let it pass."""
        path = Path(name).resolve()
        if not path.is_relative_to(self._uploads.resolve()):
            raise InputError("That file was not uploaded.", ADVICE, "no-input")
        return path

    def _forget_old(self) -> None:
        for entry in self.folder.iterdir():
            if time.time() - entry.stat().st_mtime > DAYS * 86_400:
                shutil.rmtree(entry, ignore_errors=True)
