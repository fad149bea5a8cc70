"""Fitting a surface to photos: FlexiCubes rendered and compared, coarse to fine, resumable at any step.

    loss = mean |render - photo| + mean (coverage - silhouette)²      over the views of a step
           + λ_dev L_dev / cell + λ_sign L_sign                       FlexiCubes' own (Eqs 8 and 9)
           + λ_bend mean over edges of (1 - n · n')                   the bend between neighbouring triangles
           + λ_shape mean [huber((z - z') / cell) + (1 - n · n')]     where depth z' is known, with normals n' of it

The colours are a grid in space (colours.py), finer than the cells, so that the texture is not bound to the geometry.
From one resolution to the next, field, deformation and colours are interpolated; the weights start afresh. The field is
in cells: a step of the optimiser then means the same at every resolution.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §5.1; Munkberg et al.
2022, "Extracting Triangular 3D Models, Materials, and Lighting From Images", for photos in place of known shapes.
Everything random is drawn from the seed and the number of the step alone, so a fit that goes on from a checkpoint takes
the very steps of one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, normalize

from recon.errors import ReconstructionError
from recon.isosurface.colours import Colours
from recon.isosurface.config import MeshConfig
from recon.isosurface.flexicubes import FlexiCubes, Surface, sign_loss
from recon.isosurface.grids import Box
from recon.isosurface.targets import LEVELS, Photos, Target
from recon.isosurface.view import Triangles, Visible
from recon.memory import coarser
from recon.mesh.depth import normals_of, rays_of
from recon.solve.adam import Adam, Rule

STAGES = ((0.0, 2), (0.35, 1))
"""From this share of the fit on: the cells' side, in final ones."""
COARSE = ((0.15, 2), (0.5, 1))
"""Until this share of the fit: level of the photos (each level halves their size)."""
FINER_COLOURS, MOST_COLOURS = 2, 192
"""Samples of the colours' grid for one cell, and at most along a side."""
COVERAGE = 1.0
DEVIATION = 0.02
SIGN = (0.02, 0.001)
"""Weight of L_sign at first and from a quarter of the fit on."""
SHAPE = (0.02, 0.002)
"""λ_shape, that of depth and normals, at first and in the end: it comes from photos, too, and less surely than them."""
_LEAST_RESOLUTION = 8


@dataclass(frozen=True)
class Progress:
    """What a step tells: its loss, the surface's triangles."""

    loss: float
    faces: int


