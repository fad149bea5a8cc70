"""Where what is seen changes between a pixel and the next to the right or below: walks over surfaces, in double."""

from __future__ import annotations

import triton
import triton.language as tl

MOST_STEPS = tl.constexpr(16)
NUMBERS = ["pixels", "height", "width", "vertices", "triangles", "channels"]
"""Not worth a kernel of their own when they are 1 or divisible by 16."""


@triton.jit
def some(which):
    """Return whether it is so in any lane."""
    return tl.max(which.to(tl.int32), 0) > 0


@triton.jit
def corner_of(mesh, vertex, known, x, y):
    """Return a vertex in homogeneous pixel coordinates about (x, y), and its depth."""
    positions, _, origin, _, _, half_width, half_height = mesh
    at = positions + 4 * (origin + vertex)
    w = tl.load(at + 3, mask=known, other=0.0).to(tl.float64)
    X = (tl.load(at, mask=known, other=0.0).to(tl.float64) + w) * half_width - x * w
    Y = (tl.load(at + 1, mask=known, other=0.0).to(tl.float64) + w) * half_height - y * w
    return X, Y, w, tl.load(at + 2, mask=known, other=0.0).to(tl.float64)


@triton.jit
def triangle_of(mesh, t, known, x, y):
    """Return a triangle's vertices, the columns of M⁻¹ about (x, y), depths, determinant, and whether all is finite."""
    _, faces, _, vertices, _, _, _ = mesh
    i = tl.load(faces + 3 * t, mask=known, other=-1)
    j = tl.load(faces + 3 * t + 1, mask=known, other=-1)
    k = tl.load(faces + 3 * t + 2, mask=known, other=-1)
    known = (i >= 0) & (j >= 0) & (k >= 0) & (i < vertices) & (j < vertices) & (k < vertices)
    X0, Y0, w0, z0 = corner_of(mesh, i, known, x, y)
    X1, Y1, w1, z1 = corner_of(mesh, j, known, x, y)
    X2, Y2, w2, z2 = corner_of(mesh, k, known, x, y)
    A0, A1, A2 = Y1 * w2 - w1 * Y2, Y2 * w0 - w2 * Y0, Y0 * w1 - w0 * Y1
    B0, B1, B2 = w1 * X2 - X1 * w2, w2 * X0 - X2 * w0, w0 * X1 - X0 * w1
    C0, C1, C2 = X1 * Y2 - Y1 * X2, X2 * Y0 - Y2 * X0, X0 * Y1 - Y0 * X1
    determinant = C0 * w0 + C1 * w1 + C2 * w2
    inverse = 1 / tl.where(determinant == 0, float("nan"), determinant)
    size = X0 + Y0 + w0 + z0 + X1 + Y1 + w1 + z1 + X2 + Y2 + w2 + z2  # of finite floats, it is finite in double
    return (
        (i, j, k),
        (A0 * inverse, A1 * inverse, A2 * inverse),
        (B0 * inverse, B1 * inverse, B2 * inverse),
        (C0 * inverse, C1 * inverse, C2 * inverse),
        (z0, z1, z2),
        determinant,
        tl.abs(size) < float("inf"),
    )


@triton.jit
def _pick(edge, values):
    return tl.where(edge == 0, values[0], tl.where(edge == 1, values[1], values[2]))


@triton.jit
def _step(mesh, neighbors, t, goal, walking, steps, entered, before, edge, x, y, below, WAY: tl.constexpr):
    """Go into triangle t, and on to the edge where it is left.

    It was entered over ``edge``, two vertices (-1 at the start) and a normal, from a triangle with determinant
    ``before``. Return the next triangle and whether the walk goes on there; whether this step was made, up to where, in
    a triangle of which determinant and over which edge; depth and slopes; vertices; whether the walk arrived or ended.
    """
    _, _, _, _, triangles, _, _ = mesh
    first, second, nx, ny = edge
    corners, A, B, C, z, determinant, finite = triangle_of(mesh, t, walking, x, y)
    i, j, k = corners
    came = first >= 0
    # The corner opposite the edge, and the one before it: wound alike, the edge runs the other way here.
    i_opposite, j_opposite = (i != first) & (i != second), (j != first) & (j != second)
    k_opposite = (k != first) & (k != second)
    fits = finite & (i_opposite | j_opposite | k_opposite)
    previous = tl.where(i_opposite, k, tl.where(j_opposite, i, j))
    alike = tl.where(previous == first, before, -before) * determinant
    ended = walking & came & fits & (alike < 0)
    walking = walking & (~came | (fits & (alike > 0)))
    arrived = walking & came & (t == goal)
    walking = walking & ~arrived & (steps < MOST_STEPS)
    # b_i(t) = C_i + slope_i t: the triangle is left where the first of them falls below zero.
    leave = tl.full(x.shape, 1.0, tl.float64)
    out = tl.full(x.shape, -1, tl.int32)
    slope = tl.zeros(x.shape, tl.float64)
    for n in tl.static_range(3):
        along = tl.where(below == 0, A[n], B[n]) * WAY
        nearer = (along < 0) & (C[n] < -leave * along)
        leave = tl.where(nearer, C[n] / tl.where(nearer, -along, 1.0), leave)
        out = tl.where(nearer, n, out)
        slope += along * z[n]
    leave = tl.maximum(leave, entered)
    left = walking & (out >= 0)
    following = tl.load(neighbors + 3 * t + out, mask=left, other=-1)
    open_ = (following < 0) | (following >= triangles)
    edge = (
        tl.where(left, _pick(out, (j, k, i)), first),
        tl.where(left, _pick(out, (k, i, j)), second),
        tl.where(left, _pick(out, A), nx),
        tl.where(left, _pick(out, B), ny),
    )
    depth = (
        C[0] * z[0] + C[1] * z[1] + C[2] * z[2],
        slope,
        A[0] * z[0] + A[1] * z[1] + A[2] * z[2],
        B[0] * z[0] + B[1] * z[1] + B[2] * z[2],
    )
    return following, left & ~open_, walking, leave, determinant, edge, depth, corners, arrived, ended | (left & open_)


