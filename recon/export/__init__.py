"""Readers and writers, one file a format, and the one function that chooses among them.

Everything is in the input's units and axes, in every format.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from recon.errors import InputError
from recon.events import Events
from recon.export.cameras import read_transforms, write_colmap, write_transforms
from recon.export.files import replacing
from recon.export.mesh import TEXTURED, read_mesh, write_mesh
from recon.export.ply import is_splat_ply, read_ply, write_ply
from recon.export.splat import read_splat, write_splat
from recon.export.spz import read_spz, write_spz
from recon.mesh.decimate import decimate
from recon.mesh.mesh import Mesh
from recon.mesh.texture import vertex_colours
from recon.mesh.transfer import transfer
from recon.splats.model import Splats

__all__ = ["export", "read_mesh", "read_splats", "write_colmap", "write_mesh", "write_splats", "write_transforms"]

_READERS = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz}
_WRITERS = {".ply": write_ply, ".splat": write_splat, ".spz": write_spz}
_IN_JOB = {
    "splats": ("exports/splats.ply",),
    "mesh": ("exports/mesh.glb", "exports/mesh.ply", "exports/registered.glb"),  # the first has the texture
    "cameras": ("exports/transforms.json",),
}
_KINDS = {".splat": "splats", ".spz": "splats", ".json": "cameras"}
_KINDS |= dict.fromkeys((".glb", ".obj", ".zip", ".stl", ".3mf"), "mesh")


def export(
    source: Path, to: Path, faces: int | None = None, events: Events | None = None, texture: int | None = None
) -> None:
    """Write splats, a mesh or cameras in another format, chosen by the suffix of ``to``.

    Splats: .ply, .splat, .spz. Meshes: .glb, .obj, .zip (an OBJ with its texture), .stl, .ply, .3mf. Cameras: .json
    (nerfstudio's transforms). What a .ply becomes depends on the source: a file's kind stays; of a job it is the
    splats, unless the name has "mesh" in it, ``faces`` is given, or there are no splats.

    Args:
        source: a job directory, or a file of splats, a mesh or cameras.
        to: the file to write; an existing one is replaced.
        faces: simplify the mesh to at most about this many triangles.
        events: is told what a format cannot hold, and asked whether to stop.
        texture: give the mesh a new texture of this many texels squared, with the colours that it had before its
            simplification, for .glb, .obj and .zip. A textured mesh that is simplified gets one of the old one's size.

    Raises:
        InputError: nothing there to export, an unknown suffix, splats asked of a mesh or the reverse, a texture asked
            of what has no colours or for what holds none, a damaged source.
    """
    events = events or Events()
    if to.suffix.lower() not in {".ply", *_KINDS}:
        raise InputError(
            f"{to}: {to.suffix or 'no suffix'} is not a format that can be written.",
            "Splats: .ply .splat .spz; mesh: .glb .obj .zip .stl .ply .3mf; cameras: .json.",
            "bad-format",
        )
    file, kind = _choose(source, to, faces is not None)
    events.check()
    if kind == "cameras":
        with replacing(to) as part:
            part.write_text(json.dumps(read_transforms(file), indent=1) + "\n", encoding="utf-8")
    elif kind == "splats":
        if faces is not None:
            raise InputError("Splats have no faces to reduce.", "Leave the number of faces out.", "bad-faces")
        if texture is not None:
            raise InputError("Splats have no texture.", "Leave its size out, or export a mesh.", "bad-texture")
        splats = read_splats(file)
        if to.suffix.lower() == ".splat" and splats.sh_degree > 0:
            events.warn("A .splat file holds no view-dependent colour; .ply and .spz do.")
        write_splats(splats, to)
    else:
        _export_mesh(read_mesh(file), to, faces, texture, events)


def _export_mesh(mesh: Mesh, to: Path, faces: int | None, texture: int | None, events: Events) -> None:
    suffix = to.suffix.lower()
    if texture is not None and suffix not in TEXTURED:
        hint = f"Choose {', '.join(TEXTURED)}, or leave the texture out."
        raise InputError(f"A {suffix} file holds no texture.", hint, "bad-texture")
    if suffix in (".stl", ".3mf") and (mesh.colours is not None or mesh.texture is not None):
        events.warn(f"A {suffix} file holds no colours; .glb, .obj and .ply do.")
    if suffix not in TEXTURED:
        mesh = replace(mesh, colours=vertex_colours(mesh), uvs=None, texture=None)
    events.check()
    coloured = mesh
    if faces is not None:
        mesh = decimate(mesh, faces)
    if texture is None and mesh is not coloured and coloured.texture is not None:
        texture = max(coloured.texture.shape[:2])
    if texture is not None:
        mesh = transfer(coloured, mesh, texture, events)
    write_mesh(mesh, to)


def read_splats(path: Path) -> Splats:
    """Read splats from .ply, .splat or .spz.

    Raises:
        InputError: another suffix, or a file that is damaged or of something else.
    """
    return _READERS[_splat_suffix(path)](path)


def write_splats(splats: Splats, path: Path) -> None:
    """Write splats to .ply, .splat or .spz.

    Raises:
        InputError: another suffix, splats that cannot be written, or a place that cannot be written to.
    """
    _WRITERS[_splat_suffix(path)](splats, path)


def _splat_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        formats = ", ".join(_READERS)
        raise InputError(f"{path}: {suffix or 'no suffix'} is no splat format.", f"Use {formats}.", "bad-format")
    return suffix


def _choose(source: Path, to: Path, reduce: bool) -> tuple[Path, str]:
    """Return the file to read and whether it holds splats, a mesh or cameras; it is what ``to`` asks for."""
    asked = _KINDS.get(to.suffix.lower(), "")
    if source.is_dir():
        return _from_job(source, asked or ("mesh" if reduce or "mesh" in to.stem.lower() else ""))
    if not source.exists():
        raise InputError(f"{source} does not exist.", "Check the path for typing errors.", "no-such-path")
    kind = _kind_of(source)
    if asked and kind != asked:
        hint = f"Choose a suffix for {kind}."
        if (kind, asked) == ("splats", "mesh"):
            hint = "A mesh is made from splats and their cameras together: export it from the job directory."
        raise InputError(f"{source} holds {kind}, and {to.suffix} is a format for {asked}.", hint, "wrong-kind")
    return source, kind


def _from_job(job: Path, asked: str) -> tuple[Path, str]:
    """Return the job's file of what is ``asked`` for; if nothing in particular is, of its splats or else its mesh."""
    there: dict[str, Path] = {}
    for kind, names in _IN_JOB.items():
        for name in names:
            if (job / name).is_file():
                there.setdefault(kind, job / name)
    asked = asked or ("mesh" if "mesh" in there and "splats" not in there else "splats")
    if asked in there:
        return there[asked], asked
    if there:
        hint = f"Choose a suffix for {' or '.join(there)}, or run it again with the settings that make {asked}."
        raise InputError(f"{job} has {' and '.join(there)}, but no {asked}.", hint, "nothing-to-export")
    hint = "Give the directory of a finished job, or a file."
    raise InputError(
        f"{job} has no exports: it is no job directory, or the job is not done.", hint, "nothing-to-export"
    )


def _kind_of(file: Path) -> str:
    """Return what a file holds, by its suffix and for .ply by its header."""
    suffix = file.suffix.lower()
    if suffix == ".ply":
        return "splats" if is_splat_ply(file) else "mesh"
    if suffix not in _KINDS:
        raise InputError(
            f"{file} is neither a job directory nor a file of splats, a mesh or cameras.",
            "Give a job directory, or .ply .splat .spz .glb .obj .zip .stl .3mf .json.",
            "bad-format",
        )
    return _KINDS[suffix]
