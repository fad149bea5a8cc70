"""Meshes for tests."""

import numpy as np
import trimesh

from recon.mesh.mesh import Mesh


def from_trimesh(mesh: trimesh.Trimesh, colours: bool = False) -> Mesh:
    vertices = np.asarray(mesh.vertices, np.float32)
    rgb = np.ascontiguousarray(np.abs(np.sin(3 * vertices)), np.float32) if colours else None
    return Mesh(vertices, np.asarray(mesh.faces, np.int32), rgb)


def sphere(subdivisions: int = 3, radius: float = 1.0, centre=(0, 0, 0), colours: bool = False) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    mesh.apply_translation(centre)
    return from_trimesh(mesh, colours)


def box(extents=(1, 1, 1)) -> Mesh:
    return from_trimesh(trimesh.creation.box(extents))


def both(a: Mesh, b: Mesh) -> Mesh:
    colours = None if a.colours is None else np.concatenate([a.colours, b.colours])
    return Mesh(np.concatenate([a.vertices, b.vertices]), np.concatenate([a.faces, b.faces + len(a.vertices)]), colours)
