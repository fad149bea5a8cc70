"""FlexiCubes fitted to oriented points.

With q_i the place on the surface nearest to point p_i, n_i the point's normal, f_i the normal of the face there, all in
cells, over the field, the grid's deformation and the weights:

    E = mean_i ρ(n_i · (q_i - p_i))               points lie on the surface; ρ is Huber's
      + A mean_i |f_i - n_i|² / 2                 with the points' normals, which makes edges sharp
      + B L_dev                                   even triangles (FlexiCubes' Eq 8)
      + mean over vertices v of c_v |mean of v's neighbours - v|²,     C + D min(1, (noise/cell)²) where points are
                                                                      near, D where there are none

minimised by Adam. The face of q_i and its weights in it are constant between two matchings, and so is the connectivity:
a value that would change its sign is held at zero meanwhile (its gradient is not), and changes it at the next matching.
Distances are measured along the points' normals, so that the surface may slide under the points and its vertices can
gather on edges.

Source: Shen et al. 2023 (FlexiCubes), §4; distances along normals as in Chen & Medioni 1992 (point-to-plane).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import huber_loss

from kernels.nearest import nearest
from recon.errors import ReconstructionError
from recon.isosurface.flexicubes import FlexiCubes, Surface
from recon.isosurface.points_features import onto_features
from recon.isosurface.points_start import Start

NORMALS, DEVIATION, SMOOTH, UNSEEN = 0.3, 0.1, 0.02, 1.0
"""A, B, C, D."""
MATCH_EVERY = 10
"""Steps between two matchings."""
MOST_MATCHED = 50_000
"""Points that are matched at a time; with more, each matching draws others."""
RATES = {"field": 0.04, "deform": 0.04, "weights": 0.04}
"""Learning rates at the start; the field's in cells. They fall to a tenth."""
_HUBER = 0.5  # cells
_NEAR = 2.0  # cells or spacings from a point within which a vertex counts as seen


@dataclass(frozen=True)
class Step:
    """How far a fit is."""

    step: int
    loss: float
    distance: float


@dataclass(frozen=True)
class Matching:
    """What is constant from one matching to the next.

    Attributes:
        chosen: (P,) numbers of the points.
        on: (P,) the faces that they are nearest to, ``weights``: (P, 3) where on them.
        faces: (F, 3) int64 of the surface.
        smooth: (V,) weight of each vertex's roughness.
        inside: (S,) bool, the samples' signs.
    """

    chosen: Tensor
    on: Tensor
    weights: Tensor
    faces: Tensor
    smooth: Tensor
    inside: Tensor


