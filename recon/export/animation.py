"""Moving surfaces in files: animated GLB, NPZ, and sequences of one OBJ or PLY a frame.

Coordinates are the same in every format, those of the input, as for meshes (:mod:`recon.export.mesh`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recon.errors import InputError
from recon.export.files import replacing
from recon.export.glb_animation import animated_glb
from recon.export.mesh import write_mesh
from recon.export.obj import material, surface
from recon.mesh.animation import Animation
from recon.mesh.texture import vertex_colours

FORMATS = (".glb", ".npz")
SEQUENCES = (".obj", ".ply")
_OURS = re.compile(r"frame_\d{4,}\.(obj|ply)|surface(\.mtl|_texture\.png)")


def write_animation(animation: Animation, path: Path, interpolation: Literal["LINEAR", "STEP"] = "LINEAR") -> None:
    """Write an animation as one file, in the format of the suffix.

    .glb plays in viewers (:mod:`recon.export.glb_animation`). .npz is for programs: ``vertices`` (T, V, 3) float32,
    ``faces`` (F, 3) int32, ``times`` (T,) float32 in seconds and, where there are any, ``uvs`` (F, 3, 2) float32 as
    :class:`~recon.mesh.mesh.Mesh` has them; nothing in it is pickled.

    Args:
        animation: what is written.
        path: the file; an existing one is replaced.
        interpolation: between the frames of a .glb.

    Raises:
        InputError: an unusable animation, another suffix, or a place that cannot be written.
    """
    animation.check()
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        hint = f"Use {' or '.join(FORMATS)}, or a sequence of {' or '.join(SEQUENCES)}."
        raise InputError(f"{path}: {path.suffix or 'no suffix'} is no format of an animation.", hint, "bad-format")
    with replacing(path) as part:
        if suffix == ".glb":
            part.write_bytes(animated_glb(animation, interpolation))
        else:
            arrays: dict[str, Any] = {
                "vertices": animation.frames,
                "faces": animation.mesh.faces,
                "times": animation.times,
            }
            if animation.mesh.uvs is not None:
                arrays["uvs"] = animation.mesh.uvs
            with part.open("wb") as file:
                np.savez(file, **arrays)


def write_sequence(animation: Animation, folder: Path, suffix: str) -> None:
    """Write frame_0000.obj, frame_0001.obj …, or .ply, into a folder that is replaced as a whole.

    The frames of a textured OBJ share surface.mtl and surface_texture.png; PLY gets the texture's colours at the
    vertices.

    Args:
        animation: what is written.
        folder: one that is not there yet, or is empty, or holds such a sequence already.
        suffix: ``".obj"`` or ``".ply"``.

    Raises:
        InputError: an unusable animation, another suffix, a folder with something else in it (code
            ``"folder-in-use"``), or a place that cannot be written.
    """
    animation.check()
    if suffix not in SEQUENCES:
        raise InputError(f"A sequence of {suffix} is not written.", f"Use {' or '.join(SEQUENCES)}.", "bad-format")
    if folder.exists() and not (folder.is_dir() and all(_OURS.fullmatch(file.name) for file in folder.iterdir())):
        hint = "Choose a new folder: a sequence takes the place of all that is in it."
        raise InputError(f"{folder} holds something else than a sequence.", hint, "folder-in-use")
    mesh = animation.mesh
    textured = suffix == ".obj" and mesh.uvs is not None and mesh.texture is not None
    if not textured:
        mesh = replace(mesh, colours=vertex_colours(mesh), uvs=None, texture=None)
    with replacing(folder) as part:
        part.mkdir()
        for name, data in (material(mesh, "surface") if textured else {}).items():
            (part / name).write_bytes(data)
        for i, vertices in enumerate(animation.frames):
            file, frame = part / f"frame_{i:04d}{suffix}", replace(mesh, vertices=vertices)
            if textured:
                file.write_bytes(surface(frame, "surface"))
            else:
                write_mesh(frame, file)
