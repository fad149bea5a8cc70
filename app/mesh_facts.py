"""What a job's mesh is like, in words and numbers, for the result page; computed once and kept."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recon.job_files import read_json, write_json

VERSION = 1
"""Raised whenever the facts below become others."""
_lock = threading.Lock()


@dataclass(frozen=True)
class MeshFacts:
    """A mesh in numbers; lengths, areas and volumes are in the input's units.

    Attributes:
        faces, vertices: how many.
        watertight: it encloses a volume without a gap.
        manifold: no edge and no vertex where more than one sheet of surface meets.
        parts: pieces that do not touch.
        open_edges: edges of gaps.
        size: lengths of its box along x, y and z.
        area: of its surface.
        volume: that it encloses; None unless watertight.
        texture: (width, height) in texels; None without a texture.
        coloured: its vertices have colours.
        slender: share of triangles that are more than four times as long as an equilateral one's.
    """

    faces: int
    vertices: int
    watertight: bool
    manifold: bool
    parts: int
    open_edges: int
    size: tuple[float, float, float]
    area: float
    volume: float | None
    texture: tuple[int, int] | None
    coloured: bool
    slender: float

    def rows(self) -> list[tuple[str, str]]:
        """Return (what, how much) for people, in the order that they should be read."""
        surface = "closed (watertight)" if self.watertight else f"open along {self.open_edges:,} edges"
        if not self.watertight and not self.open_edges:
            surface = "closed, but its sides contradict each other"
        if not self.manifold:
            surface += ", touches itself"
        colour = "by vertex" if self.coloured else "none"
        if self.texture is not None:
            colour = f"texture of {self.texture[0]:,} × {self.texture[1]:,}"
        found = [
            ("faces", f"{self.faces:,}"),
            ("vertices", f"{self.vertices:,}"),
            ("surface", surface),
            ("parts", f"{self.parts:,}"),
            ("size", " × ".join(map(_short, self.size))),
            ("area", _short(self.area)),
        ]
        if self.volume is not None:
            found.append(("volume", _short(self.volume)))
        return [*found, ("colour", colour), ("slender triangles", f"{self.slender:.1%}")]


def mesh_facts(job_folder: Path, exports: Mapping[str, Path]) -> MeshFacts:
    """Return the facts of a job's mesh, from JOB/previews/mesh.json if they are of this very file.

    Takes about half a second for 100,000 faces the first time.

    Args:
        job_folder: the job directory.
        exports: the job's files by name; ``mesh`` is looked at.

    Raises:
        InputError: the mesh cannot be read.
    """
    mesh, kept = exports["mesh"], job_folder / "previews" / "mesh.json"
    with _lock:
        state = mesh.stat()
        key = f"{VERSION}-{state.st_size}-{state.st_mtime_ns}"
        facts = _kept(read_json(kept), key)
        if facts is None:
            facts = facts_of(mesh)
            write_json(kept, {"key": key, **asdict(facts)})
    return facts


def facts_of(mesh: Path) -> MeshFacts:
    """Return the facts of a mesh file.

    Raises:
        InputError: it cannot be read.
    """
    from recon.evaluate.mesh_quality import triangle_shapes
    from recon.export import read_mesh

    content = read_mesh(mesh)
    found = content.statistics()
    x, y, z = np.ptp(content.vertices[np.unique(content.faces)].astype(np.float64), axis=0).tolist()
    return MeshFacts(
        faces=found.faces,
        vertices=found.vertices,
        watertight=found.watertight,
        manifold=found.manifold,
        parts=found.components,
        open_edges=found.boundary_edges,
        size=(x, y, z),
        area=found.area,
        volume=abs(found.volume) if found.watertight else None,
        texture=None if content.texture is None else (content.texture.shape[1], content.texture.shape[0]),
        coloured=content.colours is not None,
        slender=triangle_shapes(content.vertices, content.faces)["aspect_over_4"],
    )


def _kept(content: Any, key: str) -> MeshFacts | None:
    if not isinstance(content, dict) or content.pop("key", None) != key:
        return None
    try:
        facts = MeshFacts(**content)
    except TypeError:
        return None
    texture = None if facts.texture is None else tuple(facts.texture)
    return MeshFacts(**{**content, "size": tuple(facts.size), "texture": texture})


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
