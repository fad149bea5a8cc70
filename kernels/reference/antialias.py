"""Antialiasing of silhouettes and intersections in readable torch: what ``kernels.antialias`` computes.

Between the centres of two neighbouring pixels A and B, what is seen changes at most once, at t (0 at A, 1 at B). The
part of pixel A beyond t, or of pixel B up to t, has the other's colour:

    t < ½ :  A ← A + (½ − t)(B − A) ,      t > ½ :  B ← B + (t − ½)(A − B) ,      either way  ∂/∂t = A − B .

Over a row, ∂t is how far an edge moves, so this is the derivative of the area-sampled image. An edge steeper than 45°
is looked for along rows, others along columns, so that each stretch of it counts once. In the homogeneous pixel
coordinates of ``reference/rasterize_mesh.py``, what is seen changes

- at a silhouette edge, an edge of one triangle only, or of two of which one faces the viewer and one does not: the line
  l = a_j × a_k meets the row through p at l·p = 0;
- where two surfaces pass through one another: the row meets zᵀ₁ M₁⁻¹ p = zᵀ₂ M₂⁻¹ p.

To find it, the surface at A is followed towards B from triangle to triangle, b = M⁻¹ p telling where each is left, and
the other way round. If one walk arrives at what the other centre sees, nothing changes. Else a walk that ends at a
silhouette edge in front of the other's surface gives t, and if there is none, the point where both are as deep. What
decides is computed with plain numbers, t with tensors.

Source: Laine et al., "Modular Primitives for High-Performance Differentiable Rendering" (2020), section 3.4, which
looks at the nearer triangle's own edges alone; that intersections have gradients is the idea of Pidhorskyi et al.,
"Rasterized Edge Gradients: Handling Discontinuities Differentiably" (2024).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.antialias import check_antialias
from kernels.mesh_arguments import check_indices
from kernels.reference.rasterize_mesh import edge_functions, pixel_positions

MOST_STEPS = 16


def antialias(color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor) -> Tensor:
    """Antialias; arguments and results are those of ``kernels.antialias.antialias``, any float dtype."""
    positions = check_antialias(color, rast, positions, faces)
    check_indices(faces, positions.shape[1], "positions")
    _, height, width, _ = color.shape
    result = color.clone()
    for image, points in enumerate(positions):
        mesh = _Mesh(points, faces, width, height)
        ids = rast[image, ..., 3].long() - 1
        for below in (0, 1):
            seen, other = ids[: height - below, : width - 1 + below], ids[below:, 1 - below :]
            for y, x in torch.nonzero(seen != other).tolist():
                t = mesh.crossing(int(seen[y, x]), int(other[y, x]), x + 0.5, y + 0.5, below)
                if t is None:
                    continue
                a, b = (image, y, x), (image, y + below, x + 1 - below)
                to = torch.zeros_like(color[..., :1])
                to[a if t < 0.5 else b] = 1
                result = result + to * (t - 0.5) * (color[a] - color[b])
    return result


def neighbors_of(faces: list[list[int]]) -> list[list[int]]:
    """Return the triangle across the edge opposite each vertex, -1 unless the edge has exactly two triangles.

    Triangles with two equal corners are none.
    """
    places = defaultdict(list)
    for t, face in enumerate(faces):
        for i in range(3 if len(set(face)) == 3 else 0):
            places[frozenset((face[i - 2], face[i - 1]))].append((t, i))
    result = [[-1] * 3 for _ in faces]
    for both in places.values():
        if len(both) == 2:
            (t, i), (u, k) = both
            result[t][i], result[u][k] = u, t
    return result


@dataclass
class _Step:
    """A triangle on the way, from t = start to end, at depth q + slope t; qx, qy: the depth's slopes in the image."""

    triangle: int
    start: float
    end: float
    q: float
    slope: float
    qx: float
    qy: float


@dataclass
class _Walk:
    """Where a surface leads: its steps; whether to the goal; the silhouette edge where it ends, and its normal."""

    steps: list[_Step] = field(default_factory=list)
    arrived: bool = False
    edge: tuple[int, int] | None = None
    normal: tuple[float, float] = (0, 0)

    def hidden_by(self, other: _Walk) -> bool:
        """Return whether this walk's end lies behind the surface that the other, from the other side, follows."""
        last = self.steps[-1]
        for step in other.steps:
            if step.start <= 1 - last.end <= step.end:
                return step.q + step.slope * (1 - last.end) < last.q + last.slope * last.end
        return False


