from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import Delaunay

from benchmarks.bent_sheets import SIZE, folded, nodes
from recon.capture.capture import Points
from recon.deform import isometric
from recon.deform.register import register
from recon.deform.rigidity import Rigidity
from recon.deform.sheet import grid_faces
from recon.errors import InputError
from recon.evaluate.strain import strain_summary
from recon.mesh.mesh import Mesh


def tube(bend: float, rings: int = 40, around: int = 16, to: float = 1.0) -> Mesh:
    """A closed tube 2 long and 0.5 by 0.3 thick whose axis is an arc of so many radians; ``to`` cuts the end off."""
    t, a = np.meshgrid(np.linspace(0, 2, rings), 2 * np.pi * np.arange(around) / around, indexing="ij")
    y, z = 0.25 * np.cos(a), 0.15 * np.sin(a)
    end = np.clip(np.minimum(t, 2 - t) / 0.1, 0.3, 1)
    y, z = y * end, z * end
    if bend:
        radius = 2 / bend
        x, y = (radius - y) * np.sin(t / radius), radius - (radius - y) * np.cos(t / radius)
    else:
        x = t
    vertices = np.stack([x, y, z], axis=2).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij")
    p, q = (i * around + j).ravel(), (i * around + (j + 1) % around).ravel()
    faces = np.concatenate([np.stack([p, q, p + around], 1), np.stack([q, q + around, p + around], 1)])
    low, high = np.arange(around), (rings - 1) * around + np.arange(around)
    caps = [np.stack([np.zeros(around - 2, int), low[2:], low[1:-1]], 1)]
    caps += [np.stack([np.full(around - 2, high[0]), high[1:-1], high[2:]], 1)]
    faces = np.concatenate([faces, *caps])[:, ::-1]
    faces = faces[t.ravel()[faces].max(axis=1) <= 2 * to]
    return Mesh(vertices.astype(np.float32), np.ascontiguousarray(faces, np.int32))


def error(found: np.ndarray, truth: Mesh) -> float:
    """Root mean square error in per cent of the length."""
    return 100 * float(np.sqrt(((found - truth.vertices) ** 2).sum(axis=1).mean())) / 2


def test_bends_a_tube() -> None:
    source, target = tube(0.0), tube(1.2)
    found = register(source, target, rigid=False)
    assert error(source.vertices, target) > 15
    assert error(found.vertices, target) < 1
    assert found.weight.mean() > 0.8
    again = register(source, target, rigid=False)
    np.testing.assert_array_equal(found.vertices, again.vertices)


def test_units_are_the_inputs_and_place_does_not_matter() -> None:
    source, target = tube(0.0), tube(0.8)
    shifted = Mesh(100 * target.vertices[:, [1, 2, 0]] + np.float32(50), target.faces)
    found = register(Mesh(100 * source.vertices, source.faces), shifted)
    assert error(found.vertices / 100, Mesh(shifted.vertices / 100, shifted.faces)) < 2
    at = found.rigid.apply(100 * source.vertices.astype(np.float64))
    assert np.linalg.norm(at.mean(axis=0) - shifted.vertices.mean(axis=0)) < 20


def test_what_the_target_lacks_follows_its_neighbours() -> None:
    source, target = tube(0.0), tube(0.6)
    found = register(source, tube(0.6, to=0.7), rigid=False)
    assert error(found.vertices, target) < 4
    assert found.weight[-100:].mean() < 0.2


def sheets(angle: float, kept: float = 1.0) -> tuple[Mesh, Mesh, np.ndarray]:
    """A flat sheet, a finer one that is folded, of which a part is kept, and where the flat one's vertices belong."""

    def shape(uv: np.ndarray) -> np.ndarray:
        return (folded(uv, angle, 20.0) - folded(np.zeros((1, 2)), angle, 20.0)) / SIZE[0]

    flat = np.pad(nodes() / SIZE[0], ((0, 0), (0, 1))).astype(np.float32)
    fine, faces = nodes((50, 40)), grid_faces(50, 40)
    faces = faces[fine[faces][:, :, 0].max(axis=1) < (kept - 0.5) * SIZE[0] + 1e-6]
    used = np.unique(faces)
    target = Mesh(shape(fine[used]).astype(np.float32), np.searchsorted(used, faces).astype(np.int32))
    return Mesh(flat, grid_faces(20, 15).astype(np.int32)), target, shape(nodes())


def test_a_sheet_does_not_slide_off_another() -> None:
    source, target, truth = sheets(0.9)
    for kept, most in ((False, 0.004), (True, 0.0015)):
        found = register(source, target, rigid=False, isometric=kept).vertices
        assert np.linalg.norm(found - truth, axis=1).mean() < most


