"""What the benchmarks of fitting share: a capture made ready as the pipeline does, and figures on validation photos."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.capture.load import load
from recon.capture.normalise import apply, normalising_transform
from recon.capture.resize import working_view
from recon.capture.split import split
from recon.evaluate.metrics import psnr, ssim
from recon.events import Events
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.initial import hull_points, splats_at, thinned
from recon.splats.model import Splats
from recon.splats.photos import TrainingPhoto, load_photos
from recon.splats.render import render


@dataclass
class Start:
    """A capture ready to be fitted, and where every rival starts."""

    splats: Splats
    photos: list[TrainingPhoto]
    validation: list[TrainingPhoto]
    held_out: list[TrainingPhoto]
    background: Tensor
    config: SplatsConfig

    def fit(self, kind: type[Fit] = Fit) -> Fit:
        """Return a fit from fresh copies of the starting splats."""
        copies = Splats(**{name: t.clone() for name, t in self.splats.tensors().items()})
        return kind(copies, self.photos, self.background, self.config)


def prepare(path: Path, config: SplatsConfig, workdir: Path) -> Start:
    """Load a posed capture."""
    events = Events()
    capture = load(path, events, workdir)
    capture = apply(capture, normalising_transform(capture))
    views = [working_view(view, config.max_side) for view in capture.views]
    train, validation, held_out = split(capture)
    photos, background = load_photos([views[i] for i in train], config.background, events, "fit")
    watched, last = (
        load_photos([views[i] for i in few], config.background, events, "fit")[0] for few in (validation, held_out)
    )
    generator = np.random.default_rng(config.seed)
    points = capture.points
    if points is None:
        masks = [mask for i in train if (mask := views[i].load().mask) is not None]
        images = [photo.levels[0].rgb.numpy() for photo in photos]
        points = hull_points([p.camera for p in photos], images, masks, config.splats // 4, generator)
    if points is None:
        raise SystemExit(f"{path} has neither points nor masks")
    points = thinned(points, config.splats // 2, generator)
    return Start(splats_at(points, config.sh_degree), photos, watched, last, background, config)


def measure(model: Fit, photos: list[TrainingPhoto]) -> dict[str, float]:
    """Return mean PSNR and SSIM over photos."""
    rows = []
    for photo in photos:
        target = photo.levels[0]
        with torch.no_grad():
            image = render(model.splats, target.pose, model.background, antialiased=model.config.antialiased)[0]
        image = image.clamp(0, 1)
        rows.append((psnr(image, target.rgb), ssim(image, target.rgb)))
    means = np.mean(rows, axis=0)
    return {"psnr": round(float(means[0]), 3), "ssim": round(float(means[1]), 4)}


def run_fits(run: Callable[..., dict[str, Any]], calls: Sequence[tuple[Any, ...]], log: Path | None) -> list[Any]:
    """Return ``run(*call)`` of each call, each in a process of its own, two at a time.

    Prints each as it comes, as a JSON line of the call and what it gave; ``log`` keeps these lines, and a call that it
    has is not run again.
    """
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    found = {json.dumps(call): result for call, result in map(json.loads, lines)}
    missing = [call for call in calls if json.dumps(call) not in found]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        pending = {pool.submit(run, *call): call for call in missing}
        for future in as_completed(pending):
            call, result = pending[future], future.result()
            found[json.dumps(call)] = result
            line = json.dumps([call, result])
            print(line, flush=True)
            if log is not None:
                with log.open("a") as file:
                    file.write(line + "\n")
    return [found[json.dumps(call)] for call in calls]