@triton.jit
def _walk(mesh, neighbors, t, goal, walking, x, y, below, probe, WAY: tl.constexpr):
    """Follow the surface from triangle t, seen at (x, y), to the centre that sees ``goal``.

    Return whether it arrives; whether it ends at a silhouette edge; that edge, where the walk ends, and how deep; and
    how deep the surface is at ``probe``, infinitely where it is not followed there.
    """
    nothing = tl.zeros_like(x)
    none = tl.full(x.shape, -1, tl.int32)
    steps, edge = tl.zeros_like(none), (none, none, nothing, nothing)
    entered, before, to, end, probed = nothing, nothing, nothing, nothing, nothing + float("inf")
    never = tl.zeros_like(walking)
    arrived, ended, seen = never, never, never
    going = some(walking)
    while going:
        t, walking, stepped, leave, before, edge, depth, _, now_arrived, now_ended = _step(
            mesh, neighbors, t, goal, walking, steps, entered, before, edge, x, y, below, WAY
        )
        q, slope, _, _ = depth
        here = stepped & ~seen & (entered <= probe) & (probe <= leave)
        probed = tl.where(here, q + slope * probe, probed)
        to, end = tl.where(stepped, leave, to), tl.where(stepped, q + slope * leave, end)
        seen, arrived, ended = seen | here, arrived | now_arrived, ended | now_ended
        entered = leave
        steps += 1
        going = some(walking)
    return arrived, ended, edge, to, end, probed


@triton.jit
def _meeting(mesh, neighbors, t, u, walking, x, y, x_other, y_other, below):
    """Follow the surfaces from both centres.

    Return whether they pass through one another, where, which triangles, and the normal of the line where they meet.
    """
    nothing = tl.zeros_like(x)
    none = tl.full(x.shape, -1, tl.int32)
    at, nx, ny, one, two = nothing, nothing, nothing, none, none
    found = tl.zeros_like(walking)
    i, edge_i, entered_i, before_i = tl.zeros_like(none), (none, none, nothing, nothing), nothing, nothing
    going = some(walking)
    while going:
        next_t, walking, stepped, leave_i, before_i, edge_i, depth, corners, _, _ = _step(
            mesh, neighbors, t, u, walking, i, entered_i, before_i, edge_i, x, y, below, 1
        )
        a0, a1, a2 = corners
        q, slope, qx, qy = depth
        k, edge_k, entered_k, before_k = tl.zeros_like(none), (none, none, nothing, nothing), nothing, nothing
        v, others = u, stepped
        more = some(others)
        while more:
            next_v, others, also, leave_k, before_k, edge_k, depth_k, corners_k, _, _ = _step(
                mesh, neighbors, v, t, others, k, entered_k, before_k, edge_k, x_other, y_other, below, -1
            )
            b0, b1, b2 = corners_k
            q_k, slope_k, qx_k, qy_k = depth_k
            joined = (a0 == b0) | (a0 == b1) | (a0 == b2) | (a1 == b0) | (a1 == b1) | (a1 == b2)
            joined = joined | (a2 == b0) | (a2 == b1) | (a2 == b2)
            low, high = tl.maximum(entered_i, 1 - leave_k), tl.minimum(leave_i, 1 - entered_k)
            ahead, faster = q - (q_k + slope_k), slope + slope_k
            meet = also & ~joined & (low < high) & (ahead + faster * low < 0) & (ahead + faster * high >= 0)
            at = tl.where(meet, -ahead / tl.where(meet, faster, 1.0), at)
            one, two = tl.where(meet, t, one), tl.where(meet, v, two)
            nx, ny = tl.where(meet, qx - qx_k, nx), tl.where(meet, qy - qy_k, ny)
            found = found | meet
            others = others & ~meet
            v, entered_k = next_v, leave_k
            k += 1
            more = some(others)
        walking = walking & ~found
        t, entered_i = next_t, leave_i
        i += 1
        going = some(walking)
    return found, at, one, two, nx, ny