def test_an_isometry_does_not_end_beside_a_roll() -> None:
    """Where the graph's few motions leave a sheet slid along a roll, keeping its metric leaves it there."""
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(-0.15, 0.15, 41), np.linspace(-0.1, 0.1, 29)))
    faces = Delaunay(np.stack([u, v], 1)).simplices.astype(np.int32)
    flat, rolled = np.stack([u, v, 0 * u], 1), np.stack([0.1 * np.sin(10 * u), v, 0.1 - 0.1 * np.cos(10 * u)], 1)
    found = register(*(Mesh(one.astype(np.float32), faces) for one in (flat, rolled)), isometric=True).vertices
    assert min(np.linalg.norm(found - turn * rolled, axis=1).mean() for turn in (np.ones(3), [-1, -1, 1])) < 1e-3


def test_an_isometry_stays_one_where_the_target_lacks_a_part() -> None:
    source, target, truth = sheets(0.9, kept=0.7)
    found = register(source, target, rigid=False, isometric=True).vertices
    assert np.linalg.norm(found - truth, axis=1).max() < 0.02
    assert strain_summary(found.astype(np.float32), source.vertices, source.faces)["strain_p95"] < 1e-3


def test_isometries_are_of_meshes_that_are_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, _ = sheets(0.2)
    cloud = Points(source.vertices.astype(np.float64), np.zeros_like(source.vertices))
    with pytest.raises(InputError, match="is no mesh"):
        register(cloud, target, isometric=True)
    monkeypatch.setattr(isometric, "MOST", 300)
    with pytest.raises(InputError, match="336 vertices, of at most 300"):
        register(source, target, isometric=True)


def test_goes_on_from_what_was_found_before_and_forgets_its_errors() -> None:
    source, target = tube(0.0), tube(2.4)
    before = tube(2.1).vertices.astype(np.float64)
    noisy = before + 0.01 * np.random.default_rng(0).normal(size=before.shape)
    assert error(register(source, target, rigid=False).vertices, target) > 3, "far for once"
    found, despite = (register(source, target, start=start).vertices for start in (before, noisy))
    assert error(found, target) < 2
    assert error(despite, target) < error(found, target) + 0.1


def test_clouds_without_normals() -> None:
    source, target = tube(0.0), tube(0.5)
    grey = np.full((len(source.vertices), 3), 0.5, np.float32)
    clouds = [Points(mesh.vertices.astype(np.float64), grey) for mesh in (source, target)]
    assert error(register(*clouds, rigid=False).vertices, target) < 3


def test_landmarks_hold() -> None:
    source, target = tube(0.0), tube(0.5)
    count = len(source.vertices)
    pairs = np.stack([np.arange(0, count, 97), np.arange(0, count, 97)], axis=1)
    found = register(source, target, landmarks=pairs)
    away = np.linalg.norm(found.vertices - target.vertices, axis=1)[pairs[:, 0]]
    assert away.max() < 0.02


def test_rigidity_is_zero_for_rigid_motions_and_its_gradient_is_that_of_its_parts() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(6, 3))
    edges = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [4, 5], [3, 5]])
    rigidity = Rigidity(points, edges)
    turned = points[:, [1, 2, 0]]
    assert rigidity.energy(turned, rigidity.rotations(turned)) == pytest.approx(0, abs=1e-20)
    moved = points + 0.1 * generator.normal(size=points.shape)
    R = rigidity.rotations(moved)
    gradient = 2 * (rigidity.laplacian @ moved - rigidity.load(R))
    step = np.zeros_like(points)
    step[2, 1] = 1e-6
    slope = (rigidity.energy(moved + step, R) - rigidity.energy(moved - step, R)) / 2e-6
    assert gradient[2, 1] == pytest.approx(slope, rel=1e-6)


def test_sizes_that_differ_are_warned_of_with_their_ratio() -> None:
    source = tube(0.0, rings=12, around=8)
    told: list[str] = []
    register(source, source, rigid=False, warn=told.append)
    assert told == []
    register(source, Mesh(10 * source.vertices, source.faces), rigid=False, warn=told.append)
    assert len(told) == 1
    assert "10 times" in told[0]


@pytest.mark.parametrize("which", ["nan", "empty", "no area", "nan cloud", "few points", "landmarks"])
def test_bad_input_is_refused(which: str) -> None:
    good = tube(0.0, rings=12, around=8)
    bad: Mesh | Points = good
    landmarks = None
    xyz = np.random.default_rng(0).normal(size=(20, 3))
    grey = np.full((20, 3), 0.5, np.float32)
    if which == "nan":
        vertices = good.vertices.copy()
        vertices[3] = np.nan
        bad = Mesh(vertices, good.faces)
    elif which == "empty":
        bad = Mesh(good.vertices, good.faces[:0])
    elif which == "no area":
        bad = Mesh(np.repeat(good.vertices[:, :1], 3, axis=1), good.faces)
    elif which == "nan cloud":
        xyz[4] = np.inf
        bad = Points(xyz, grey)
    elif which == "few points":
        bad = Points(np.tile(xyz[:1], (20, 1)), grey)
    else:
        landmarks = np.array([[0, 10_000]])
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(InputError) as caught:
            register(*pair, landmarks=landmarks)
        assert caught.value.hint
