"""How long each pipeline may take, before anything is begun.

A step of a fit of splats costs, on one core, about

    t = 1.5e-7 P + 3.4e-7 N + 3.5e-7 √(P N)   seconds

for P pixels and N splats (projection and optimiser grow with N, loss with P, blending in between), measured on two
captures at 0.04 to 0.73 megapixels and 25 to 200 thousand splats; errors there are within 25 %. A step of a fit to P
points with n cells along the longest side costs about 2e-6 P + 2.5e-5 n² seconds.

A mesh from photos is fitted, finished and textured: with v photos of P pixels a step, S triangles of the first surface,
F of the finished one and T texels along the texture's side, a step of each costs about

    fit 7.2e-7 v P + 1.8e-6 S,   finish 5e-7 v P + 3.7e-6 F,   texture 1.9e-7 P + 2.4e-8 T²   seconds

and the first two as much as 50 and 30 steps beside their steps. Measured as processor time on one busy core on two
captures, one cut out and one not, at 64 to 128 cells, 200 and 400 pixels and 512 to 2048 texels; errors of the stages
there are within 35 %, of their sums within 20 %.

Machines differ by more than that: these figures are to tell minutes from hours.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from recon.capture.inspection import Inspection
from recon.splats.config import SplatsConfig

if TYPE_CHECKING:
    from recon.deform.config import DeformConfig
    from recon.isosurface.config import MeshConfig
    from recon.isosurface.points_config import PointsConfig

CUT_OUT = 0.4
"""Share of the pixels that a cut-out object covers; the others cost nothing."""
WHOLE_FIT = 1.45
"""What a step of a fit of splats costs on average, in steps on whole photos with all splats: it begins with small and
few ones, but also adds splats, measures itself and shows pictures. From one whole fit's processor time."""
SERIAL = 0.15
"""Share of the work that more cores do not speed up."""
REGISTERED = 2e-3
"""Seconds that registration takes for each vertex of the source, on one core; measured on a pair of 11,000 vertices."""
FIRST_SPLATS = 1100
"""Steps that the ``mesh`` pipeline's splats, their depth maps and the carving cost, where photos are not cut out."""


def estimate_seconds(found: Inspection, cores: int | None = None) -> dict[str, dict[str, float]]:
    """Return about how many seconds each preset of each pipeline that can run on an inspected capture takes.

    Args:
        found: what :func:`recon.capture.inspect.inspect` says of it.
        cores: that work on it; those this process may use where None.

    Returns:
        Seconds by pipeline, in the order of ``found.pipelines``, and preset.
    """
    from recon.deform.config import DeformConfig
    from recon.isosurface.config import MeshConfig  # loads torch
    from recon.isosurface.points_config import PointsConfig

    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    poses = 0.0
    if found.photos and not found.posed:
        from recon.capture.poses import estimate_pose_seconds  # loads COLMAP

        poses = estimate_pose_seconds(found.photos, found.kind == "video")
    alone: dict[str, dict[str, float]] = {  # on one core, without the poses
        "splats": {name: _seconds(found, SplatsConfig(**chosen)) for name, chosen in SplatsConfig.presets.items()},
        "mesh": {name: _mesh_seconds(found, MeshConfig(**chosen)) for name, chosen in MeshConfig.presets.items()},
        "points": {
            name: _points_seconds(found.points, PointsConfig(**chosen)) for name, chosen in PointsConfig.presets.items()
        },
        "deform": {
            name: _deform_seconds(found, DeformConfig(**chosen)) for name, chosen in DeformConfig.presets.items()
        },
    }
    share = SERIAL + (1 - SERIAL) / cores
    return {
        pipeline: {
            preset: round((0.0 if pipeline in ("points", "deform") else poses) + share * seconds, 1)
            for preset, seconds in alone[pipeline].items()
        }
        for pipeline in found.pipelines
        if pipeline in alone
    }


