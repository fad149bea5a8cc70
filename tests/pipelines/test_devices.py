"""Every pipeline on a device that is not the CPU: nothing is left on the wrong side, and the figures are the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import elsewhere
import mesh_capture
import numpy as np
import pytest
import splat_capture
import torch
from points_scenes import sphere

from benchmarks.bent_sheets import write_video
from recon import pipelines
from recon.deform import metric_field
from recon.deform.metric_field import MetricRule
from recon.errors import InputError
from recon.pipelines import mesh_field, mesh_results

SPLATS = {**splat_capture.SETTINGS, "steps": 60, "splats": 150, "faces": 500, "turntable": 2}
MESH = {
    **mesh_capture.SETTINGS,
    "resolution": 16,
    "steps": 20,
    "finish": 6,
    "faces": 500,
    "texture": 32,
    "turntable": 2,
}


THERE = "cuda" if torch.cuda.is_available() else str(elsewhere.device())
"""A GPU where there is one. Known before any test begins: autograd counts the devices when it is first used."""


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a device that is not the CPU."""
    if THERE != "cuda":
        monkeypatch.setattr(pipelines, "find_device", lambda name: name)
    return THERE


def alike(source: Path, job: Path, pipeline: str, there: str, **settings: Any) -> None:
    """Run a pipeline on both devices; its figures are to be alike."""
    results = [
        pipelines.run(source, job.with_name(f"{job.name}_{device[:3]}"), pipeline, device=device, **settings)
        for device in ("cpu", there)
    ]
    for result in results:
        assert result["status"] == "done", result["error"]
    here, other = (result["metrics"] for result in results)
    assert results[1]["device"] == there
    assert set(here) == set(other)
    for name, value in here.items():
        assert other[name] == pytest.approx(value, rel=0.02, abs=0.1 if name.endswith("psnr") else 1e-3), name


@pytest.mark.parametrize("optimizer", ["adam", "block-lm", "lm", "lm-sampled"])
def test_splats(optimizer: str, there: str, tmp_path: Path) -> None:
    capture = splat_capture.write_capture(tmp_path / "capture", masks=True)
    more: dict[str, Any] = {} if optimizer == "adam" else {"turntable": 0, "mesh": False}
    alike(capture, tmp_path / "job", "splats", there, **{**SPLATS, "optimizer": optimizer, **more})


@pytest.mark.parametrize("cut_out", [True, False])
def test_mesh(cut_out: bool, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of photos that are not cut out it begins with the depth of splats."""
    monkeypatch.setattr(mesh_field, "SPLATS", {"steps": 60, "splats": 300, "sh_degree": 0})
    monkeypatch.setattr(mesh_results, "LEAST_STEPS", 10)
    capture = mesh_capture.write_capture(tmp_path / "capture", alpha=cut_out, masks=False, views=8)
    alike(capture, tmp_path / "job", "mesh", there, **MESH)


def test_points(there: str, tmp_path: Path) -> None:
    xyz, normals = sphere(1500)
    np.savetxt(tmp_path / "cloud.xyz", np.column_stack([xyz, normals]))
    alike(tmp_path / "cloud.xyz", tmp_path / "job", "points", there, resolution=12, steps=10)


@pytest.mark.parametrize("method", ["lm", "metric_field"])
def test_deform(method: str, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_field, "MetricRule", lambda: MetricRule(rate=1e-2, steps=20, template_patience=5))
    write_video(tmp_path / "folded", "folded", 2, (8, 6))
    alike(tmp_path / "folded", tmp_path / "job", "deform", there, preset="fast", method=method)


@pytest.mark.parametrize("name", ["cuda", "cuda:7"])
def test_a_device_that_is_not_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=rf"no device '{name}' here") as caught:
        pipelines.run(splat_capture.write_capture(tmp_path / "capture"), tmp_path / "job", device=name)
    assert caught.value.code == "no-device"
    assert not (tmp_path / "job").exists()


def test_what_rasterizes_meshes_is_checked(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = splat_capture.write_capture(tmp_path / "capture")
    monkeypatch.setenv("RECON_MESH_BACKEND", "nvdiffrast")
    (warning,) = pipelines.prepare(capture, tmp_path / "job").warnings
    assert warning == "RECON_MESH_BACKEND=nvdiffrast says nothing on the CPU; it is for --device cuda."
    monkeypatch.setattr("recon.pipelines.devices.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed") as caught:
        pipelines.prepare(capture, tmp_path / "job", device=there)
    assert "no commercial use" in caught.value.hint
    monkeypatch.setenv("RECON_MESH_BACKEND", "nvdifrast")
    with pytest.raises(InputError, match="there is no 'nvdifrast'"):
        pipelines.prepare(capture, tmp_path / "job")