@triton.jit
def _steep(nx, ny, below):
    """Whether an edge with this normal is looked for between pixels side by side, or else one above the other."""
    return (tl.abs(nx) >= tl.abs(ny)).to(tl.int32) != below


@triton.jit
def pair(pixels, height, width, COUNT: tl.constexpr):
    """Return pixels, whether there are such, their columns, rows and images, and the places of their crossings."""
    pixel = tl.program_id(0) * COUNT + tl.arange(0, COUNT)
    place = tl.program_id(1).to(tl.int64) * pixels + pixel
    return pixel, pixel < pixels, pixel % width, pixel // width % height, pixel // width // height, place


@triton.jit(do_not_specialize=NUMBERS)
def find(
    rast,
    positions,
    faces,
    neighbors,
    places,
    kinds,
    firsts,
    seconds,
    pixels,
    height,
    width,
    vertices,
    triangles,
    COUNT: tl.constexpr,
):
    """Write where each pair of pixels' crossing is, -1 if there is none, and what it depends on."""
    pixel, inside, column, row, image, place = pair(pixels, height, width, COUNT)
    below = tl.program_id(1)
    there = inside & (tl.where(below == 0, width - column, height - row) > 1)
    rast += 4 * pixel.to(tl.int64) + 3
    here = tl.load(rast, mask=there, other=0.0)
    other = tl.load(rast + 4 * tl.where(below == 0, 1, width).to(tl.int64), mask=there, other=0.0)
    changes = there & (here != other)
    at = tl.full([COUNT], -1.0, tl.float32)
    if some(changes):
        origin = image.to(tl.int64) * vertices
        half_width, half_height = 0.5 * tl.cast(width, tl.float64), 0.5 * tl.cast(height, tl.float64)
        mesh = (positions, faces, origin, vertices, triangles, half_width, half_height)
        t_seen, u_seen = (here >= 1) & (here <= triangles), (other >= 1) & (other <= triangles)
        t, u = tl.where(t_seen, here, 0.0).to(tl.int32) - 1, tl.where(u_seen, other, 0.0).to(tl.int32) - 1
        x, y = column.to(tl.float64) + 0.5, row.to(tl.float64) + 0.5
        x_other, y_other = tl.where(below == 0, x + 1, x), tl.where(below == 0, y, y + 1)
        nowhere = tl.full([COUNT], -1.0, tl.float64)
        arrived, one_ends, edge, to, end, _ = _walk(mesh, neighbors, t, u, changes & t_seen, x, y, below, nowhere, 1)
        changes = changes & ~arrived
        arrived, two_ends, edge_two, to_two, end_two, probed = _walk(
            mesh, neighbors, u, t, changes & u_seen, x_other, y_other, below, 1 - to, -1
        )
        changes = changes & ~arrived
        # An edge counts where it hides what is behind, the nearer of two where nobody knows what is between.
        needed = changes & t_seen & two_ends
        _, _, _, _, _, probed_two = _walk(mesh, neighbors, t, u, needed, x, y, below, 1 - to_two, 1)
        first = changes & one_ends & ~(probed < end)
        second = changes & two_ends & ~(probed_two < end_two)
        second, first = second & ~(first & (end <= end_two)), first & (~second | (end <= end_two))
        ends = first | second
        meets, at_meeting, one, two, nx, ny = _meeting(
            mesh, neighbors, t, u, changes & ~ends & t_seen & u_seen, x, y, x_other, y_other, below
        )
        nx = tl.where(first, edge[2], tl.where(second, edge_two[2], nx))
        ny = tl.where(first, edge[3], tl.where(second, edge_two[3], ny))
        crossed = (ends | meets) & _steep(nx, ny, below)
        where = tl.where(first, to, tl.where(second, 1 - to_two, at_meeting))
        at = tl.where(crossed, where.to(tl.float32), -1.0)
        tl.store(kinds + place, below + 2 * meets.to(tl.int32), mask=crossed)
        tl.store(firsts + place, tl.where(first, edge[0], tl.where(second, edge_two[0], one)), mask=crossed)
        tl.store(seconds + place, tl.where(first, edge[1], tl.where(second, edge_two[1], two)), mask=crossed)
    tl.store(places + place, at, mask=inside)