class PointsFit:
    """A fit, step by step.

    Attributes:
        parameters: ``field`` (S,) in cells, ``deform`` (S, 3), ``weights`` (M, 21).
        step: steps done.
    """

    def __init__(
        self,
        start: Start,
        xyz: Tensor,
        normals: Tensor,
        spacing: float,
        noise: float,
        steps: int,
        seed: int,
        check: Callable[[], None],
    ) -> None:
        """Begin.

        Args:
            start: the grid and the field to begin with.
            xyz, normals: (P, 3) float32 points with unit normals, on the device that the grid is on.
            spacing: typical distance between neighbouring points.
            noise: standard deviation of the points as they were measured.
            steps: to take in all.
            seed: of the draws of points.
            check: called before anything that takes a while; may raise.
        """
        self.cubes: FlexiCubes = start.cubes
        self.step = 0
        self._matching: Matching | None = None
        self._cell, self._steps, self._seed, self._check = start.grid.cell, steps, seed, check
        self._xyz, self._normals = xyz, normals
        self._tree = cKDTree(xyz.cpu().numpy())
        self._seen = SMOOTH + UNSEEN * min(1.0, (noise / self._cell) ** 2)
        self._reach = _NEAR * max(self._cell, spacing)
        deform, weights = self.cubes.new_parameters()
        field = (start.field / self._cell).clamp(-3, 3).requires_grad_()
        self.parameters = {"field": field, "deform": deform, "weights": weights}
        groups = [{"params": [p], "lr": RATES[n]} for n, p in self.parameters.items()]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-10, foreach=False, fused=True)

    def run(self) -> Iterator[Step]:
        """Take the remaining steps.

        Raises:
            ReconstructionError: there is no surface any more (code ``"no-surface"``).
        """
        while self.step < self._steps:
            if self._matching is None or self.step % MATCH_EVERY == 0:
                self._matching = self._match()
            matching = self._matching
            rate = 0.1 ** (self.step / self._steps)
            for group, name in zip(self._adam.param_groups, self.parameters, strict=True):
                group["lr"] = RATES[name] * rate
            self._adam.zero_grad(set_to_none=True)
            surface = self._surface(matching.inside)
            gap, normal = self._residuals(surface.vertices, matching)
            loss = (
                huber_loss(gap, torch.zeros_like(gap), delta=_HUBER)
                + NORMALS * normal.mean()
                + DEVIATION * surface.deviation / self._cell
                + self._roughness(surface, matching.smooth)
            )
            loss.backward()
            self._adam.step()
            self.step += 1
            yield Step(self.step, float(loss.detach()), float(gap.detach().abs().mean()) * self._cell)

    def mesh(self) -> tuple[Tensor, Tensor]:
        """Return the surface as it is now, its edges sharp: (V, 3) vertices and (F, 3) int32 faces, on the CPU."""
        with torch.no_grad():
            own = self.parameters
            surface = self.cubes(own["field"], own["deform"], own["weights"])
        vertices, xyz, normals = (t.double().cpu().numpy() for t in (surface.vertices, self._xyz, self._normals))
        faces = surface.faces.cpu()
        moved = onto_features(vertices, faces.numpy(), xyz, normals, self._cell, self._check)
        return torch.from_numpy(moved.astype(np.float32)), faces

    def state(self) -> dict[str, Tensor]:
        """Return everything for a checkpoint but the step."""
        tensors = {name: p.detach() for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            moments = self._adam.state[p]
            tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq", "step") if key in moments}
        if self._matching is not None:
            tensors |= {f"matching.{f.name}": getattr(self._matching, f.name) for f in fields(Matching)}
        return tensors

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from a checkpoint."""
        if step == 0:  # the very beginning: nothing but the parameters, which are as they were made
            return
        self.step = step
        for name, p in self.parameters.items():
            p.data.copy_(tensors[name])
            self._adam.state[p] = {k: tensors[f"{k}.{name}"].clone() for k in ("exp_avg", "exp_avg_sq", "step")}
        self._matching = Matching(**{f.name: tensors[f"matching.{f.name}"] for f in fields(Matching)})

    def _match(self) -> Matching:
        """Draw points and find the places on the surface nearest to them."""
        self._check()
        with torch.no_grad():
            inside = self.cubes.inside(self.parameters["field"])
            surface = self._surface(inside)
        if len(surface.faces) == 0:
            raise ReconstructionError(
                "The surface shrank to nothing while it was fitted.",
                "Give more points, or --resolution for more cells.",
                "no-surface",
            )
        chosen = torch.arange(len(self._xyz))
        if len(chosen) > MOST_MATCHED:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.step)
            chosen = torch.randperm(len(chosen), generator=generator)[:MOST_MATCHED]
        chosen = chosen.to(self._xyz.device)
        _, on, weights = nearest(self._xyz[chosen], surface.vertices, surface.faces)
        own = surface.vertices[: surface.contour.vertex_count].cpu().numpy()
        distance = self._tree.query(own, distance_upper_bound=self._reach)[0]
        smooth = torch.from_numpy(np.where(np.isfinite(distance), self._seen, UNSEEN).astype(np.float32))
        return Matching(chosen, on.long(), weights, surface.faces.long(), smooth.to(chosen.device), inside)

    def _surface(self, inside: Tensor) -> Surface:
        """Return the surface with the signs of the last matching."""
        field = self.parameters["field"]
        least = torch.full_like(field, 1e-3)
        held = torch.where(inside, torch.minimum(field, -least), torch.maximum(field, least))
        field = field + (held - field).detach()
        return self.cubes(field, self.parameters["deform"], self.parameters["weights"], training=True)

    def _residuals(self, vertices: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
        """Return (P,) distances along the points' normals in cells, and how far normals are from theirs."""
        corners = vertices.index_select(0, matching.faces[matching.on].flatten()).view(-1, 3, 3)
        normals = self._normals[matching.chosen]
        places = (corners * matching.weights[..., None]).sum(dim=1)
        gap = ((places - self._xyz[matching.chosen]) * normals).sum(dim=1) / self._cell
        own = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        own = own / own.norm(dim=1, keepdim=True).clamp(min=1e-3 * self._cell**2)
        return gap, 1 - (own * normals).sum(dim=1)

    def _roughness(self, surface: Surface, smooth: Tensor) -> Tensor:
        """Return the mean weighted square of the vertices' distance to the middle of their neighbours, in cells."""
        quads = surface.contour.quads.long()
        own = surface.vertices[: surface.contour.vertex_count]
        corners = own.index_select(0, quads.flatten()).view(-1, 4, 3)
        beside = (corners.roll(1, dims=1) + corners.roll(-1, dims=1)).view(-1, 3)
        total = torch.zeros_like(own).index_add(0, quads.flatten(), beside)
        count = torch.bincount(quads.flatten(), minlength=len(own)).clamp(min=1)
        return (smooth * ((total / (2 * count[:, None]) - own) / self._cell).square().sum(dim=1)).mean()
