"""Non-rigid registration: deforms one surface, as rigidly as possible everywhere, until it lies on another.

    minimise over v̂   Σ α [(n̂ + n)ᵀ(v̂ − u)]²  +  w ν² Σᵢ 1/|Nᵢ| Σⱼ ‖(v̂ᵢ − v̂ⱼ) − Rᵢ(vᵢ − vⱼ)‖²

by majorisation and minimisation: with the pairs (v̂, u), their weights α and normals n̂ = R n (:mod:`recon.deform.pairs`)
and the local rotations R (:mod:`recon.deform.rigidity`) held at what they are, the sum is quadratic in v̂; its minimum
gives the next ones. After a rigid alignment (:mod:`recon.deform.rigid`) first v̂ = B X, the few motions of a graph
(:mod:`recon.deform.graph`), then every vertex by itself, v̂ = X, and then, if asked, its metric kept
(:mod:`recon.deform.isometric`), which does not slide to where borders meet by itself:

    (w ν² BᵀL B + s DᵀD + ε + Bᵀ H B) X = w ν² Bᵀb(R) + ε X₀ + Bᵀg

is solved by conjugate gradients from where X is, preconditioned by a factorisation of the same matrix with each block
of H replaced by a third of its trace: then the three coordinates part, and one small factorisation serves all. D is how
differently neighbouring nodes move common vertices; ε keeps what nothing else holds where it is.

ν, the distance at which a pair loses its say, begins at the one that nine in ten source vertices are within of the
target, so that limbs that lie beside theirs are drawn there, and shrinks by DECAY to the mean edge length. It is how
far off a pair may be, the unit in which its distance counts: hence ν², by which a limb keeps its shape while pairs say
only about where it is, and does not roll. Parts of the source without a target near have no say then and follow their
neighbours: surfaces may overlap in part.

It begins from where the source lies and from the rigid alignments that are about as good as the best, and goes on with
what deforms the source least and leaves least apart. Where that leaves two that are whole APART, it is begun again from
where all of the source is drawn to all of the target, as it was aligned and as it lies, and the best end is taken.

Lengths are in diagonals of the source's bounding box.

Source: Yao et al. 2025, "SPARE: Symmetrized Point-to-Plane Distance for Robust Non-Rigid 3D Registration" (TPAMI), §3
and §4; what differs is said above and in :mod:`recon.deform.pairs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from recon.capture.capture import Points
from recon.deform.graph import DeformationGraph
from recon.deform.isometric import Isometric
from recon.deform.pairs import Pairs, Quadric, nearest, paired
from recon.deform.rigid import Rigid, align, kabsch
from recon.deform.rigidity import Rigidity
from recon.deform.shape import RULE
from recon.deform.surface import Indices, Surface, Vectors, surface_of
from recon.deform.varifold import transport
from recon.errors import InputError
from recon.mesh.mesh import Mesh
from recon.solve.lm import LM
from recon.solve.pcg import pcg

RADIUS = 10.0
"""Distance of the graph's nodes in mean edge lengths."""
STIFFNESS = 10.0
"""w ν² at the stage's least ν, in units of a pair."""
SMOOTHNESS = 0.01
"""s in units of a pair for each of the vertices that a node stands for."""
LANDMARK = 1000.0
"""Weight of a landmark, in units of a pair."""
ITERATIONS = 30
"""At most, of each stage."""
START = 0.9
"""Share of the source's vertices that are within the first ν of the target."""
DECAY = 0.85
LAST_NU = 2.0, 1.0
"""The least ν of each stage, in mean edge lengths."""
STILL = 0.01
"""Root mean square of a stage's last step, in mean edge lengths."""
TRIAL, FAR = 12, 10.0
"""Iterations of the graph by which rigid alignments are compared, and the distance that counts at most, in mean edge
lengths."""
APART, DRAWN = 1.0, 25
"""What deforms and is apart, in squared edge lengths for a vertex, above which it is tried again from where transport
(:mod:`recon.deform.varifold`) draws the source; and the iterations of that."""
WHOLE = 0.01
"""Share of vertices on borders below which a surface counts as whole."""
SIZES = 3.0
"""Sizes of source and target that differ by more are warned of."""
_STAYS = Rigid(np.eye(3), np.zeros(3), np.nan)
_HOLD = 1e-6
_SOLVED, _PRODUCTS = 0.1, 60  # of each linear system: the next one starts there


