"""As rigid as possible: what a deformation does to the neighbourhood of each vertex beyond turning it.

    E(v̂) = Σᵢ 1/|Nᵢ| Σⱼ∈Nᵢ ‖(v̂ᵢ − v̂ⱼ) − Rᵢ (vᵢ − vⱼ)‖²

with Rᵢ the rotation that makes the inner sum least: that nearest to Σⱼ (v̂ᵢ − v̂ⱼ)(vᵢ − vⱼ)ᵀ, by its singular value
decomposition. With these held, E is quadratic in v̂: ½ ∂E/∂v̂ = L v̂ − b(R).

Source: Sorkine & Alexa 2007, "As-Rigid-As-Possible Surface Modeling", §2; uniform weights as in Yao et al. 2025,
"SPARE: Symmetrized Point-to-Plane Distance for Robust Non-Rigid 3D Registration".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recon.deform.rigid import rotations

Vectors = NDArray[np.float64]


class Rigidity:
    """E for one surface at rest.

    Attributes:
        laplacian: (V, V) sparse L.
    """

    def __init__(self, points: Vectors, edges: NDArray[np.int64]) -> None:
        """Take (V, 3) points at rest and their (E, 2) neighbours."""
        count = len(points)
        i, j = np.concatenate([edges, edges[:, ::-1]]).T
        weight = 1 / np.bincount(i, minlength=count)[i]

        def differences(values: Vectors) -> sparse.csr_array:
            """Return the matrix of x → Σⱼ value_ij (xᵢ − xⱼ)."""
            sums = sparse.diags_array(np.bincount(i, values, count))
            return sparse.csr_array(sums - sparse.coo_array((values, (i, j)), shape=(count, count)))

        # An edge counts at both of its ends, with the weight and the rotation of each: b(R) is a transpose.
        self._ends, self._weight, self._at_rest = (i, j), weight, points[i] - points[j]
        self.laplacian = differences(weight + 1 / np.bincount(i, minlength=count)[j])
        self._along = [differences(weight * (points[i] - points[j])[:, k]) for k in range(3)]
        self._back = [sparse.csr_array(matrix.T) for matrix in self._along]

    def rotations(self, moved: Vectors) -> Vectors:
        """Return (V, 3, 3) R of (V, 3) v̂."""
        return rotations(np.stack([matrix @ moved for matrix in self._along], axis=2))

    def load(self, turned: Vectors) -> Vectors:
        """Return (V, 3) b of (V, 3, 3) R."""
        load: Vectors = sum(self._back[k] @ turned[:, :, k] for k in range(3))
        return load

    def energy(self, moved: Vectors, turned: Vectors) -> float:
        """Return E of (V, 3) v̂ and (V, 3, 3) R."""
        i, j = self._ends
        beyond = moved[i] - moved[j] - np.einsum("eij,ej->ei", turned[i], self._at_rest)
        return float(self._weight @ (beyond**2).sum(axis=1))
