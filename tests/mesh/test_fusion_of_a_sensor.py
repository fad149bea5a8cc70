"""Fusion of five frames of a real depth camera."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from recon.capture.capture import Camera
from recon.mesh.fusion import fuse
from recon.mesh.repair import repair

pytestmark = pytest.mark.data


def test_rgbd_frames(shared_data):
    folder = shared_data / "open3d_rgbd"
    K = np.array(json.loads((folder / "camera_primesense.json").read_text())["intrinsic_matrix"]).reshape(3, 3).T
    K[:2, 2] += 0.5  # there the centre of the first pixel is at (0, 0)
    poses = _poses(folder / "trajectory.log")
    depths = [np.array(Image.open(folder / f"depth/{i:05}.png")).astype(np.float32) / 1000 for i in range(5)]
    depths = [np.where(depth < 2.5, depth, 0) for depth in depths]
    colours = [np.array(Image.open(folder / f"color/{i:05}.jpg")).astype(np.float32) / 255 for i in range(5)]
    cameras = [Camera(np.linalg.inv(pose), K, 640, 480) for pose in poses]
    v, u = np.nonzero(depths[0])
    z = depths[0][v, u].astype(float)
    rays = np.stack([u + 0.5, v + 0.5, np.ones_like(z)], axis=1) @ np.linalg.inv(K).T
    points = rays * z[:, None] @ poses[0][:3, :3].T + poses[0][:3, 3]
    bounds = np.stack([points.min(axis=0), points.max(axis=0)])
    mesh = repair(fuse(depths, colours, cameras, voxel=0.015, bounds=bounds))
    away = cKDTree(mesh.vertices).query(points[::20])[0]
    assert np.median(away) < 0.0075, "half a voxel"
    assert np.quantile(away, 0.95) < 0.03
    nearest = cKDTree(points).query(mesh.vertices)[1]
    off = np.abs(mesh.colours - colours[0][v, u][nearest]).mean(axis=1)
    assert np.median(off) < 0.05


def _poses(file):
    """Camera-to-world matrices; each follows a line of three numbers."""
    lines = file.read_text().splitlines()
    return [np.array([line.split() for line in lines[i + 1 : i + 5]], float) for i in range(0, len(lines), 5)]