@dataclass(frozen=True)
class Registration:
    """Where a source lies on a target.

    Attributes:
        vertices: (V, 3) float64, the source's vertices or points moved onto the target, in the input's units.
        nearest: (V,) the target vertex or point that each has been paired with.
        weight: (V,) how much of a match that is, 0 to 1; 0 where the target has nothing that fits.
        rigid: the motion that was found first, in the input's units.
        iterations: of the graph, and by the vertex.
    """

    vertices: Vectors
    nearest: Indices
    weight: NDArray[np.float64]
    rigid: Rigid
    iterations: tuple[int, int]


def register(
    source: Mesh | Points,
    target: Mesh | Points,
    *,
    landmarks: NDArray[np.integer] | None = None,
    rigid: bool = True,
    start: Vectors | None = None,
    isometric: bool = False,
    warn: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> Registration:
    """Return the source deformed onto the target.

    Args:
        source, target: meshes or clouds, in the same units. A cloud without normals has them estimated.
        landmarks: (L, 2) pairs of a source and a target vertex that belong together.
        rigid: whether the source may lie anywhere; if not it is deformed from where it is.
        start: (V, 3) what the source was deformed to before, such as onto the scan an instant earlier: it goes on from
            there, whatever ``rigid`` says. Its shape at rest stays its own, so that errors do not add up over scans.
        isometric: whether the source, a mesh, keeps its metric, as what bends and hardly stretches does, instead of
            being as rigid as possible (:mod:`recon.deform.isometric`).
        warn: told, before anything is fitted, where the surfaces seem to be in other units.
        progress: told often how many iterations are done, of how many at most, which are more once it is begun again;
            what it raises ends the registration.

    Raises:
        InputError: a surface that cannot be registered (codes ``"bad-mesh"``, ``"bad-cloud"``), or landmarks of another
            shape or that name no vertex (code ``"bad-landmarks"``).
    """
    shapes = surface_of(source, "source"), surface_of(target, "target")
    pairs = _checked(landmarks, shapes)
    ratio = shapes[1].diagonal / shapes[0].diagonal
    if not 1 / SIZES <= ratio <= SIZES:
        warn(
            f"The target is {ratio:.3g} times as large as the source: are both in the same units? "
            "Scale one to the other."
        )
    scale, shift = 1 / shapes[0].diagonal, shapes[0].points.mean(axis=0)
    ours, theirs = (surface.moved(scale, shift) for surface in shapes)
    kept = None
    if isometric:
        faces = shapes[0].of_input[source.faces] if isinstance(source, Mesh) else np.empty((0, 3), np.int64)
        kept = Isometric(ours.points, faces, ours.spacing)
    motions = [_STAYS]
    if rigid and start is None:
        motions = _motions(ours, theirs, pairs, partial(progress, 0, 2 * ITERATIONS))
    begun = None if start is None else scale * (start[_first(shapes[0])] - shift)
    tried = [_Fit(ours, theirs, motion, begun, pairs, progress) for motion in motions]
    if len(tried) > 1:
        for candidate in tried:
            candidate.coarse(TRIAL)
    fit = min(tried, key=_Fit.cost)
    iterations = fit.finish(kept)
    both = all(surface.border.mean() < WHOLE for surface in shapes)
    if start is None and len(pairs) == 0 and both and fit.cost() > APART:
        motions = [fit.motion, *([] if fit.motion is _STAYS else [_STAYS])]
        for number, motion in enumerate(motions, start=1):
            other = _Fit(ours, theirs, motion, None, pairs, partial(_again, progress, number, len(motions)))
            other.draw()
            again = other.finish(kept)
            if other.cost() < fit.cost():
                fit, iterations = other, again
    motion = fit.motion
    found = fit.pairs()
    whole = motion.translation / scale + shift - motion.rotation @ shift
    return Registration(
        vertices=(fit.moved / scale + shift)[ours.of_input],
        nearest=_first(shapes[1])[found.nearest][ours.of_input],
        weight=found.weight[ours.of_input],
        rigid=Rigid(motion.rotation, whole, motion.distance / scale),
        iterations=iterations,
    )


def _again(progress: Callable[[int, int], None], number: int, count: int, done: int, most: int) -> None:
    """Tell the progress of a registration that is begun again for the ``number``th time of ``count``."""
    progress(number * most + done, (count + 1) * most)


class _Fit:
    """A deformation on its way.

    Attributes:
        motion: the rigid alignment it started from.
        edge: mean edge length.
        moved: (V, 3) v̂.
    """

    def __init__(
        self,
        source: Surface,
        target: Surface,
        motion: Rigid,
        start: Vectors | None,
        landmarks: Indices,
        progress: Callable[[int, int], None],
    ) -> None:
        self._source, self._target, self._landmarks, self._progress = source, target, landmarks, progress
        self.motion, self.edge, rest = motion, source.spacing, motion.apply(source.points)
        self._coarsest = max(source.spacing, target.spacing)
        self._rigidity = Rigidity(rest, source.edges)
        self.moved, self._turned = rest, np.broadcast_to(np.eye(3), (len(rest), 3, 3))
        if start is not None:
            self.moved, self._turned = start, self._rigidity.rotations(start)
        self._nu = self._first_nu()
        self._slices: np.random.Generator | None = None
        self._graph = DeformationGraph.on(self.moved, source.edges, RADIUS * self.edge)
        self._X, self._done = self._graph.rest, 0

    def _first_nu(self) -> float:
        distance = nearest(self._target.points, self.moved)[0]
        return max(float(np.quantile(distance, START)), LAST_NU[0] * self.edge)

    def cost(self) -> float:
        """Return what deforms and what is apart, both ways and at most FAR, in squared edge lengths for a vertex.

        Edges are those of the coarser surface, whose points are as far apart; deforming is ARAP's, in an isometry too.
        """
        far = FAR * self._coarsest
        there, here = nearest(self._target.points, self.moved)[0], nearest(self.moved, self._target.points)[0]
        apart = sum(float((np.minimum(distance, far) ** 2).mean()) for distance in (there, here))
        deformed = STIFFNESS * self._rigidity.energy(self.moved, self._turned) / len(self.moved)
        return (apart + deformed) / self._coarsest**2

    def finish(self, kept: Isometric | None) -> tuple[int, int]:
        """Deform to the end, at last with the metric kept if it is to be; return the iterations."""
        stages = self.coarse(ITERATIONS), self.fine()
        return stages if kept is None else (stages[0], stages[1] + self.bent(kept))

    def draw(self) -> None:
        """Deform by the graph to where transport draws the whole surface, and start anew from there."""
        self._slices = np.random.default_rng(0)
        self.coarse(DRAWN)
        self._slices = None
        self._done, self._nu = 0, self._first_nu()

    def coarse(self, iterations: int) -> int:
        """Deform by the graph, up to so many iterations in all; return how many these have been."""
        differences = self._graph.differences()
        share = len(self.moved) / len(self._graph.nodes)
        held = SMOOTHNESS * share * (differences.T @ differences)
        self._X, done = self._stage(self._graph.basis, held, self._X, 0, iterations - self._done)
        self._done += done
        return self._done

    def fine(self) -> int:
        """Deform by the vertex; return the iterations."""
        count = len(self.moved)
        none = sparse.csr_array((count, count))
        return self._stage(sparse.eye_array(count).tocsr(), none, self.moved, 1, ITERATIONS)[1]

    def bent(self, kept: Isometric) -> int:
        """Deform by the vertex with the metric kept; return the iterations."""
        lm = LM(RULE)
        return self._iterate(lambda data: kept.step(self.moved, data, lm), 1, ITERATIONS)

    def pairs(self) -> Pairs:
        """Return the pairs as they are now."""
        turned = self._turned @ self.motion.rotation
        return paired(self._source, self._target, self.moved, turned, self._nu, self._landmarks, LANDMARK)

    def _quadric(self) -> Quadric:
        """Return what is asked of the vertices now."""
        if self._slices is None:
            return self.pairs()
        return transport(self._source, self._target, self.moved, self._turned @ self.motion.rotation, self._slices)

    def _stage(
        self, basis: sparse.csr_array, held: sparse.csr_array, X: Vectors, number: int, most: int
    ) -> tuple[Vectors, int]:
        """Deform by (n, 3) X of (V, n) ``basis``, with (n, n) ``held`` besides; return X and the iterations."""
        back = sparse.csr_array(basis.T)
        bend, still = back @ self._rigidity.laplacian @ basis, held + _HOLD * sparse.eye_array(basis.shape[1])
        last = LAST_NU[number] * self.edge

        def step(data: Quadric) -> Vectors:
            nonlocal X
            stiffness = STIFFNESS * (self._nu / last) ** 2
            load = back @ (stiffness * self._rigidity.load(self._turned) + data.g) + _HOLD * X
            X = _solved(sparse.csr_array(stiffness * bend + still), basis, back, data.H, load, X)
            moved: Vectors = basis @ X
            return moved

        done = self._iterate(step, number, most)
        return X, done

    def _iterate(self, step: Callable[[Quadric], Vectors], number: int, most: int) -> int:
        """Move to where ``step`` takes the pairs' quadrics, until nothing moves; return how often."""
        before_it, done, last = ITERATIONS if number else self._done, 0, LAST_NU[number] * self.edge
        while done < most:
            self._progress(before_it + done if self._slices is None else 0, 2 * ITERATIONS)  # drawing does not count
            done += 1
            before, self.moved = self.moved, step(self._quadric())
            self._turned = self._rigidity.rotations(self.moved)
            moved = float(np.sqrt(((self.moved - before) ** 2).sum(axis=1).mean()))
            if self._nu <= last and 0 < moved < STILL * self.edge:  # 0: a step that LM did not take
                break
            self._nu = max(DECAY * self._nu, last)
        return done


def _solved(
    regular: sparse.csr_array, basis: sparse.csr_array, back: sparse.csr_array, H: Vectors, load: Vectors, X: Vectors
) -> Vectors:
    """Return (n, 3) X of (regular + Bᵀ H B) X = load, nearly, from an X."""
    third = np.trace(H, axis1=1, axis2=2) / 3
    near = sparse.csc_array(regular + back @ sparse.diags_array(third) @ basis)
    options = {"SymmetricMode": True, "DiagPivotThresh": 0.0}
    solve = splu(near, permc_spec="MMD_AT_PLUS_A", options=options).solve

    def product(p: Vectors) -> Vectors:
        result: Vectors = regular @ p + back @ np.einsum("vij,vj->vi", H, basis @ p)
        return result

    def flat(apply: Callable[[Vectors], Vectors]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: torch.from_numpy(apply(x.numpy().reshape(-1, 3)).ravel())

    residual = torch.from_numpy((load - product(X)).ravel())
    found = pcg(flat(product), residual, flat(solve), iterations=_PRODUCTS, tolerance=_SOLVED)
    return X + found.x.numpy().reshape(-1, 3)


def _motions(source: Surface, target: Surface, landmarks: Indices, check: Callable[[], None]) -> list[Rigid]:
    """Return rigid alignments to try, none among them: that of the landmarks alone where they settle it."""
    ours, theirs = source.points[landmarks[:, 0]], target.points[landmarks[:, 1]]
    if len(landmarks) < 3 or np.linalg.svd(ours - ours.mean(axis=0))[1][1] < 0.01:
        return [*align(source, target, check), _STAYS]
    rotation, translation = kabsch(ours, theirs)
    apart = ours @ rotation.T + translation - theirs
    return [Rigid(rotation, translation, float(np.sqrt((apart**2).sum(axis=1).mean())))]


def _first(surface: Surface) -> Indices:
    """Return (V,) the input's first number of each point."""
    return np.unique(surface.of_input, return_index=True)[1]


def _checked(landmarks: NDArray[np.integer] | None, shapes: tuple[Surface, Surface]) -> Indices:
    """Return (L, 2) landmarks as numbers of distinct points."""
    if landmarks is None:
        return np.empty((0, 2), np.int64)
    pairs = np.asarray(landmarks)
    hint = "Give pairs of a source and a target vertex, counted from 0."
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise InputError(f"The landmarks are {pairs.dtype} {pairs.shape}, not integers (L, 2).", hint, "bad-landmarks")
    counts = [len(surface.of_input) for surface in shapes]
    if (pairs < 0).any() or (pairs >= counts).any():
        raise InputError(
            f"A landmark names a vertex beyond the {counts[0]} of the source or the {counts[1]} of the target.",
            hint,
            "bad-landmarks",
        )
    return np.stack([surface.of_input[column] for surface, column in zip(shapes, pairs.T, strict=True)], axis=1)
