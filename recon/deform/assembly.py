"""Sparse normal equations of a mesh's energies: small dense blocks of neighbouring vertices, summed where they meet.

An energy is a sum over elements (a face, a hinge, a track) of squares of residuals that hang on a few vertices each.
Its Gauss–Newton matrix is a sum of blocks Jᵀ W J of 3k × 3k for elements of k vertices, whose places never change, so
they are found once. In the order of Cuthill and McKee a surface's matrix is a narrow band, so the damped system is
factorised outright (LAPACK's banded Cholesky, several times as fast here as SuperLU): conjugate gradients
preconditioned by it are done after a product or two, where bending, ten thousand times as stiff in some directions as
in others, would hold them up for thousands.

Source of the order: Cuthill & McKee 1969, "Reducing the bandwidth of sparse symmetric matrices".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.sparse import csc_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor


@dataclass(frozen=True)
class Term:
    """Residuals of E elements and what they do to the energy, at one state.

    Attributes:
        gradient: (E, 3k) Jᵀ W r of each element by its vertices' coordinates.
        blocks: (E, 3k, 3k) Jᵀ W J.
    """

    gradient: Tensor
    blocks: Tensor


class Pattern:
    """Where the blocks of elements lie in the sparse matrix.

    Args:
        vertices: V.
        elements: for each kind of term, (E, k) int64 vertex numbers of its elements.
    """

    def __init__(self, vertices: int, elements: Sequence[NDArray[np.int64]]) -> None:
        self.size = 3 * vertices
        self._unknowns = [(3 * e[:, :, None] + np.arange(3)).reshape(len(e), -1) for e in elements]
        rows, columns = [np.arange(self.size)], [np.arange(self.size)]  # the diagonal is always there
        for unknowns in self._unknowns:
            shape = (*unknowns.shape, unknowns.shape[1])
            rows.append(np.broadcast_to(unknowns[:, :, None], shape).ravel())
            columns.append(np.broadcast_to(unknowns[:, None, :], shape).ravel())
        keys = np.concatenate(columns) * self.size + np.concatenate(rows)
        places, inverse = np.unique(keys, return_inverse=True)
        row, column = places % self.size, places // self.size
        self._entry, self._diagonal = inverse[self.size :], inverse[: self.size]
        self._row = row.astype(np.int32)
        self._start = np.searchsorted(column, np.arange(self.size + 1)).astype(np.int32)
        order = reverse_cuthill_mckee(csc_matrix((np.ones(len(row)), self._row, self._start)), symmetric_mode=True)
        self.rank = np.argsort(order)
        """(n,) where each unknown stands in the band."""
        below, along = self.rank[row] - self.rank[column], self.rank[column]
        self.lower = below >= 0
        self.band = below[self.lower], along[self.lower]
        """Where the entries of the ``lower`` triangle lie in LAPACK's storage of the band."""

    def assemble(self, terms: Sequence[Term]) -> Equations:
        """Return the sum of terms, one for each kind of element that the pattern was made with."""
        values = np.concatenate([term.blocks.numpy().ravel() for term in terms])
        data = np.bincount(self._entry, values, minlength=len(self._row))
        gradient = np.zeros(self.size)
        for unknowns, term in zip(self._unknowns, terms, strict=True):
            gradient += np.bincount(unknowns.ravel(), term.gradient.numpy().ravel(), minlength=self.size)
        matrix = csc_matrix((data, self._row, self._start), shape=(self.size, self.size))
        return Equations(self, matrix, torch.from_numpy(gradient), torch.from_numpy(data[self._diagonal]))


class Equations:
    """Jᵀ W J and Jᵀ W r: a :class:`recon.solve.lm.Linearisation`.

    Attributes:
        gradient: (n,) float64.
        diagonal: (n,).
    """

    def __init__(self, pattern: Pattern, matrix: csc_matrix, gradient: Tensor, diagonal: Tensor) -> None:
        self.gradient = gradient
        self.diagonal = diagonal.clamp(min=1e-9 * float(diagonal.max()))
        self._pattern, self._matrix = pattern, matrix
        self._factor: tuple[float, NDArray[np.float64]] | None = None

    def product(self, p: Tensor) -> Tensor:
        """Return Jᵀ W J p."""
        return torch.from_numpy(self._matrix @ p.numpy())

    def precondition(self, r: Tensor, damping: float) -> Tensor:
        """Return the solution of the damped system."""
        rank = self._pattern.rank
        if self._factor is None or self._factor[0] != damping:
            below, along = self._pattern.band
            band = np.zeros((int(below.max()) + 1, len(rank)))
            band[below, along] = self._matrix.data[self._pattern.lower]
            band[0, rank] += damping * self.diagonal.numpy()
            self._factor = damping, cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
        ordered = np.empty(len(rank))
        ordered[rank] = r.numpy()
        return torch.from_numpy(cho_solve_banded((self._factor[1], True), ordered, check_finite=False)[rank])
