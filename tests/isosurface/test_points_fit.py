"""A surface fitted to points: closed, outward, with edges; the field it starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from points_scenes import box, box_distance, box_edges, sphere
from skimage.measure import marching_cubes

from kernels.nearest import nearest
from recon.errors import Cancelled
from recon.evaluate.surface import compare_surfaces
from recon.isosurface.cloud_cleaning import Cloud, clean
from recon.isosurface.cloud_field import grid_around, poisson
from recon.isosurface.cloud_preparation import Prepared, prepare
from recon.isosurface.points_fit import MATCH_EVERY, PointsFit
from recon.isosurface.points_start import start
from recon.mesh.mesh import Mesh


def nothing() -> None:
    pass


def points(xyz: np.ndarray) -> Prepared:
    cloud = clean(Cloud(xyz), 10**6, True, lambda _: None)
    return prepare(cloud, "auto", True, np.random.default_rng(0), lambda _: None, nothing)


def fit_to(found: Prepared, resolution: int, steps: int) -> PointsFit:
    begin = start(found.xyz, found.normals, found.weight, found.spacing, resolution)
    assert begin is not None
    xyz, normals = torch.from_numpy(found.xyz).float(), torch.from_numpy(found.normals).float()
    return PointsFit(begin, xyz, normals, found.spacing, found.noise, steps, 0, nothing)


def mesh_of(fit: PointsFit, found: Prepared) -> Mesh:
    vertices, faces = fit.mesh()
    return Mesh((vertices.numpy() / found.scale + found.centre).astype(np.float32), faces.numpy())


def edge_distance(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Return how far the surface is from the box's edges, on the mean."""
    places = torch.from_numpy(box_edges()).float()
    squared, _, _ = nearest(places, torch.from_numpy(vertices).float(), torch.from_numpy(faces).int())
    return float(squared.sqrt().mean())


def test_poisson_is_a_distance_near_the_surface() -> None:
    xyz, normals = sphere(4000)
    grid = grid_around(xyz, 32)
    field = poisson(grid, xyz, normals, np.full(4000, 4 * np.pi / 4000), grid.cell)
    for radius in (0.97, 1.0, 1.03):
        assert grid.at(field, radius * xyz).mean() == pytest.approx(radius - 1, abs=0.01)
    assert grid.at(field, np.zeros((1, 3)))[0] < -0.05
    assert field[0].min() > 0


def test_a_box_with_noise_and_outliers_gets_its_edges_back() -> None:
    """Marching cubes of the field cuts them off, which its distance to the box does not survive."""
    found = points(box(6000, noise=0.003, outliers=200)[0])
    fit = fit_to(found, 32, 60)
    for _ in fit.run():
        pass
    mesh = mesh_of(fit, found)
    stats = mesh.statistics()
    assert stats.watertight
    assert stats.components == 1
    assert stats.volume == pytest.approx(8 * 0.35, rel=0.02)

    grid = grid_around(found.xyz, 32)
    field = poisson(grid, found.xyz, found.normals, found.weight, max(grid.cell, found.spacing))
    plain, faces = marching_cubes(field, 0)[:2]
    faces = np.ascontiguousarray(faces)
    plain = (grid.low + grid.cell * plain) / found.scale + found.centre
    assert edge_distance(mesh.vertices, mesh.faces) < 0.4 * edge_distance(plain, faces)

    corners = np.array(np.meshgrid([-1, 1], [-0.7, 0.7], [-0.5, 0.5], indexing="ij")).reshape(3, 8).T
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    truth = corners, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    own = compare_surfaces(mesh.vertices, mesh.faces, *truth, samples=20_000)["chamfer"]
    others = compare_surfaces(plain, faces, *truth, samples=20_000)["chamfer"]
    assert own < 0.003 < others
    assert box_distance(mesh.vertices.astype(np.float64)).max() < 0.08


def test_a_noisy_sphere_is_round() -> None:
    found = points(sphere(4000, noise=0.01, outliers=100)[0])
    fit = fit_to(found, 24, 30)
    for _ in fit.run():
        pass
    mesh = mesh_of(fit, found)
    stats = mesh.statistics()
    assert stats.watertight
    assert stats.volume == pytest.approx(4 / 3 * np.pi, rel=0.02)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).mean() < 0.006


def test_without_steps_it_is_closed_already_and_half_a_sphere_is_closed_too() -> None:
    xyz, normals = sphere(3000)
    half = xyz[:, 2] > 0
    cloud = Cloud(xyz[half], None, normals[half])
    found = prepare(cloud, "auto", True, np.random.default_rng(0), lambda _: None, nothing)
    mesh = mesh_of(fit_to(found, 24, 0), found)
    assert mesh.statistics().watertight
    assert mesh.statistics().volume > 0


def test_the_same_seed_gives_the_same_surface_also_from_a_checkpoint() -> None:
    found = points(sphere(800)[0])
    fits = [fit_to(found, 12, 2 * MATCH_EVERY) for _ in range(3)]
    for step in fits[0].run():
        if step.step == MATCH_EVERY + 1:  # in the midst of a matching
            state = {name: tensor.clone() for name, tensor in fits[0].state().items()}
    fits[2].load_state(state, MATCH_EVERY + 1)
    for fit in fits[1:]:
        for _ in fit.run():
            pass
    for fit in fits[1:]:
        assert torch.equal(fit.mesh()[0], fits[0].mesh()[0])


def test_it_stops_when_asked_to() -> None:
    found = points(sphere(500)[0])

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        start(found.xyz, found.normals, found.weight, found.spacing, 16, stop)
