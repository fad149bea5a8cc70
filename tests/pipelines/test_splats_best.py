"""A fit ends with the model that matched its validation photos best, and ends early when that lies far behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from splat_capture import SETTINGS, write_capture

from recon import pipelines
from recon.pipelines import splats_fit
from recon.splats import config
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit


def run_with_validation(
    values: list[float], root: Path, monkeypatch: pytest.MonkeyPatch, rise: float = 1.0
) -> tuple[dict, list]:
    """Run the pipeline with made-up validation figures; return the result and the means at each measurement.

    The fit's own photos are matched by ``rise`` dB better each time.
    """
    means: list[torch.Tensor] = []

    def measure(_: object, model: Fit, *__: object) -> dict[str, float]:
        means.append(model.splats.means.clone())
        return {"psnr": 20 + rise * len(means), "validation_psnr": values[len(means) - 1]}

    monkeypatch.setattr(splats_fit, "_measure", measure)
    settings = {**SETTINGS, "steps": 120, "mesh": False, "turntable": 0}
    return pipelines.run(write_capture(root / "capture"), root / "job", **settings), means


def test_the_best_model_is_kept_and_the_fit_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [20.0, 22.0, 21.0, 21.5, 21.9, 21.0, 30.0, 31.0]
    result, means = run_with_validation(values, tmp_path, monkeypatch)
    assert result["status"] == "done", result["error"]
    assert len(means) == 2 + splats_fit.PATIENCE, "it ends after so many measurements that were not the best"
    kept = load_file(tmp_path / "job/stages/fit/model.safetensors")
    assert torch.equal(kept["means"], means[1])
    assert result["metrics"]["validation_psnr"] == 22.0


def test_a_fit_that_matches_its_own_photos_no_better_either_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not learnt them by heart: its steps are too long yet, and the end brings them down."""
    values = [20.0, 22.0, 21.0, 21.5, 21.9, 21.0, 21.0, 21.0, 21.0, 25.0, 28.0, 30.0]
    result, means = run_with_validation(values, tmp_path, monkeypatch, rise=0.0)
    assert len(means) == splats_fit.EVALUATIONS
    assert result["metrics"]["validation_psnr"] == 30.0


def test_a_fit_that_gets_better_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, means = run_with_validation([20.0 + k for k in range(20)], tmp_path, monkeypatch)
    assert result["history"][-1]["validation_psnr"] == 20.0 + len(means) - 1
    assert len(means) == splats_fit.EVALUATIONS
    kept = load_file(tmp_path / "job/stages/fit/model.safetensors")
    assert torch.equal(kept["means"], means[-1])


def test_few_photos_are_not_looked_at_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SplatsConfig(steps=4000).steps_on(13) == 1300
    assert SplatsConfig(steps=4000, views_per_step=4).steps_on(13) == 800
    assert SplatsConfig(steps=4000).steps_on(100) == 4000
    monkeypatch.setattr(config, "FEWEST_STEPS", 36)
    monkeypatch.setattr(config, "PER_PHOTO", 3)
    result, means = run_with_validation([20.0 + k for k in range(20)], tmp_path, monkeypatch)
    assert any("takes 36 steps, not 120" in warning for warning in result["warnings"])
    assert len(means) == splats_fit.EVALUATIONS
