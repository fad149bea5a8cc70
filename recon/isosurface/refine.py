"""The finish of a fit to photos: the surface's vertices themselves are moved, its triangles stay as they are.

    x = (I + λL)⁻¹ u,      u follows the gradient of the fit's own loss (fit.py), colours in space go on with it

A grid's cells bound what a field can show; vertices a cell's fraction apart do not know of them. Steps in u move the
surface smoothly and far, where steps in x would only crumple it.

Source: Nicolet et al. 2021, "Large Steps in Inverse Rendering of Geometry" (recon.mesh.large_steps); Munkberg et al.
2022, "Extracting Triangular 3D Models, Materials, and Lighting From Images", whose second pass has a fixed topology,
too.
Everything random is drawn from the seed and the number of the step alone, as in fit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kernels.face_neighbors import face_neighbors
from recon.isosurface.colours import Colours
from recon.isosurface.config import MeshConfig
from recon.isosurface.fit import SHAPE, Progress, bend, shape_loss, view_loss, views_of_step, visible
from recon.isosurface.targets import LEVELS, Photos
from recon.isosurface.view import Triangles
from recon.memory import coarser
from recon.mesh.large_steps import AdamUniform, Smoothed
from recon.mesh.mesh import Mesh
from recon.solve.adam import Adam, Rule

RATE = 0.5
"""Step of u, in edge lengths, at first; a tenth of it in the end."""
STIFFNESS = 4.0
"""λ: softer than the paper's default, as the surface is nearly right already."""


class Refinement:
    """The finish of a fit under way.

    Attributes:
        photos: what is fitted to.
        config: settings.
        step: steps taken.
        colours: in space.
        warn, least_level: as of :class:`recon.isosurface.fit.Fit`.
        device: where it is computed.
    """

    def __init__(self, photos: Photos, mesh: Mesh, colours: Colours, config: MeshConfig) -> None:
        """Begin.

        Args:
            photos: what is fitted to, each with its coverage.
            mesh: watertight, of triangles of about one size.
            colours: in space, updated in place; on the device on which the finish is computed.
            config: settings.
        """
        self.photos, self.colours, self.config, self.step = photos, colours, config, 0
        self.warn: Callable[[str], None] = lambda message: None
        self.least_level = 0
        self.device = colours.values.device
        vertices, self._faces = (torch.from_numpy(a).to(self.device) for a in (mesh.vertices, mesh.faces))
        self._neighbors = face_neighbors(self._faces)
        corners = vertices[self._faces.long()]
        self._length = float((corners - corners.roll(1, dims=1)).norm(dim=2).mean())
        self._smoothed = Smoothed(mesh.faces, len(vertices), STIFFNESS)
        self._u = self._smoothed.parameters(vertices).requires_grad_()
        self._mover = AdamUniform([self._u], RATE * self._length)
        rule = Rule(torch.full((3,), 0.02), 0.1, 0.1)
        self._painter = Adam({"values": colours.values}, {"values": rule})

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.config.finish

    @property
    def done(self) -> float:
        """Share of the finish that is over."""
        return self.step / self.steps

    @property
    def level(self) -> int:
        """Level of the photos: the largest that memory has room for."""
        return self.least_level

    def triangles(self) -> Triangles:
        """Return the surface as it is rendered. No gradients."""
        with torch.no_grad():
            return self._triangles()

    def _triangles(self) -> Triangles:
        return Triangles(self._smoothed.vertices(self._u), self._faces, self._neighbors)

    def run(self) -> Iterator[Progress]:
        """Take steps until all are taken."""
        while self.step < self.steps:
            try:
                loss = self._take_step()
            except torch.OutOfMemoryError as error:
                self.least_level = coarser(self.level, LEVELS, error, self.warn)
                continue
            self.step += 1
            yield Progress(loss, len(self._faces))

    def _take_step(self) -> float:
        triangles = self._triangles()
        chosen = views_of_step(self.step, len(self.photos.levels), self.config)
        targets = [self.photos.levels[i][self.level].to(self.device) for i in chosen]
        background = self.photos.background.to(self.device)
        seen = [visible(triangles, target) for target in targets]
        colours, looked_up, numbers = self.colours.lookup(torch.cat([view.points for view in seen]))
        loss = triangles.vertices.new_zeros(())
        for target, view, own in zip(targets, seen, colours.split([len(v.hit) for v in seen]), strict=True):
            loss = loss + view_loss(target, view, own, background) / len(targets)
            loss = loss + SHAPE[1] * shape_loss(target, view, 2 * self._length) / len(targets)
        if self.config.smoothness:
            loss = loss + self.config.smoothness * bend(triangles)
        self._u.grad, values = torch.autograd.grad(loss, [self._u, looked_up])
        for group in self._mover.param_groups:
            group["lr"] = RATE * self._length * 0.1**self.done
        self._mover.step()
        self._painter.step_rows({"values": values}, numbers, self.done)
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the finish, for a checkpoint; with :attr:`place` they are all of it."""
        state = self._mover.state[self._u]
        moments = {f"mover.{n}": torch.as_tensor(state[n]) for n in ("step", "first", "second") if n in state}
        painter = {f"painter.{n}": t for n, t in self._painter.state().items()}
        return {"u": self._u.detach(), "colours": self.colours.values, **moments, **painter}

    @property
    def place(self) -> dict[str, int]:
        """Where the finish stands."""
        return {"step": self.step}

    def load_state(self, tensors: dict[str, Tensor], place: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self.step = place["step"]
        self._u.data.copy_(tensors["u"])
        self.colours.values.copy_(tensors["colours"])
        moments = {n.removeprefix("mover."): t.clone() for n, t in tensors.items() if n.startswith("mover.")}
        if moments:
            self._mover.state[self._u] = moments | {"step": int(moments["step"])}
        painter = {n.removeprefix("painter."): t for n, t in tensors.items() if n.startswith("painter.")}
        self._painter.load_state(painter)
