"""Repair and decimation on meshes broken on purpose."""

import math

import numpy as np
import pytest
from mesh_scenes import both, box, sphere

from recon.errors import Cancelled, InputError
from recon.events import Events
from recon.mesh.decimate import decimate
from recon.mesh.holes import boundary_loops, close_holes
from recon.mesh.mesh import Mesh
from recon.mesh.repair import clean, keep_largest, orient, repair, separate


def without(mesh: Mesh, condition) -> Mesh:
    """Remove the faces whose centre fulfils ``condition``."""
    centres = mesh.vertices[mesh.faces].mean(axis=1)
    return Mesh(mesh.vertices, mesh.faces[~condition(centres)], mesh.colours)


def test_clean_drops_degenerate_duplicate_and_unreferenced():
    cube = box()
    faces = np.concatenate([cube.faces, cube.faces[:2, ::-1], cube.faces[2:3, [1, 2, 0]], [[0, 0, 1], [5, 5, 5]]])
    vertices = np.concatenate([np.full((1, 3), 9, np.float32), cube.vertices])
    cleaned = clean(Mesh(vertices, (faces + 1).astype(np.int32)))
    np.testing.assert_array_equal(cleaned.faces, cube.faces)
    np.testing.assert_array_equal(cleaned.vertices, cube.vertices)


def test_floaters_go_by_area():
    scene = both(both(sphere(2), sphere(4, 0.1, (3, 0, 0))), sphere(3, 0.5, (-3, 0, 0)))
    kept = keep_largest(scene, 0.05)
    assert kept.statistics().components == 2, "the finely triangulated speck has 1 % of the area"
    assert kept.vertices[:, 0].max() == 1
    assert keep_largest(scene, 1).statistics().components == 1
    assert keep_largest(scene, 0).statistics().components == 3


def test_separate_parts_that_touch():
    cube = box()
    edge = Mesh(cube.vertices, np.concatenate([cube.faces, cube.faces + 8]).astype(np.int32))
    vertices = np.concatenate([cube.vertices, cube.vertices + np.array([1, 1, 0])]).astype(np.float32)
    touching, inverse = np.unique(vertices.round(3), axis=0, return_inverse=True)
    edge = Mesh(touching, inverse[edge.faces].astype(np.int32))
    assert edge.statistics().non_manifold_edges == 1
    parted = separate(edge).statistics()
    assert (parted.vertices, parted.components, parted.watertight) == (16, 2, True)


def test_separate_leaves_a_manifold_alone():
    ball = sphere(2, colours=True)
    same = separate(ball)
    assert len(same.vertices) == len(ball.vertices)
    np.testing.assert_array_equal(same.vertices[same.faces], ball.vertices[ball.faces])
    np.testing.assert_array_equal(same.colours[same.faces], ball.colours[ball.faces])


def test_orient_random_windings():
    rng = np.random.default_rng(0)
    scene = both(sphere(3), box((5, 5, 5)))
    flip = rng.random(len(scene.faces)) < 0.5
    oriented = orient(Mesh(scene.vertices, np.where(flip[:, None], scene.faces[:, ::-1], scene.faces)))
    s = oriented.statistics()
    assert s.watertight
    assert s.volume == pytest.approx(scene.statistics().volume)


def test_orient_keeps_an_open_sheets_majority():
    cap = without(sphere(3), lambda c: c[:, 2] < 0.3)
    faces = cap.faces.copy()
    faces[:5] = faces[:5, ::-1]
    np.testing.assert_array_equal(orient(Mesh(cap.vertices, faces)).faces, cap.faces)


def test_orient_survives_a_moebius_strip():
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    edge = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    arm = 0.3 * np.stack([np.cos(turn) * np.cos(turn / 2), np.sin(turn) * np.cos(turn / 2), np.sin(turn / 2)], axis=1)
    vertices = np.concatenate([edge + arm, edge - arm]).astype(np.float32)
    i, j = np.arange(20), np.r_[np.arange(1, 20), 20]
    top, bottom = np.where(j < 20, j, 20), np.where(j < 20, j + 20, 0)
    faces = np.concatenate([np.stack([i, top, i + 20], 1), np.stack([top, bottom, i + 20], 1)]).astype(np.int32)
    assert len(repair(Mesh(vertices, faces)).faces) >= 40


def test_holes_close_to_their_size():
    ball = sphere(4)
    small = without(ball, lambda c: c[:, 2] > 0.97)
    holed = without(small, lambda c: c[:, 2] < -0.5)
    assert len(boundary_loops(holed)) == 2
    closed = close_holes(holed, 0.9)
    assert len(boundary_loops(closed)) == 1, "the big opening stays"
    whole = close_holes(holed, math.inf).statistics()
    assert whole.watertight
    assert whole.volume == pytest.approx(4 / 3 * np.pi - np.pi * 0.5**2 * (3 - 0.5) / 3, rel=0.03), "cut along faces"


