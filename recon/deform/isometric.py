"""Laying a surface onto another with its metric kept: the last stage of registering what bends and hardly stretches.

    E(v̂) = 1/V Σ α [(n̂ + n)ᵀ(v̂ − u)]² / 4η²  +  Σ_f a_f |S_f|² / ε²  +  β Σ_e bend_e²

with the pairs of :mod:`recon.deform.pairs` in units of η, a tenth of the mean edge, and the strain and bending of
:mod:`recon.deform.shape`. For pairs held at what they are it is minimised by Levenberg–Marquardt
(:mod:`recon.solve.lm`), a step before they are found again.

Source: as-isometric-as-possible registration as in Huang et al. 2008, "Non-rigid registration under isometric
deformations", §3, with the strain of Barbany, Colomé & Torras 2024 (:mod:`recon.deform.membrane`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.deform.assembly import Equations, Pattern, Term
from recon.deform.bending import Bending
from recon.deform.membrane import Membrane
from recon.deform.pairs import Quadric
from recon.deform.shape import kept_energy, kept_terms
from recon.deform.surface import Indices, Vectors
from recon.deform.track_fit import BENDING
from recon.errors import InputError
from recon.solve.lm import LM

NOISE = 0.1
"""η in mean edge lengths."""
FLATTEST = 1e-7
"""Twice the area of a face that has none, in squares of its longest edge."""
MOST = 20_000
"""Vertices above which the banded factorisation takes too much time and memory."""


@dataclass(frozen=True)
class _Held:
    """E with the pairs held at what they are: a :class:`recon.solve.lm.Problem` of (V, 3) float64 vertices."""

    pattern: Pattern
    membrane: Membrane
    bending: Bending
    data: Quadric
    scale: float

    def cost(self, state: Tensor) -> float:
        """Return E / 2."""
        H, g = torch.from_numpy(self.data.H), torch.from_numpy(self.data.g)
        pulled = torch.einsum("vi,vij,vj->", state, H, state) - 2 * (g * state).sum() + self.data.rest
        return 0.5 * float(self.scale * pulled + kept_energy(self.membrane, self.bending, BENDING, state))

    def linearise(self, state: Tensor) -> Equations:
        """Return Gauss–Newton's equations."""
        H, g = self.scale * torch.from_numpy(self.data.H), self.scale * torch.from_numpy(self.data.g)
        pull = Term((H @ state[:, :, None])[:, :, 0] - g, H)
        return self.pattern.assemble([pull, *kept_terms(self.membrane, self.bending, BENDING, state)])

    def moved(self, state: Tensor, step: Tensor) -> Tensor:
        """Return other vertices."""
        return state + step.view_as(state)


class Isometric:
    """A surface at rest whose metric is to be kept.

    Args:
        rest: (V, 3).
        faces: (F, 3) of them; those without an area do not count.
        edge: mean edge length.

    Raises:
        InputError: more than :data:`MOST` vertices, or no face (code ``"bad-mesh"``).
    """

    def __init__(self, rest: Vectors, faces: Indices, edge: float) -> None:
        a, b, c = rest[faces.T]
        longest = np.max([((q - p) ** 2).sum(axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
        faces = faces[np.linalg.norm(np.cross(b - a, c - a), axis=1) > FLATTEST * longest]
        if len(rest) > MOST or len(faces) == 0:
            what = f"has {len(rest):,} vertices, of at most {MOST:,}" if len(faces) else "is no mesh"
            raise InputError(
                f"The source {what}: its metric cannot be kept.",
                "Give a simplified mesh: recon export scan.ply --to small.ply --faces 30000. Or leave --isometric out.",
                "bad-mesh",
            )
        places, triangles = torch.from_numpy(rest), torch.from_numpy(faces)
        self._membrane, self._bending = Membrane(places, triangles), Bending(places, triangles)
        elements = [np.arange(len(rest))[:, None], faces, self._bending.hinges.numpy()]
        self._pattern = Pattern(len(rest), elements)
        self._scale = 1 / (len(rest) * 4 * (NOISE * edge) ** 2)

    def step(self, moved: Vectors, data: Quadric, lm: LM) -> Vectors:
        """Return (V, 3) v̂ after a step of ``lm`` from (V, 3) ``moved``, the same where it takes none."""
        held = _Held(self._pattern, self._membrane, self._bending, data, self._scale)
        found: Vectors = lm.step(held, torch.from_numpy(moved))[0].numpy()
        return found
