"""How Egregium works on this machine: where the jobs are, who may reach the page, and how much it takes from strangers.

One declaration, as for a pipeline. Where several sources set the same field, the first of these wins: a flag of
``recon serve``, the environment (``RECON_PORT``), the settings file, the default. The file is the one that
``RECON_SETTINGS`` names, else ``egregium/settings.yaml`` in ``$XDG_CONFIG_HOME`` (``~/.config``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from recon.config import ENVIRONMENT, Config, read_yaml, resolve, setting
from recon.errors import InputError

FILE = f"{ENVIRONMENT}SETTINGS"
"""The variable that names the settings file."""

SECRET = ("password",)
"""Settings that are not shown, and not handed to other processes."""


class Settings(Config):
    """The machine's settings; sizes in GB of 10^9 bytes."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"medium": {}}

    jobs: Path = setting(Path("jobs"), "Folder of the jobs that the page shows.", group="Page")
    host: str = setting("127.0.0.1", "Address to listen on; beyond this machine a password is needed.", group="Page")
    port: int = setting(7860, "TCP port to listen on.", group="Page", ge=1, le=65_535)
    password: str | None = setting(None, "What browsers must give.", group="Page", min_length=1)

    max_files: int = setting(2_000, "Most files of one upload.", group="Limits", ge=1, le=1_000_000)
    max_upload_gb: float = setting(8.0, "Most that one upload may hold.", group="Limits", gt=0, le=10_000)
    max_megapixels: float = setting(100.0, "Largest photo that is read.", group="Limits", gt=0, le=10_000)
    max_zip_gb: float = setting(20.0, "Most that a zip may unpack to.", group="Limits", gt=0, le=10_000)
    max_zip_ratio: int = setting(
        100, "How many times its own size a zip may unpack to.", group="Limits", ge=1, le=10_000
    )
    max_zip_files: int = setting(100_000, "Most files in a zip.", group="Limits", ge=1, le=10_000_000)
    max_video_minutes: float = setting(60.0, "Longest video that is read.", group="Limits", gt=0, le=100_000)
    max_queue: int = setting(50, "Most jobs that may wait for their turn.", group="Limits", ge=1, le=100_000)
    min_free_gb: float = setting(
        2.0, "Free space on the jobs' disk below which none begins.", group="Limits", ge=0, le=1e5
    )


def load(
    flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None, file: Path | None = None
) -> Settings:
    """Return the settings from all sources.

    Args:
        flags: by field name; they win.
        environment: ``os.environ`` where None.
        file: in place of the one that the environment names.

    Raises:
        InputError: a value that does not fit, an unknown name, or a file that cannot be read.
    """
    environment = os.environ if environment is None else environment
    path, values = _file(environment, file)
    try:
        return resolve(Settings, file=values, file_name=str(path), environment=environment, flags=flags)
    except InputError as error:
        if error.code == "bad-setting":
            error.hint = "See 'recon serve --help' for every setting of the machine and its range."
        raise


@cache
def settings() -> Settings:
    """Return this process's settings, read once: environment, file, defaults."""
    return load()


def origins(environment: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """Return value and origin of every setting, as text, by name; secrets are not shown.

    Raises:
        InputError: as :func:`load`.
    """
    environment = os.environ if environment is None else environment
    path, values = _file(environment, None)
    found = load(environment=environment)
    result = {}
    for name in Settings.model_fields:
        value = getattr(found, name)
        shown = "none" if value is None else "set" if name in SECRET else str(value)
        variable = f"{ENVIRONMENT}{name.upper()}"
        result[name] = (shown, variable if variable in environment else str(path) if name in values else "default")
    return result


def as_environment(chosen: Settings) -> dict[str, str]:
    """Return the variables that give ``chosen``, without its secrets, to another process."""
    values = {name: getattr(chosen, name) for name in Settings.model_fields if name not in SECRET}
    return {f"{ENVIRONMENT}{name.upper()}": str(value) for name, value in values.items()}


def _file(environment: Mapping[str, str], file: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the settings file and what it says; only one that somebody named has to be there."""
    if named := file or (Path(environment[FILE]) if environment.get(FILE) else None):
        return named, read_yaml(named)
    base = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".config"
    path = Path(base) / "egregium" / "settings.yaml"
    return path, read_yaml(path) if path.is_file() else {}