class _Mesh:
    def __init__(self, positions: Tensor, faces: Tensor, width: int, height: int) -> None:
        self.points, self.z = pixel_positions(positions, width, height), positions[:, 2]
        self.depths = self.z.tolist()
        self.faces: list[list[int]] = faces.tolist()
        self.neighbors = neighbors_of(self.faces)
        normals, determinants = edge_functions(self.points.detach()[faces.long()])
        self.normals, self.determinants = normals.tolist(), determinants.tolist()

    def crossing(self, a: int, b: int, x: float, y: float, below: int) -> Tensor | None:
        """Return t from pixel centre (x, y), which sees triangle a, to its neighbour, which sees b (-1: nothing)."""
        dx, dy = 1 - below, below
        one = self._walk(a, b, x, y, dx, dy)
        two = self._walk(b, a, x + dx, y + dy, -dx, -dy)
        if one.arrived or two.arrived:
            return None
        ends = [w for w, other in ((one, two), (two, one)) if w.edge is not None and not w.hidden_by(other)]
        if ends:
            # Two of them: a gap between two surfaces; the nearer one's edge counts.
            walk = min(ends, key=lambda w: w.steps[-1].q + w.steps[-1].slope * w.steps[-1].end)
            return self._edge(walk, x, y, below) if _steep(*walk.normal, below) else None
        for s in one.steps:
            for r in two.steps:
                low, high = max(s.start, 1 - r.end), min(s.end, 1 - r.start)
                if low >= high or set(self.faces[s.triangle]) & set(self.faces[r.triangle]):
                    continue
                ahead = [s.q + s.slope * t - (r.q + r.slope * (1 - t)) for t in (low, high)]
                if ahead[0] < 0 <= ahead[1]:
                    steep = _steep(s.qx - r.qx, s.qy - r.qy, below)
                    return self._meeting(s.triangle, r.triangle, x, y, below) if steep else None
        return None

    def _walk(self, start: int, goal: int, x: float, y: float, dx: int, dy: int) -> _Walk:
        walk = _Walk()
        triangle, entered = start, 0.0
        while triangle >= 0 and len(walk.steps) < MOST_STEPS:
            face, determinant = self.faces[triangle], self.determinants[triangle]
            rows = [[e / determinant for e in row] for row in self.normals[triangle]]
            b = [row[0] * x + row[1] * y + row[2] for row in rows]
            slope = [row[0] * dx + row[1] * dy for row in rows]
            z = [self.depths[v] for v in face]
            leave, i = min([(1.0, -1), *((-b[i] / slope[i], i) for i in range(3) if slope[i] < 0)])
            leave = max(leave, entered)
            sums = [sum(z[i] * value[i] for i in range(3)) for value in (b, slope, *zip(*rows, strict=True))]
            walk.steps.append(_Step(triangle, entered, leave, *sums[:4]))
            if i < 0:
                return walk
            edge = (face[i - 2], face[i - 1])
            walk.normal = (rows[i][0], rows[i][1])
            following = self.neighbors[triangle][i]
            if following < 0:
                walk.edge = edge
                return walk
            other = self.faces[following]
            opposite = [k for k in range(3) if other[k] not in edge]
            if not opposite:
                return walk
            # Wound alike, the common edge runs one way in one triangle and the other way in the other.
            alike = determinant * self.determinants[following] * (1 if other[opposite[0] - 1] == edge[0] else -1)
            if alike < 0:
                walk.edge = edge
            if alike <= 0:
                return walk
            walk.arrived = following == goal
            if walk.arrived:
                return walk
            triangle, entered = following, leave
        return walk

    def _edge(self, walk: _Walk, x: float, y: float, below: int) -> Tensor:
        assert walk.edge is not None
        start, end = (self.points[v] for v in walk.edge)
        line = torch.linalg.cross(start, end)
        return _where_zero(line, x, y, below)

    def _meeting(self, one: int, two: int, x: float, y: float, below: int) -> Tensor:
        planes = []
        for face in (self.faces[one], self.faces[two]):
            normals, determinant = edge_functions(self.points[face][None])
            planes.append((self.z[face][:, None] * normals[0]).sum(dim=0) / determinant)
        return _where_zero(planes[0] - planes[1], x, y, below)


def _where_zero(line: Tensor, x: float, y: float, below: int) -> Tensor:
    """Return t where l·p = 0 on the way from (x, y) to the right or down."""
    return -(line[0] * x + line[1] * y + line[2]) / line[below]


def _steep(nx: float, ny: float, below: int) -> bool:
    return (abs(nx) >= abs(ny)) != bool(below)
