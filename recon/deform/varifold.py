"""Drawing a surface to another one as a whole, with no pairs of nearest points: sliced transport of their varifolds.

An oriented varifold is a surface as a measure of places and normals: masses a (shares of the area) at points (v, λ n)
of R⁶; where normals have no sign, λ is 0. In one direction θ = (θ₁, θ₂) of R⁶ the least costly way to turn one measure
into the other takes what lies at each share of the mass to what lies there, t(θ); over random directions

    Σ_θ Σ_i a_i (θ₁ᵀ v̂_i + λ θ₂ᵀ n̂_i − t_i(θ))²

is, with the n̂ and the order in each direction held at what they are, quadratic in v̂. Where nearest points draw two
limbs to the same one, this draws a share of the mass to each; but all of one surface to all of the other, so that
it is a start, for surfaces that are both whole.

Sources: Charon & Trouvé 2013, "The varifold representation of nonoriented shapes for diffeomorphic registration";
Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures", §3, for the slices;
"Diffeomorphic mesh deformation via efficient optimal transport for cortical surface reconstruction" (arXiv 2305.17555)
for the two together.
"""

from __future__ import annotations

import numpy as np

from recon.deform.pairs import Quadric
from recon.deform.surface import Surface, Vectors

NORMALS = 0.1
"""λ, in diagonals of the source."""
SLICES = 64
WEIGHT = 20.0
"""Of all directions together, in units of a pair of :mod:`recon.deform.pairs`."""


def transport(source: Surface, target: Surface, moved: Vectors, turned: Vectors, rng: np.random.Generator) -> Quadric:
    """Return the quadric that draws the source at (V, 3) v̂ to the target, by random directions.

    Args:
        source, target: of about unit size.
        moved: v̂.
        turned: (V, 3, 3) rotations of the source's normals to n̂.
        rng: of the directions.
    """
    near = NORMALS if source.oriented and target.oriented else 0.0
    along = np.einsum("vij,vj->vi", turned, source.normals) * near
    theta = rng.normal(size=(SLICES, 6))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    ours = np.concatenate([moved, along], axis=1) @ theta.T
    theirs = np.concatenate([target.points, near * target.normals], axis=1) @ theta.T
    goal = np.empty_like(ours)
    for k in range(SLICES):
        i, j = ours[:, k].argsort(), theirs[:, k].argsort()
        goal[i, k] = np.interp(_shares(source.masses[i]), _shares(target.masses[j]), theirs[j, k])
    goal -= along @ theta[:, 3:].T
    weight = WEIGHT / SLICES * len(moved) * source.masses
    places = theta[:, :3]
    return Quadric(
        H=weight[:, None, None] * (places.T @ places),
        g=weight[:, None] * (goal @ places),
        rest=float(weight @ (goal**2).sum(axis=1)),
    )


def _shares(masses: Vectors) -> Vectors:
    """Return the share of the mass that lies before the middle of each."""
    shares: Vectors = masses.cumsum() - masses / 2
    return shares
