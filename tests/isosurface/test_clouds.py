"""Clouds made fit: what is left out, what is refused, normals, noise, matching."""

from __future__ import annotations

import numpy as np
import pytest
from points_scenes import box, box_distance, sphere

from recon.errors import InputError
from recon.isosurface.cloud_cleaning import Cloud, clean, isolated, thin
from recon.isosurface.cloud_filter import measure_noise
from recon.isosurface.cloud_normals import estimate_normals, neighbours, orient
from recon.isosurface.cloud_preparation import Prepared, prepare


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def prepared(xyz: np.ndarray, normals: np.ndarray | None = None, mode: str = "auto") -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare(Cloud(xyz, None, normals), mode, True, generator(), said.append, lambda: None), said


def test_what_spoils_a_cloud_is_left_out_and_told() -> None:
    xyz, _ = sphere(1000, outliers=40)
    xyz = np.concatenate([xyz, xyz[:7], np.full((3, 3), np.nan), [[np.inf, 0, 0]]])
    said: list[str] = []
    kept = clean(Cloud(xyz), 10**6, True, said.append)
    assert "Points that are not finite, left out: 4 of 1,051." in said
    assert "Points given more than once, left out: 7 of 1,047." in said
    radius = np.linalg.norm(kept.xyz, axis=1)
    assert (np.abs(radius - 1) < 1e-9).sum() > 990
    assert (np.abs(radius - 1) > 0.3).sum() <= 4, "of about 30"


def test_many_outliers_lie_in_space_and_go() -> None:
    """They are neighbours of each other, and no sparser than a part of a scan may be."""
    found = clean(Cloud(sphere(20_000, outliers=1000)[0]), 10**6, True, lambda _: None)
    away = np.abs(np.linalg.norm(found.xyz, axis=1) - 1)
    assert (away > 0.1).sum() == 0
    assert (away < 1e-9).sum() > 19_900


def test_sparse_parts_are_no_outliers() -> None:
    xyz, _ = sphere(3000)
    thinned = xyz[(xyz[:, 0] < 0) | (np.arange(3000) % 12 == 0)]
    assert isolated(thinned).mean() < 0.01


def test_thinning_averages() -> None:
    xyz, normals = sphere(20_000, noise=0.02)
    few = thin(Cloud(xyz, np.full((20_000, 3), 0.25, np.float32), normals), 1000)
    assert 500 < len(few) <= 1000
    assert few.rgb is not None
    assert few.normals is not None
    assert np.allclose(few.rgb, 0.25)
    assert np.allclose(np.linalg.norm(few.normals, axis=1), 1)
    assert np.abs(np.linalg.norm(few.xyz, axis=1) - 1).mean() < 0.02 * np.sqrt(2 / np.pi)


LINE = np.linspace(0, 1, 100)[:, None] * [1.0, 2.0, 3.0]
PLANE = np.column_stack([generator().uniform(size=(100, 2)), np.zeros(100)])


@pytest.mark.parametrize(
    ("xyz", "code"),
    [
        (np.empty((0, 3)), "too-few-points"),
        (np.ones((1, 3)), "too-few-points"),
        (np.ones((5000, 3)), "too-few-points"),
        (np.full((500, 3), np.nan), "too-few-points"),
        (LINE, "collinear-points"),
        (PLANE, "flat-points"),
        (PLANE @ np.linalg.qr(generator().normal(size=(3, 3)))[0] + 1e6, "flat-points"),
    ],
)
def test_what_encloses_nothing_is_refused(xyz: np.ndarray, code: str) -> None:
    with pytest.raises(InputError) as caught:
        clean(Cloud(xyz), 10**6, False, lambda _: None)
    assert caught.value.code == code
    assert caught.value.hint.endswith(".")


@pytest.mark.parametrize("shape", [sphere, box])
def test_estimated_normals_point_outward(shape) -> None:
    xyz, normals = shape(2000, noise=0.01)
    distance, index = neighbours(xyz, 16)
    found = orient(xyz, estimate_normals(xyz, index), distance, index)
    dots = np.einsum("ij,ij->i", found, normals)
    assert (dots < 0).mean() < 0.005
    assert np.median(dots) > 0.95


def test_two_shapes_are_each_turned_outward() -> None:
    xyz, normals = sphere(1000)
    xyz, normals = np.concatenate([xyz, xyz + np.array([5.0, 0, 0])]), np.concatenate([normals, normals])
    found, _ = prepared(xyz)
    assert (np.einsum("ij,ij->i", found.normals, normals) > 0.9).all()


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_noise_is_measured(noise: float) -> None:
    """Along normals it is what was added; a quadric of few points takes some of it up."""
    assert measure_noise(sphere(4000, noise)[0], generator())[0] == pytest.approx(noise, rel=0.25)
    assert measure_noise(sphere(4000)[0], generator())[0] < 1e-3


def test_smoothing_takes_noise_out_and_keeps_size_and_edges() -> None:
    found, _ = prepared(sphere(4000, noise=0.02)[0])
    radius = np.linalg.norm(found.xyz / found.scale + found.centre, axis=1)
    assert np.abs(radius - 1).mean() < 0.4 * 0.02 * np.sqrt(2 / np.pi)
    assert radius.mean() == pytest.approx(1, abs=0.003)
    xyz, _ = box(6000, noise=0.01)
    found, _ = prepared(xyz)
    moved = found.xyz / found.scale + found.centre
    assert box_distance(moved).mean() < 0.5 * box_distance(xyz).mean()


def test_normals_near_edges_are_of_one_side() -> None:
    xyz, normals = box(4000)
    found, _ = prepared(xyz)
    plain = np.abs(np.einsum("ij,ij->i", estimate_normals(xyz, neighbours(xyz, 12)[1]), normals))
    sharp = np.einsum("ij,ij->i", found.normals, normals)
    assert (sharp < 0.95).mean() < 0.6 * (plain < 0.95).mean()


def test_given_normals_are_kept_or_mended() -> None:
    xyz, normals = sphere(1500)
    for given, words in (
        (normals, ""),
        (-normals, "point inward"),
        (normals * np.where(generator().random(1500) < 0.3, -1, 1)[:, None], "against their neighbours"),
        (np.roll(normals, 1, axis=1), "do not stand on the surface"),
    ):
        found, said = prepared(xyz, given)
        assert (np.einsum("ij,ij->i", found.normals, normals) > 0.9).all()
        assert len(said) == (words != "")
        assert words in "".join(said)
    found, said = prepared(xyz, -normals, "given")
    assert (np.einsum("ij,ij->i", found.normals, normals) < -0.9).all()
    assert said == []


def test_zero_normals_are_filled_in_or_estimated() -> None:
    xyz, normals = sphere(1500)
    said: list[str] = []
    some = normals.copy()
    some[::5] = 0
    kept = clean(Cloud(xyz, None, some), 10**6, False, said.append).normals
    assert kept is not None
    assert (np.einsum("ij,ij->i", kept, normals) > 0.9).all()
    assert clean(Cloud(xyz, None, 0 * normals), 10**6, False, said.append).normals is None
    assert [s.split(":")[0] for s in said] == [
        "Normals that are zero or not finite, taken from neighbours",
        "Most normals are zero or not finite",
    ]
