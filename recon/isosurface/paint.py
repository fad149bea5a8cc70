"""A texture fitted to photos: what the finished mesh shows is compared with them, and the texels follow.

    loss = mean |render - photo|      over one view a step, the mesh fixed

Each texel ends near the weighted median of what the photos show there, for the very interpolation, antialiasing and
visibility with which it is looked at. Texels that no photo sees keep the colour that they begin with.

Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", §4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.interpolate import interpolate
from kernels.texture import texture as look_up
from recon.isosurface.targets import Photos, Target
from recon.isosurface.view import Triangles, Visible
from recon.mesh.mesh import Mesh
from recon.solve.adam import Adam, Rule


class Textured:
    """A mesh with an atlas as tensors, ready to be rendered.

    Attributes:
        triangles: the mesh.
        texture: (H, W, 3).
    """

    def __init__(self, mesh: Mesh, device: str | torch.device = "cpu") -> None:
        """Take a mesh with ``uvs`` and a texture; with neither, its vertex colours are interpolated."""

        def there(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.triangles = Triangles.of(there(mesh.vertices), there(mesh.faces))
        textured = mesh.uvs is not None and mesh.texture is not None
        self.texture = there(mesh.texture.copy()) if mesh.texture is not None else None
        colours = mesh.colours if mesh.colours is not None else np.full_like(mesh.vertices, 0.5)
        self._attributes = there(mesh.uvs.reshape(-1, 2) if mesh.uvs is not None and textured else colours)
        corners = torch.arange(3 * len(mesh.faces), dtype=torch.int32, device=device).view(-1, 3)
        self._numbers = corners if textured else self.triangles.faces

    def render(self, viewmat: Tensor, K: Tensor, width: int, height: int, behind: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (H, W, 3) image and the (H, W) coverage; arguments as of :class:`Visible`."""
        view = Visible.of(self.triangles, viewmat, K, width, height)
        values, _ = interpolate(self._attributes, view.rast, self._numbers)
        colours = values if self.texture is None else look_up(self.texture[None], values)
        return view.image(colours.view(-1, 3).index_select(0, view.hit), behind)


class Paint:
    """The fit of a texture under way.

    Attributes:
        mesh: textured.
        step: steps taken; ``steps``: of so many.
    """

    def __init__(self, mesh: Mesh, photos: Photos, steps: int, seed: int, device: str | torch.device = "cpu") -> None:
        """Begin with a mesh that has an atlas and a texture."""
        self._mesh, self._photos, self._seed = mesh, photos, seed
        self._model = Textured(mesh, device)
        assert self._model.texture is not None
        self._texture = self._model.texture
        self.step, self.steps = 0, steps
        rows = self._texture.view(-1, 3)
        self._adam = Adam({"texture": rows}, {"texture": Rule(torch.full((3,), 0.02), 0.1, 0.1)})

    @property
    def mesh(self) -> Mesh:
        """See the class."""
        return replace(self._mesh, texture=self._texture.detach().clamp(0, 1).cpu().numpy().copy())

    def run(self) -> Iterator[float]:
        """Take steps until all are taken; yield their losses."""
        while self.step < self.steps:
            epoch, place = divmod(self.step, len(self._photos.levels))
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            chosen = torch.randperm(len(self._photos.levels), generator=generator)[place]
            loss = self._take_step(self._photos.levels[int(chosen)][0])
            self.step += 1
            yield loss

    def _take_step(self, target: Target) -> float:
        target = target.to(self._texture.device)
        photo = target.image.float() / 255
        height, width = photo.shape[:2]
        behind = photo if target.whole else self._photos.background.to(photo.device)
        self._texture.requires_grad_(True)
        image, _ = self._model.render(target.viewmat, target.K, width, height, behind)
        difference = (image - photo).abs().mean(dim=2)
        if target.counts is not None:
            difference = difference * target.counts
        (gradient,) = torch.autograd.grad(difference.mean(), self._texture)
        self._texture.requires_grad_(False)
        gradient = gradient.view(-1, 3)
        rows = (gradient != 0).any(dim=1).nonzero()[:, 0]
        self._adam.step_rows({"texture": gradient[rows]}, rows, self.step / self.steps)
        return float(difference.mean().detach())

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the fit, for a checkpoint; with ``step`` they are all of it."""
        return {"texture": self._texture, **{f"adam.{n}": t for n, t in self._adam.state().items()}}

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from a checkpoint."""
        self.step = step
        self._texture.copy_(tensors["texture"])
        self._adam.load_state({n.removeprefix("adam."): t for n, t in tensors.items() if n.startswith("adam.")})