class Fit:
    """A fit under way.

    Attributes:
        photos: what is fitted to.
        config: settings.
        step: steps taken.
        warn: told where a GPU's memory does not suffice for the photos at their size.
        least_level: level of the photos that it does suffice for.
        box: the grid.
        field: (samples,) in cells, negative inside; ``deform``: (samples, 3); ``weights``: (cells, 21).
        colours: in space.
    """

    def __init__(self, photos: Photos, box: Box, field: Tensor, config: MeshConfig) -> None:
        """Begin.

        Args:
            photos: what is fitted to, each with its coverage.
            box: of the initial field, at any resolution.
            field: (Nx + 1, Ny + 1, Nz + 1) at its samples, in world units, negative inside.
            config: settings.
        """
        self.photos, self.config, self.step = photos, config, 0
        self.warn: Callable[[str], None] = lambda message: None
        self.least_level = 0
        self.box, self.field, self.stage = box, field / box.cell, -1
        self.deform = field.new_zeros(*field.shape, 3)
        self.colours = Colours.grey(box, field.device)
        self._enter(0)

    @property
    def device(self) -> torch.device:
        """Where the fit is computed: where the field is."""
        return self.field.device

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.config.steps

    @property
    def done(self) -> float:
        """Share of the fit that is over."""
        return self.step / self.steps

    @property
    def level(self) -> int:
        """Level of the photos at this step."""
        return max(self.least_level, next((level for end, level in COARSE if self.done < end), 0))

    def run(self) -> Iterator[Progress]:
        """Take steps until all are taken.

        Raises:
            ReconstructionError: the surface has vanished (code ``"no-surface"``).
        """
        while self.step < self.config.steps:
            due = sum(self.done >= start for start, _ in STAGES) - 1
            if due > self.stage:
                self._enter(due)
            try:
                loss, faces = self._take_step()
            except torch.OutOfMemoryError as error:
                self.least_level = coarser(self.level, LEVELS, error, self.warn)
                continue
            self.step += 1
            yield Progress(loss, faces)

    def surface(self, training: bool = False) -> Surface:
        """Return the surface as it is."""
        return self.cubes(self.field, self.deform, self.weights, training)

    def triangles(self) -> Triangles:
        """Return the surface as it is rendered. No gradients."""
        with torch.no_grad():
            surface = self.surface()
            return Triangles.of(surface.vertices, surface.faces)

    # --- resolutions ---

    def _enter(self, stage: int) -> None:
        """Go on at a stage's resolution."""
        cells = max(_LEAST_RESOLUTION, self.config.resolution // STAGES[stage][1])
        box = self.box.finer(cells)
        scale = self.box.cell / box.cell
        moved = self.box.resampled(torch.tanh(self.deform), box) * scale
        self.field = (self.box.resampled(self.field[..., None], box) * scale).squeeze(-1)
        self.deform = torch.atanh(moved.clamp(-0.9, 0.9))
        self.colours = self.colours.resampled(box.finer(min(FINER_COLOURS * cells, max(cells, MOST_COLOURS))))
        self._use(box, stage)

    def _use(self, box: Box, stage: int) -> None:
        """Make the grid, weights of zero and the optimisers."""
        self.box, self.stage = box, stage
        self.cubes = FlexiCubes(box.resolution, box.low.tolist(), box.high.tolist(), device=self.device)
        self.weights = self.cubes.new_parameters()[1].detach()
        self.optimisers = {
            "samples": Adam(
                {"field": self.field.view(-1, 1), "deform": self.deform.view(-1, 3)},
                {
                    "field": Rule(torch.full((1,), 0.03), 0.1, 0.1),
                    "deform": Rule(torch.full((3,), 0.03), 0.1, 0.1),
                },
            ),
            "cells": Adam({"weights": self.weights}, {"weights": Rule(torch.full((21,), 0.03), 0.1, 0.1)}),
            "colours": Adam({"values": self.colours.values}, {"values": Rule(torch.full((3,), 0.03), 0.2, 0.1)}),
        }

    # --- steps ---

    def _take_step(self) -> tuple[float, int]:
        leaves = [self.field, self.deform, self.weights]
        for leaf in leaves:
            leaf.requires_grad_(True)
        surface = self.surface(training=True)
        if len(surface.faces) == 0:
            raise ReconstructionError(
                f"The surface vanished in step {self.step}.",
                "Check that the masks, if any, and the camera poses fit the photos.",
                "no-surface",
            )
        triangles = Triangles.of(surface.vertices, surface.faces)
        chosen = views_of_step(self.step, len(self.photos.levels), self.config)
        targets = [self.photos.levels[i][self.level].to(self.device) for i in chosen]
        background = self.photos.background.to(self.device)
        seen = [visible(triangles, target) for target in targets]
        colours, looked_up, numbers = self.colours.lookup(torch.cat([view.points for view in seen]))
        loss = surface.vertices.new_zeros(())
        for target, view, own in zip(targets, seen, colours.split([len(v.hit) for v in seen]), strict=True):
            loss = loss + (
                view_loss(target, view, own, background)
                + between(SHAPE, self.done) * shape_loss(target, view, self.box.cell)
            ) / len(targets)
        sign = between(SIGN, min(1.0, self.done / 0.25))
        loss = loss + DEVIATION / self.box.cell * surface.deviation + sign * sign_loss(self.field, surface.contour)
        if self.config.smoothness:
            loss = loss + self.config.smoothness * bend(triangles)
        field, deform, weights, values = torch.autograd.grad(loss, [*leaves, looked_up])
        for leaf in leaves:
            leaf.requires_grad_(False)
        rows, cells = surface.contour.samples, surface.contour.rows
        parts = {"field": field.view(-1, 1)[rows], "deform": deform.view(-1, 3)[rows]}
        self.optimisers["samples"].step_rows(parts, rows, self.done)
        self.optimisers["cells"].step_rows({"weights": weights[cells]}, cells, self.done)
        self.optimisers["colours"].step_rows({"values": values}, numbers, self.done)
        return float(loss.detach()), len(surface.faces)

    # --- checkpoints ---

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the fit, for a checkpoint; with :attr:`place` they are all of it.

        Of the weights and of the optimisers' moments only the rows that ever took part.
        """
        found = {"field": self.field, "deform": self.deform, "colours": self.colours.values}
        for name, adam in self.optimisers.items():
            state = adam.state()
            rows = state["age"].nonzero()[:, 0]
            found[f"{name}.rows"] = rows
            found |= {f"{name}.adam.{key}": tensor[rows] for key, tensor in state.items()}
        return {**found, "weights": self.weights[found["cells.rows"]]}

    @property
    def place(self) -> dict[str, int]:
        """Where the fit stands."""
        return {"step": self.step, "stage": self.stage}

    def load_state(self, tensors: dict[str, Tensor], place: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        while self.stage < place["stage"]:
            self._enter(self.stage + 1)
        self.step = place["step"]
        self.field.copy_(tensors["field"])
        self.deform.copy_(tensors["deform"])
        self.weights[tensors["cells.rows"]] = tensors["weights"]
        self.colours.values.copy_(tensors["colours"])
        for name, adam in self.optimisers.items():
            state, rows = adam.state(), tensors[f"{name}.rows"]
            for key, tensor in state.items():
                tensor[rows] = tensors[f"{name}.adam.{key}"]
            adam.load_state(state)


def visible(triangles: Triangles, target: Target) -> Visible:
    """Return what a photo's camera sees of a surface."""
    height, width = target.image.shape[:2]
    return Visible.of(triangles, target.viewmat, target.K, width, height)


def views_of_step(step: int, count: int, config: MeshConfig) -> list[int]:
    """Return which of so many photos a step looks at: each appears once before any appears again."""
    each = config.views_per_step
    chosen = []
    for k in range(step * each, step * each + each):
        epoch, place = divmod(k, count)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        chosen.append(int(torch.randperm(count, generator=generator)[place]))
    return chosen


def view_loss(target: Target, view: Visible, colours: Tensor, background: Tensor) -> Tensor:
    """Return the loss of one photo, given the (P, 3) colours of what it sees."""
    photo = target.image.float() / 255
    # A photo that is not cut out shows what is behind the thing: there nothing is to be compared.
    image, coverage = view.image(colours, photo if target.whole else background)
    assert target.coverage is not None
    difference = (image - photo).abs().mean(dim=2)
    if target.counts is not None:
        difference = difference * target.counts
    return difference.mean() + COVERAGE * (coverage - target.coverage.float() / 255).square().mean()


def shape_loss(target: Target, view: Visible, cell: float) -> Tensor:
    """Return how far the (P) places that a view sees, and their normals, are from a photo's known depth."""
    loss = view.points.new_zeros(())
    if target.depth is None:
        return loss
    known = target.depth.view(-1)[view.hit]
    z = view.points @ target.viewmat[0, 2, :3] + target.viewmat[0, 2, 3]
    there = known.isfinite()
    loss = loss + huber_loss((z / cell)[there], (known / cell)[there], reduction="sum")
    rays = rays_of(target.camera).to(target.depth.device)
    normals = normals_of(rays * target.depth).view(3, -1).T @ target.viewmat[0, :3, :3]
    normals = normals[view.hit]
    there = normals.isfinite().all(dim=1)
    faces = view.rast[..., 3].detach().view(-1)[view.hit][there].long() - 1
    own = face_normals(view.triangles).index_select(0, faces)
    loss = loss + (1 - (own * normals[there]).sum(dim=1)).sum()
    return loss / target.depth.numel()


def between(ends: tuple[float, float], share: float) -> float:
    """Return a value a share of the way from one to another."""
    return ends[0] + (ends[1] - ends[0]) * share


def face_normals(triangles: Triangles) -> Tensor:
    """Return the (F, 3) unit normals of triangles."""
    a, b, c = (triangles.vertices.index_select(0, corner) for corner in triangles.faces.long().unbind(dim=1))
    return normalize(torch.linalg.cross(b - a, c - a), dim=1)


def rendered(triangles: Triangles, colours: Colours, target: Target, background: Tensor) -> Tensor:
    """Return a photo's (H, W, 3) image as a surface with colours in space has it. No gradients."""
    with torch.no_grad():
        view = visible(triangles, target.to(triangles.vertices.device))
        return view.image(colours(view.points), background.to(view.points.device))[0].clamp(0, 1)


def bend(triangles: Triangles) -> Tensor:
    """Return the mean of 1 - n · n' over pairs of neighbouring triangles."""
    normals = face_normals(triangles)
    one, edge = (triangles.neighbors >= 0).nonzero(as_tuple=True)
    other = triangles.neighbors[one, edge].long()
    once = one < other
    return 1 - (normals.index_select(0, one[once]) * normals.index_select(0, other[once])).sum(dim=1).mean()