def _pixels(found: Inspection, max_side: int) -> tuple[float, float]:
    """Return the pixels of all photos: as they are read, and as they are fitted."""
    full, working = 0.0, 0.0
    for width, height, count in found.sizes:
        scale = min(1.0, max_side / max(width, height))
        full += width * height * count
        working += width * height * scale**2 * count
    return full, working


def _splats_step(pixels: float, splats: int) -> float:
    return 1.5e-7 * pixels + 3.4e-7 * splats + 3.5e-7 * math.sqrt(pixels * splats)


def _seconds(found: Inspection, config: SplatsConfig) -> float:
    """Return the seconds of all stages of the ``splats`` pipeline but the poses on one core."""
    full, working = _pixels(found, config.max_side)
    share = CUT_OUT if found.masks == "alpha" else 1.0
    step = _splats_step(share * working / max(found.photos, 1), config.splats)
    training = found.photos - (found.held_out or found.photos // 8)
    fit = WHOLE_FIT * config.steps_on(training) * config.views_per_step * step
    mesh = 6 + 8e-5 * config.splats if config.mesh else 0.0
    return 2 + 6e-8 * full + fit + mesh + 0.3 * step * config.turntable + 4e-7 * working / 8


def _mesh_seconds(found: Inspection, config: MeshConfig) -> float:
    """Return the seconds of all stages of the ``mesh`` pipeline but the poses on one core."""
    photos = max(found.photos, 1)
    full, working = _pixels(found, config.max_side)
    pixels, views = working / photos, config.views_per_step
    cut_out = found.photos > 0 and found.masked == found.photos
    judging = found.held_out or found.photos / 8
    share, surface = (CUT_OUT, 2.4) if cut_out else (1.0, 5.2)  # what is not cut out is fitted with its surroundings
    surface *= config.resolution**2
    field = 1.2e-7 * working
    if not cut_out:  # a short fit of splats, depth maps, carving
        field += FIRST_SPLATS * _splats_step(_pixels(found, min(config.max_side, 400))[1] / photos, 30_000)
    fit = (config.steps + 50) * (7.2e-7 * views * share * pixels + 1.8e-6 * surface)
    refine = texture = 0.0
    if config.finish:
        fine = min(2.9 * surface, 3 * config.faces)
        refine = (config.finish + 30) * (5e-7 * views * pixels + 3.7e-6 * fine) + 2e-5 * fine
    if config.texture:
        steps = max(100, 2 * (photos - judging))
        texture = 4e-5 * config.faces + steps * (1.9e-7 * pixels + 2.4e-8 * config.texture**2)
    rest = 2 + 1e-7 * full + 1.2e-5 * config.faces + 4e-7 * judging * pixels + 0.04 * config.turntable
    return rest + field + fit + refine + texture


def _points_seconds(count: int, config: PointsConfig) -> float:
    """Return the seconds of all stages of the ``points`` pipeline on one core."""
    fitted = min(count, config.points)
    cells = min(config.resolution, math.sqrt(fitted / 2))  # about a vertex for each point
    return 5 + 2e-6 * count + 2e-4 * fitted + config.steps * (2e-6 * fitted + 2.5e-5 * cells**2)


def _deform_seconds(found: Inspection, config: DeformConfig) -> float:
    """Return the seconds of all stages of the ``deform`` pipeline on one core."""
    if found.targets:
        return 5 + found.targets * REGISTERED * found.points
    vertices = min(found.faces / 2, config.vertices)
    tracked = 0.3 + 2e-3 * vertices if found.points else 0.0
    pictured = 0.5 + 2.5e-3 * vertices if found.photos else 0.0
    return 5 + found.frames * (tracked + pictured + 0.4)


def in_words(seconds: dict[str, float]) -> str:
    """Return ``"fast 1 min, medium 8 min, high 1.5 h"``."""
    return ", ".join(f"{preset} {_round(value)}" for preset, value in seconds.items())


def _round(seconds: float) -> str:
    minutes = seconds / 60
    return f"{max(1, round(minutes))} min" if minutes < 90 else f"{minutes / 60:.1f} h"
