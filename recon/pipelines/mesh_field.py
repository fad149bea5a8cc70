"""The ``mesh`` pipeline's beginning: a first, coarse field from masks, or from the depth of a short splats fit."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from recon.errors import InputError
from recon.events import Events
from recon.isosurface.carve import carved
from recon.isosurface.config import MeshConfig
from recon.isosurface.fit import visible
from recon.isosurface.flexicubes import FlexiCubes
from recon.isosurface.grids import Box
from recon.isosurface.hull import FEWEST_VIEWS, visual_hull
from recon.isosurface.targets import Photos, Target, load_targets
from recon.isosurface.view import Triangles
from recon.job_checkpoint import write_tensors
from recon.pipelines.context import Context
from recon.pipelines.photo_stages import capture_of
from recon.pipelines.splats_fit import fit_as
from recon.pipelines.splats_mesh import DepthMaps, bounds_of, depth_of, spread
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.model import Splats
from recon.splats.solver import SETTLING, SplatRule

MeshContext = Context[MeshConfig]

FIRST = 2
"""The first field's cells are so many times as large as the last one's."""
SPLATS: dict[str, Any] = {"steps": 800, "splats": 30_000, "sh_degree": 1}
SPLATS_SIDE = 400
"""The splats that only have to show where things are, and the photos that they are fitted to."""


class SettlingFit(Fit):
    """Splats that only have to show where things are."""

    rule: ClassVar[SplatRule] = SETTLING


def field(context: MeshContext) -> None:
    """Find about where the surface is."""
    prepared = capture_of(context)
    if len(prepared.train) < FEWEST_VIEWS:
        raise InputError(
            f"{len(prepared.train)} photos to fit to are too few for a mesh.",
            f"Take at least {FEWEST_VIEWS}, better 20 and more, from all around.",
            "too-few-photos",
        )
    cells = max(16, context.config.resolution // FIRST)
    photos = photos_of(context, prepared.train)
    box, values = visual_hull(photos, cells, context.events) if photos.cut_out else _from_depth(context, cells)
    write_tensors(context.folder / "field.safetensors", {"field": values, **box_tensors(box)})


def _from_depth(context: MeshContext, cells: int) -> tuple[Box, Tensor]:
    """Fit a few splats and carve the space in front of what they show."""
    own = context.config
    side = min(own.max_side, SPLATS_SIDE)
    config = SplatsConfig(**SPLATS, max_side=side, background=own.background, hold_out=own.hold_out, seed=own.seed)
    with context.within(config) as inner:
        fit_as(SettlingFit, inner)
        prepared = capture_of(inner)
    splats = _splats(context.folder).to(context.device)
    views = spread(prepared.views(prepared.train), side)
    maps = DepthMaps.of(splats, views, lambda i: context.events.check(), empty=math.inf, masked=True)
    return carved(maps.depths, maps.cameras, bounds_of(splats, maps.cameras), cells, context.events)


def _splats(folder: Path) -> Splats:
    tensors = load_file(folder / "model.safetensors")
    return Splats(**{f.name: tensors[f.name] for f in fields(Splats)})


def first_field(context: MeshContext) -> tuple[Box, Tensor]:
    """Return the box and the field that the stage left."""
    tensors = load_file(context.output("field") / "field.safetensors")
    return box_of(tensors), tensors["field"]


def box_tensors(box: Box) -> dict[str, Tensor]:
    """Return a box as tensors to be kept."""
    resolution = torch.tensor(box.resolution)
    return {"low": torch.from_numpy(box.low), "high": torch.from_numpy(box.high), "resolution": resolution}


def box_of(tensors: dict[str, Tensor]) -> Box:
    """Return the box that tensors were kept of."""
    nx, ny, nz = (int(n) for n in tensors["resolution"])
    return Box(tensors["low"].numpy(), tensors["high"].numpy(), (nx, ny, nz))


def photos_of(context: MeshContext, indices: list[int]) -> Photos:
    """Return the photos of these indices; where all have a mask, the masks show the object."""
    key = f"photos {indices}"
    if key not in context.memo:
        views = capture_of(context).views(indices)
        context.memo[key] = load_targets(
            views, context.config.background, context.events, context.stage, context.device
        )
    photos: Photos = context.memo[key]
    return photos


def fitted_photos(context: MeshContext, indices: list[int]) -> Photos:
    """Return photos that all say where the object is, and those that are not cut out how far away."""
    key = f"fitted {indices}"
    if key not in context.memo:
        photos = photos_of(context, indices)
        if not photos.cut_out:
            photos = covered(photos, *first_field(context), context.events)
            splats = _splats(context.output("field")).to(context.device)
            photos = with_depth(photos, splats, context.events)
        context.memo[key] = photos
    found: Photos = context.memo[key]
    return found


def with_depth(photos: Photos, splats: Splats, events: Events) -> Photos:
    """Return photos with the depth of splats, where their masks leave any."""

    def seen(target: Target) -> Target:
        events.check()
        depth = torch.from_numpy(depth_of(splats, target.camera))
        if target.counts is not None:
            depth[~target.counts] = torch.nan
        return replace(target, depth=torch.where(depth.isfinite(), depth, torch.nan))

    return replace(photos, levels=[[seen(target) for target in levels] for levels in photos.levels])


def covered(photos: Photos, box: Box, values: Tensor, events: Events) -> Photos:
    """Return photos that all say where the object is, as the first field has it."""
    surface = FlexiCubes(box.resolution, box.low.tolist(), box.high.tolist())(values)
    triangles = Triangles.of(surface.vertices, surface.faces)
    white = torch.ones(3)

    def cut(target: Target) -> Target:
        events.check()
        seen = visible(triangles, target)
        coverage = seen.image(torch.ones_like(seen.points), white)[1].clamp(0, 1)
        return replace(target, coverage=(coverage * 255).round().to(torch.uint8))

    return replace(photos, levels=[[cut(target) for target in levels] for levels in photos.levels])