def test_a_concave_hole_is_spanned_without_folding():
    """An L-shaped opening in a plane: least area is exactly the L's, a fan about its centre would not be."""
    n = 12
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    vertices = np.c_[grid, np.zeros(len(grid))].astype(np.float32)
    corner = np.arange(n * n).reshape(n, n)
    a, b, c, d = corner[:-1, :-1].ravel(), corner[1:, :-1].ravel(), corner[1:, 1:].ravel(), corner[:-1, 1:].ravel()
    plane = Mesh(vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32))

    def inside(p):
        arm = (p[:, 0] > 2) & (p[:, 0] < 9) & (p[:, 1] > 2) & (p[:, 1] < 4)
        return arm | (p[:, 0] > 2) & (p[:, 0] < 4) & (p[:, 1] > 2) & (p[:, 1] < 9)

    closed = close_holes(without(plane, inside), 2.5)
    s = closed.statistics()
    assert s.area == pytest.approx(121)
    assert s.boundary_edges == 44
    normals = np.cross(*(closed.vertices[closed.faces[:, i]] - closed.vertices[closed.faces[:, 0]] for i in (1, 2)))
    assert (normals[:, 2] > 0).all()


def test_a_hole_does_not_reuse_an_edge():
    """The ring of a tetrahedron without two faces has a diagonal that the other two share."""
    vertices = np.eye(4, 3, dtype=np.float32)
    s = close_holes(Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32)), math.inf).statistics()
    assert (s.watertight, s.non_manifold_edges) == (True, 0)


def test_a_long_border_gets_a_fan():
    cap = without(sphere(6), lambda c: c[:, 2] < 0)
    cap = Mesh(cap.vertices, cap.faces, np.full_like(cap.vertices, 0.25))
    assert len(boundary_loops(cap)[0]) > 256
    closed = close_holes(cap, math.inf)
    assert closed.statistics().watertight
    assert len(closed.vertices) == len(cap.vertices) + 1
    np.testing.assert_allclose(closed.colours[-1], 0.25)


def test_closing_many_holes_can_be_stopped_between_any_two():
    class Impatient(Events):
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked > 100:
                self.cancel()
            super().check()

    ball = sphere(5)
    chosen = np.random.default_rng(0).permutation(len(ball.faces))[:2000]
    holed = orient(separate(clean(Mesh(ball.vertices, np.delete(ball.faces, chosen, axis=0)))))
    assert len(boundary_loops(holed)) > 1000
    assert close_holes(holed, math.inf).statistics().watertight
    with pytest.raises(Cancelled):
        close_holes(holed, events=Impatient())
    with pytest.raises(Cancelled):
        repair(holed, events=Impatient())


def test_repair_of_everything_at_once():
    rng = np.random.default_rng(1)
    scene = both(sphere(4, colours=True), sphere(2, 0.05, (2, 0, 0), colours=True))
    keep = rng.random(len(scene.faces)) > 0.02
    flip = rng.random(len(scene.faces)) < 0.3
    faces = np.where(flip[:, None], scene.faces[:, ::-1], scene.faces)[keep]
    broken = Mesh(scene.vertices, np.concatenate([faces, faces[:9], [[0, 0, 1]]]).astype(np.int32), scene.colours)
    mesh = repair(broken)
    s = mesh.check().statistics()
    assert (s.watertight, s.components) == (True, 1)
    assert s.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)


def test_decimate_keeps_to_its_number_beside_borders():
    """One pass over this one stops at half as many again."""
    rng = np.random.default_rng(0)
    pieces = [sphere(4, 0.05, (k, 0, 0)) for k in range(4)]
    whole = both(both(pieces[0], pieces[1]), both(pieces[2], pieces[3]))
    torn = Mesh(whole.vertices, whole.faces[rng.random(len(whole.faces)) > 0.05], None)
    wanted = len(torn.faces) // 20
    assert 0.9 * wanted < len(decimate(torn, wanted).faces) <= wanted


@pytest.mark.parametrize("colours", [False, True])
def test_decimate(colours):
    ball = sphere(5, colours=colours)
    small = decimate(ball, 500)
    s = small.check().statistics()
    assert s.watertight
    assert 400 <= s.faces <= 500
    assert s.volume == pytest.approx(4 / 3 * np.pi, rel=0.03)
    if colours:
        # A vertex moves by less than an edge of the result, about 0.25, and the colours change by at most 3 a unit.
        np.testing.assert_allclose(small.colours, np.abs(np.sin(3 * small.vertices)), atol=0.2)
    assert decimate(ball, 10**9) is ball
    with pytest.raises(InputError, match="encloses nothing"):
        decimate(ball, 3)
