"""``egregium::nearest`` on a GPU: a hierarchy of boxes over the triangles in the order of a Morton curve.

The triangles are sorted along the curve and every ``LEAF`` of them are a leaf of a complete binary tree: node i has the
children 2 i and 2 i + 1, and so needs no pointers. A lane a point goes to the nearer child first and leaves out every
box that is farther than the best triangle yet. In place of a stack it keeps a bit for each level: whether the other
child there is still to be seen. Points are sorted along the same curve, so that neighbours go the same way.

Sources: Lauterbach et al. 2009, "Fast BVH Construction on GPUs" (the order); Áfra and Szirmay-Kalos 2014, "Stackless
Multi-BVH Traversal for CPU, MIC and GPU Ray Tracing" (the bits).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LEAF = 4
"""Triangles of a leaf."""
BLOCK = 32
"""Points of a program, which is one warp: as in any of them lanes wait for the slowest."""


def nearest(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared distances, the faces and the weights."""
    corners = vertices[faces.long()]
    low, high = corners.amin(1), corners.amax(1)
    least, size = low.amin(0), (high.amax(0) - low.amin(0)).amax()
    order = _along_curve((low + high) / 2, least, size)
    leaves = triton.next_power_of_2(triton.cdiv(len(faces), LEAF))
    boxes = _boxes(low[order], high[order], leaves)
    squared, weights = points.new_empty(len(points)), points.new_empty(len(points), 3)
    face = faces.new_empty(len(points))
    _forward[(max(1, triton.cdiv(len(points), BLOCK)),)](
        points.contiguous(),
        _along_curve(points, least, size),
        corners[order],
        boxes,
        order,
        len(points),
        len(faces),
        leaves,
        squared,
        face,
        weights,
        LEAF=LEAF,
        POINTS=BLOCK,
        num_warps=1,
    )
    return squared, face, weights


def _along_curve(points: Tensor, least: Tensor, size: Tensor) -> Tensor:
    """Return the order of points along a Morton curve through 2²⁰ cells a side."""
    cells = ((points - least) / size * 2**20).nan_to_num(0).clamp(0, 2**20 - 1).long()
    for shift, kept in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        cells = (cells | cells << shift) & kept  # spread: each bit at three times its place
    return (cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2).argsort()


def _boxes(low: Tensor, high: Tensor, leaves: int) -> Tensor:
    """Return the least coordinates and the negated greatest of each node, (2 leaves, 6); ∞ if it is empty."""
    ends = torch.cat([low, -high], dim=1)
    ends = torch.nn.functional.pad(ends, (0, 0, 0, leaves * LEAF - len(ends)), value=torch.inf)
    levels = [ends.view(leaves, LEAF, 6).amin(1)]
    while len(levels[-1]) > 1:
        levels.append(levels[-1].view(-1, 2, 6).amin(1))
    return torch.cat([levels[-1], *levels[::-1]])  # the root is node 1


@triton.jit
def _to_box(boxes, node, there, x, y, z):
    """Return the squared distance to a node's box."""
    box = boxes + 6 * node.to(tl.int64)
    dx = tl.maximum(tl.load(box, mask=there, other=0.0) - x, tl.load(box + 3, mask=there, other=0.0) + x)
    dy = tl.maximum(tl.load(box + 1, mask=there, other=0.0) - y, tl.load(box + 4, mask=there, other=0.0) + y)
    dz = tl.maximum(tl.load(box + 2, mask=there, other=0.0) - z, tl.load(box + 5, mask=there, other=0.0) + z)
    dx, dy, dz = tl.maximum(dx, 0.0), tl.maximum(dy, 0.0), tl.maximum(dz, 0.0)
    return dx * dx + dy * dy + dz * dz


