"""What the demonstrations of MeshSDF share: true shapes, samples of their distances, cameras, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from kernels.antialias import antialias
from kernels.clip import clip_positions
from kernels.rasterize_mesh import rasterize_mesh
from recon.isosurface.signed_distance import signed_distance
from recon.isosurface.view import FAR, NEAR, Triangles

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TRAINED = {
    "spot": "meshes/spot_textured/spot.obj",
    "fish": "meshes/odedstein_cc/fish.obj",
    "cat": "nonrigid_pyfm/cat-00.off",
    "block": "meshes/flexicubes/block.obj",
    "wingnut": "meshes/odedstein_cc/wingnut.obj",
    "angle block": "meshes/trimesh/angle_block.STL",
    "featuretype": "meshes/trimesh/featuretype.STL",
    "plate": "meshes/trimesh/plate_holes.STL",
    "quadknot": "meshes/trimesh/quadknot.obj",
}
UNSEEN = {"lion": "nonrigid_pyfm/lion-00.off"}
LONGEST = 1.6
"""Longest side of a shape's bounding box, which is centred in the origin: they all fit into [-1, 1]³."""
NEAR_SAMPLES, FAR_SAMPLES, EVEN_SAMPLES = (20_000, 0.01), (10_000, 0.06), 10_000
"""Samples of a shape: how many, and how far from its surface (standard deviation); and how many all over the box."""


def true_shape(path: str) -> Triangles:
    """Return a mesh as a decoder learns it."""
    mesh = trimesh.load(DATA / path, force="mesh", process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=5)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    vertices = (mesh.vertices - (low + high) / 2) * LONGEST / (high - low).max()
    return Triangles.of(torch.from_numpy(np.array(vertices)).float(), torch.from_numpy(np.array(mesh.faces)).int())


def samples(shape: Triangles, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (N, 3) points and their (N,) signed distances."""
    generator = np.random.default_rng(seed)
    mesh = trimesh.Trimesh(shape.vertices.numpy(), shape.faces.numpy(), process=False)
    parts = [generator.uniform(-1, 1, (EVEN_SAMPLES, 3))]
    for k, (count, off) in enumerate((NEAR_SAMPLES, FAR_SAMPLES)):
        places = trimesh.sample.sample_surface(mesh, count, seed=2 * seed + k)[0]
        parts.append(places + off * generator.normal(size=places.shape))
    points = torch.from_numpy(np.concatenate(parts)).float()
    return points, signed_distance(points, shape.vertices, shape.faces)


@dataclass(frozen=True)
class Cameras:
    """Cameras that look at the origin: viewmats (B, 4, 4), Ks (B, 3, 3), images ``size`` × ``size``."""

    viewmats: Tensor
    Ks: Tensor
    size: int

    @staticmethod
    def around(azimuths: Sequence[float], size: int, elevation: float = 20.0, distance: float = 4.0) -> Cameras:
        """Return cameras at angles in degrees; y is up, and azimuth 0 is on the z axis."""
        viewmats = []
        for azimuth in azimuths:
            across, up = np.radians(azimuth), np.radians(elevation)
            back = np.array([np.cos(up) * np.sin(across), np.sin(up), np.cos(up) * np.cos(across)])
            right = np.cross([0.0, 1.0, 0.0], back) / np.cos(up)
            viewmat = np.eye(4)
            viewmat[:3, :3] = [right, np.cross(right, back), -back]
            viewmat[2, 3] = distance
            viewmats.append(viewmat)
        K = torch.tensor([[1.4 * size, 0, size / 2], [0, 1.4 * size, size / 2], [0, 0, 1]])
        return Cameras(torch.from_numpy(np.stack(viewmats)).float(), K.repeat(len(viewmats), 1, 1), size)


def picture(shape: Triangles, cameras: Cameras) -> np.ndarray:
    """Return (H, B W, 3) uint8: the shape seen by each camera, lit from there and a little from above."""
    size = cameras.size
    with torch.no_grad():
        clip = clip_positions(shape.vertices, cameras.viewmats, cameras.Ks, size, size, NEAR, FAR)
        rast, _ = rasterize_mesh(clip, shape.faces, size, size)
        a, b, c = shape.vertices[shape.faces.long()].unbind(dim=1)
        normals = normalize(torch.linalg.cross(b - a, c - a), dim=1)
        number = rast[..., 3].long() - 1
        turned = torch.einsum("bij,bhwj->bhwi", cameras.viewmats[:, :3, :3], normals[number.clamp(min=0)])
        light = (turned @ normalize(torch.tensor([-0.3, -0.6, -1.0]), dim=0)).clamp(min=0)
        colour = torch.where((number >= 0)[..., None], 0.15 + 0.75 * light[..., None], 1.0).expand(-1, -1, -1, 3)
        colour = antialias(colour.contiguous(), rast, clip, shape.faces, shape.neighbors)
    return (255 * colour.clamp(0, 1)).byte().transpose(0, 1).flatten(1, 2).numpy()


def write_picture(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write rows of pictures, one below the other, filled up with white."""
    widest = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(filled)).save(path)
