"""How long the ``splats`` and the ``points`` pipeline may take, before anything is begun.

A step of a fit costs, on one core, about

    t = 1.5e-7 P + 3.4e-7 N + 3.5e-7 √(P N)   seconds

for P pixels and N splats (projection and optimiser grow with N, loss with P, blending in between), measured on two
captures at 0.04 to 0.73 megapixels and 25 to 200 thousand splats; errors there are within 25 %. A step of a fit to P
points with n cells along the longest side costs about 2e-6 P + 2.5e-5 n² seconds. Machines differ by more than that:
these figures are to tell minutes from hours.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from recon.capture.inspect import Inspection
from recon.splats.config import SplatsConfig

if TYPE_CHECKING:
    from recon.isosurface.points_config import PointsConfig

CUT_OUT = 0.4
"""Share of the pixels that a cut-out object covers; the others cost nothing."""
COARSE = 0.85
"""Share of a fit's work that is left when it begins with small photos and few splats."""
SERIAL = 0.15
"""Share of the work that more cores do not speed up."""


def estimate_seconds(found: Inspection, cores: int | None = None) -> dict[str, float]:
    """Return about how many seconds each preset takes for an inspected capture.

    Args:
        found: what :func:`recon.capture.inspect.inspect` says of it.
        cores: that work on it; those this process may use where None.
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if found.extent is not None:
        from recon.isosurface.points_config import PointsConfig  # loads torch

        return {
            preset: round(_points_seconds(found.points, PointsConfig(**settings)) * (SERIAL + (1 - SERIAL) / cores), 1)
            for preset, settings in PointsConfig.presets.items()
        }
    poses = 0.0
    if not found.posed:
        from recon.capture.poses import estimate_pose_seconds  # loads COLMAP

        poses = estimate_pose_seconds(found.photos, found.kind == "video")
    return {
        preset: round(poses + _seconds(found, SplatsConfig(**settings)) * (SERIAL + (1 - SERIAL) / cores), 1)
        for preset, settings in SplatsConfig.presets.items()
    }


def _seconds(found: Inspection, config: SplatsConfig) -> float:
    """Return the seconds of all stages but the poses on one core."""
    full, working = 0.0, 0.0  # pixels of all photos, as they are read and as they are fitted
    for width, height, count in found.sizes:
        scale = min(1.0, config.max_side / max(width, height))
        full += width * height * count
        working += width * height * scale**2 * count
    share = CUT_OUT if found.masks == "alpha" else 1.0
    pixels, splats = share * working / found.photos, config.splats
    step = 1.5e-7 * pixels + 3.4e-7 * splats + 3.5e-7 * math.sqrt(pixels * splats)
    fit = COARSE * config.steps * config.views_per_step * step
    mesh = 6 + 8e-5 * splats if config.mesh else 0.0
    return 2 + 6e-8 * full + fit + mesh + 0.3 * step * config.turntable + 4e-7 * working / 8


def _points_seconds(count: int, config: PointsConfig) -> float:
    """Return the seconds of all stages of the ``points`` pipeline on one core."""
    fitted = min(count, config.points)
    cells = min(config.resolution, math.sqrt(fitted / 2))  # about a vertex for each point
    return 5 + 2e-6 * count + 2e-4 * fitted + config.steps * (2e-6 * fitted + 2.5e-5 * cells**2)


def in_words(seconds: dict[str, float]) -> str:
    """Return ``"fast 1 min, medium 8 min, high 1.5 h"``."""
    return ", ".join(f"{preset} {_round(value)}" for preset, value in seconds.items())


def _round(seconds: float) -> str:
    minutes = seconds / 60
    return f"{max(1, round(minutes))} min" if minutes < 90 else f"{minutes / 60:.1f} h"