@triton.jit
def _back(node, waiting, there):
    """Go up to the first level where the other child waits, and to it; to 0 if none does."""
    lowest = tl.where(waiting > 0, waiting & -waiting, 1)
    next_node = tl.where(waiting > 0, (node // lowest) ^ 1, 0)
    next_waiting = tl.where(waiting > 0, (waiting // lowest) ^ 1, 0)
    return tl.where(there, next_node, node), tl.where(there, next_waiting, waiting)


@triton.jit
def _to_edge(ax, ay, az, bx, by, bz):
    """Return the squared distance from 0 to an edge, and how far along the edge its closest point is."""
    ex, ey, ez = bx - ax, by - ay, bz - az
    length2 = ex * ex + ey * ey + ez * ez
    t = -(ax * ex + ay * ey + az * ez) / tl.where(length2 > 0, length2, 1.0)
    t = tl.minimum(tl.maximum(t, 0.0), 1.0)
    cx, cy, cz = ax + t * ex, ay + t * ey, az + t * ez
    return cx * cx + cy * cy + cz * cz, t


@triton.jit
def _to_triangle(corners, triangle, there, x, y, z):
    """Return the squared distance to a triangle and the weights of its closest point."""
    corner = corners + 9 * triangle.to(tl.int64)
    ax = tl.load(corner, mask=there, other=0.0) - x
    ay = tl.load(corner + 1, mask=there, other=0.0) - y
    az = tl.load(corner + 2, mask=there, other=0.0) - z
    bx = tl.load(corner + 3, mask=there, other=0.0) - x
    by = tl.load(corner + 4, mask=there, other=0.0) - y
    bz = tl.load(corner + 5, mask=there, other=0.0) - z
    cx = tl.load(corner + 6, mask=there, other=0.0) - x
    cy = tl.load(corner + 7, mask=there, other=0.0) - y
    cz = tl.load(corner + 8, mask=there, other=0.0) - z
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    nn = nx * nx + ny * ny + nz * nz
    w1 = nx * (vy * az - vz * ay) + ny * (vz * ax - vx * az) + nz * (vx * ay - vy * ax)
    w2 = nx * (ay * uz - az * uy) + ny * (az * ux - ax * uz) + nz * (ax * uy - ay * ux)
    w0 = nn - w1 - w2
    inside = (nn > 0) & (w0 >= 0) & (w1 >= 0) & (w2 >= 0)
    area = tl.where(nn > 0, nn, 1.0)
    height = nx * ax + ny * ay + nz * az
    # Outside, or of a triangle without area: on one of its edges.
    d0, t0 = _to_edge(ax, ay, az, bx, by, bz)
    d1, t1 = _to_edge(bx, by, bz, cx, cy, cz)
    d2, t2 = _to_edge(cx, cy, cz, ax, ay, az)
    first, second = (d0 <= d1) & (d0 <= d2), d1 <= d2
    return (
        tl.where(inside, height * (height / area), tl.minimum(tl.minimum(d0, d1), d2)),
        tl.where(inside, w0 / area, tl.where(first, 1 - t0, tl.where(second, 0.0, t2))),
        tl.where(inside, w1 / area, tl.where(first, t0, tl.where(second, 1 - t1, 0.0))),
        tl.where(inside, w2 / area, tl.where(first, 0.0, tl.where(second, t1, 1 - t2))),
    )


@triton.jit
def _forward(
    points,
    order,
    corners,
    boxes,
    order_of_triangles,
    count,
    triangles,
    leaves,
    squared,
    face,
    weights,
    LEAF: tl.constexpr,
    POINTS: tl.constexpr,
):
    number = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = number < count
    point = tl.load(order + number, mask=inside, other=0)
    x = tl.load(points + 3 * point, mask=inside, other=0.0)
    y = tl.load(points + 3 * point + 1, mask=inside, other=0.0)
    z = tl.load(points + 3 * point + 2, mask=inside, other=0.0)
    least, found = tl.full([POINTS], float("inf"), x.dtype), tl.zeros([POINTS], tl.int32)
    node, waiting = inside.to(tl.int32), tl.zeros([POINTS], tl.int32)  # at the root; at 0 all has been seen
    while tl.max(node) > 0:
        inner = (node > 0) & (node < leaves)
        while tl.max(inner.to(tl.int32)) > 0:
            left, right = _to_box(boxes, 2 * node, inner, x, y, z), _to_box(boxes, 2 * node + 1, inner, x, y, z)
            down = inner & (tl.minimum(left, right) < least)
            both = (tl.maximum(left, right) < least).to(tl.int32)
            node, waiting = _back(node, waiting, inner & (down == 0))
            waiting = tl.where(down, 2 * waiting + both, waiting)
            node = tl.where(down, 2 * node + (right < left).to(tl.int32), node)
            inner = (node > 0) & (node < leaves)
        triangle = ((node - leaves) * LEAF)[:, None] + tl.arange(0, LEAF)[None, :]
        there = (node >= leaves)[:, None] & (triangle < triangles)
        distance, _, _, _ = _to_triangle(corners, triangle, there, x[:, None], y[:, None], z[:, None])
        distance, place = tl.min(tl.where(there, distance, float("inf")), 1, return_indices=True)
        nearer = distance < least
        least, found = tl.where(nearer, distance, least), tl.where(nearer, (node - leaves) * LEAF + place, found)
        node, waiting = _back(node, waiting, node >= leaves)
    distance, w0, w1, w2 = _to_triangle(corners, found, inside, x, y, z)
    tl.store(squared + point, distance, mask=inside)
    tl.store(face + point, tl.load(order_of_triangles + found, mask=inside, other=0).to(tl.int32), mask=inside)
    tl.store(weights + 3 * point, w0, mask=inside)
    tl.store(weights + 3 * point + 1, w1, mask=inside)
    tl.store(weights + 3 * point + 2, w2, mask=inside)
