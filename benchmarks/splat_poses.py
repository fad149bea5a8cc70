"""What correcting the camera poses is worth: a capture as it is, and with its training cameras shaken.

    python -m benchmarks.splat_poses [--steps 800] [--write]

Fits nerf_chair at 256 pixels with ``refine_cameras`` off and on, by Adam and by block-LM. Shaken cameras are turned by
0.4 degrees about each axis and shifted by 0.7 % of their distance, both random (standard deviations). The validation
cameras stay as they were: a drift of the whole scene counts as an error.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks.fitting import Start, measure, prepare
from benchmarks.splat_rates import CAPTURES
from benchmarks.tables import machine, print_table, write_section
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.photos import TrainingPhoto

COLUMNS = ["cameras", "optimiser", "refine_cameras", "training loss", "validation PSNR", "SSIM"]
SHAKE = 0.007
"""Radians, and units of about the distance to the scene."""


def shaken(photos: list[TrainingPhoto]) -> list[TrainingPhoto]:
    """Return the photos with wrong poses, each in all its sizes alike."""
    generator, found = np.random.default_rng(0), []
    for photo in photos:
        motion = np.eye(4, dtype=np.float32)
        motion[:3, :3] = Rotation.from_rotvec(generator.normal(0, SHAKE, 3)).as_matrix()
        motion[:3, 3] = generator.normal(0, SHAKE, 3)
        moved = [
            replace(t, pose=replace(t.pose, viewmat=torch.from_numpy(motion) @ t.pose.viewmat)) for t in photo.levels
        ]
        found.append(replace(photo, levels=tuple(moved)))
    return found


def row(start: Start, kind: type[Fit], cameras: str, name: str) -> list[Any]:
    """Return a row of the table."""
    model = start.fit(kind)
    losses = [progress.loss for progress in model.run()]
    quality = measure(model, start.validation)
    loss = float(np.mean(losses[-len(start.photos) :]))
    refined = "yes" if start.config.refine_cameras else "no"
    return [cameras, name, refined, round(loss, 5), quality["psnr"], quality["ssim"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    chosen = {"max_side": 256, "steps": arguments.steps, "splats": 15_000}
    with tempfile.TemporaryDirectory() as folder:
        config = SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen})
        start = prepare(CAPTURES["nerf_chair"], config, Path(folder))
    rows = []
    for cameras, photos in (("as given", start.photos), ("shaken", shaken(start.photos))):
        for refine in (False, True):
            fresh = replace(start, photos=photos, config=config.model_copy(update={"refine_cameras": refine}))
            for name, kind in (("Adam", Fit), ("block-LM", BlockFit)):
                rows.append(row(fresh, kind, cameras, name))
                print(json.dumps(dict(zip(COLUMNS, rows[-1], strict=True))), flush=True)
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("splat_poses", f"{machine()}; nerf_chair, {arguments.steps} steps", COLUMNS, rows)


if __name__ == "__main__":
    main()
