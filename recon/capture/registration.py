"""A capture of surfaces that belong together: one, the source, that is laid onto another, or onto several in time.

    source.ply (.obj …)    what is deformed: a mesh or a cloud
    target.ply (.obj …)    what it is laid onto; or a folder target/ of them, in the order of the numbers in their names

in one folder; or the source by itself, and a target that is named beside it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.capture.archive import unpacked
from recon.capture.capture import Points
from recon.capture.cloud import (
    CLOUD_SUFFIXES,
    MESH_SUFFIXES,
    check_count,
    cloud_suffix,
    content,
    find_clouds,
    load_cloud,
)
from recon.capture.cloud_ply import has_faces
from recon.capture.deform_folder import is_deform
from recon.capture.files import broken, is_junk, listed, numbered, shown, top_folder
from recon.capture.mesh_file import MeshObject, joined, read_objects
from recon.errors import InputError
from recon.events import Events

_FORMATS = f"Meshes and clouds are read from {' '.join(sorted(CLOUD_SUFFIXES))}."
_LAYOUT = "Give --target FILE with it, or a folder with source.ply and target.ply (.obj, .glb …)."


@dataclass(frozen=True)
class RegistrationCapture:
    """A source and its targets.

    Attributes:
        given: what people named, for messages.
        root: the folder of it, which a zip was unpacked to.
        source: the file of what is deformed.
        targets: the files that it is laid onto, in time; one at least.
    """

    given: Path
    root: Path
    source: Path
    targets: tuple[Path, ...]

    def read(self, file: Path) -> MeshObject | Points:
        """Return the mesh that a file holds, its objects joined, or the points of one without faces.

        Raises:
            InputError: damaged, empty, or too large.
        """
        with self.told():
            return _read(file)

    def told(self) -> AbstractContextManager[None]:
        """Have errors in this block name files as people know them: by their zip, not by where it was unpacked."""
        return _told(self.given, self.root)


def is_registration(folder: Path) -> bool:
    """Return whether a folder holds a source and something that it is laid onto."""
    root = top_folder(folder)
    return bool(_named(root, "source")) and bool(_named(root, "target") or (root / "target").is_dir())


def find_registration(path: Path, target: Path | None, events: Events, workdir: Path) -> RegistrationCapture | None:
    """Find the surfaces that belong together; nothing of them is read.

    Args:
        path: the source, a folder with it or with all, or a zip of one.
        target: a file or a folder of files, in place of what ``path`` holds; None: what ``path`` holds.
        events: gets the progress of unpacking.
        workdir: where a zip is unpacked, once.

    Returns:
        The capture; None where no target is given and ``path`` is no such capture.

    Raises:
        InputError: no source or no target (``"no-source"``, ``"no-target"``), several where one is needed
            (``"many-sources"``, ``"many-targets"``), or a target for what needs none (``"unused-target"``).
    """
    folder = unpacked(path, events, workdir) if path.suffix.lower() == ".zip" and path.is_file() else path
    root = top_folder(folder) if folder.is_dir() else folder.parent
    if target is None:
        if folder.is_file() and cloud_suffix(folder) not in ("", ".npz"):  # tracks are a .npz, too
            raise InputError(f"{path} is one surface, and there is nothing to deform it by.", _LAYOUT, "no-target")
        if not folder.is_dir() or not is_registration(folder):
            return None
    with _told(path, root):
        return RegistrationCapture(path, root, _source(folder), _targets(root, target))


def read_landmarks(path: Path) -> NDArray[np.int64]:
    """Read pairs of a source and a target vertex that belong together, a pair a line, parted by blanks or commas.

    Returns:
        (L, 2) numbers, counted from 0.

    Raises:
        InputError: it cannot be read, or is made of something else (code ``"bad-landmarks"``).
    """
    hint = "Write a source and a target vertex a line, counted from 0, such as '17, 203'."
    try:
        text = path.read_text(encoding="utf-8-sig").replace(",", " ").replace(";", " ")
        pairs = np.loadtxt(io.StringIO(text), np.int64, ndmin=2) if text.strip() else np.empty((0, 2), np.int64)
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error).splitlines()[0].rstrip(".")
        raise InputError(f"{path} holds no landmarks: {shown(why)}.", hint, "bad-landmarks") from error
    if pairs.shape[1] != 2 or len(pairs) == 0:
        what = f"{pairs.shape[1]} numbers a line, not 2" if len(pairs) else "no landmarks"
        raise InputError(f"{path} has {what}.", hint, "bad-landmarks")
    return pairs


def _source(folder: Path) -> Path:
    """Return the file of the source, where ``folder`` may be that file."""
    hint = "--target says what one mesh or cloud is laid onto: give that one as the input, or leave --target out."
    if not folder.is_dir():
        if cloud_suffix(folder):
            return folder
        raise InputError(f"{folder} is no mesh or cloud.", hint, "no-source")
    if is_deform(folder):
        raise InputError(f"{folder} is a film or tracks, to which no target belongs.", hint, "unused-target")
    root = top_folder(folder)
    found = _named(root, "source") or find_clouds(root, Events())
    if len(found) > 1:
        names = listed(file.name for file in found)
        what = f"{root} holds {len(found)} surfaces that may be the source: {names}."
        raise InputError(what, "Name one of them source, and no other.", "many-sources")
    if not found:
        raise InputError(f"{root} holds no mesh or cloud.", hint, "no-source")
    return found[0]


def _targets(root: Path, target: Path | None) -> tuple[Path, ...]:
    """Return the files of the target that was given, or else of what a folder holds."""
    if target is None:
        found = _named(root, "target") + ([root / "target"] if (root / "target").is_dir() else [])
        if len(found) > 1:
            names = listed(file.name for file in found)
            hint = "Leave one of them there; several in time belong into a folder named target."
            raise InputError(f"{root} holds {len(found)} targets: {names}.", hint, "many-targets")
        target = found[0]
    if target.is_dir():
        surfaces = sorted((file for file in target.iterdir() if _is_surface(file)), key=numbered)
        if not surfaces:
            raise InputError(f"The target {target} holds no mesh or cloud.", _FORMATS, "no-target")
        return tuple(surfaces)
    if not cloud_suffix(target):
        raise InputError(f"The target {target} is no mesh or cloud.", _FORMATS, "no-target")
    return (target,)


def _named(root: Path, name: str) -> list[Path]:
    """Return the meshes and clouds of a name, whatever their suffix."""
    return sorted(file for file in root.glob(f"{name}.*") if _is_surface(file) and file.name.split(".")[0] == name)


def _is_surface(file: Path) -> bool:
    """Return whether a file in a folder is a mesh or a cloud by its name; .txt and .csv may be anything."""
    return file.is_file() and not is_junk(file.name) and cloud_suffix(file) not in ("", ".txt", ".csv")


def _read(file: Path) -> MeshObject | Points:
    suffix = cloud_suffix(file)
    try:
        data = content(file)
        if suffix in MESH_SUFFIXES or (suffix == ".ply" and has_faces(data)):
            objects = read_objects(data, suffix[1:], file)
            check_count(sum(len(one.vertices) for one in objects), str(file))
            if any(len(one.faces) for one in objects):
                return joined(objects, file)
        points = load_cloud(file, Events()).points
    except OSError as error:
        why = f"{file} cannot be read: {error.strerror or error}."
        raise InputError(why, "Check the path and its permissions.", "cannot-read") from error
    if points is None:
        raise broken(file, "it holds nothing")
    return points


@contextmanager
def _told(given: Path, root: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if given.suffix.lower() != ".zip":
            raise
        raise InputError(error.message.replace(str(root), given.name), error.hint, error.code) from error
