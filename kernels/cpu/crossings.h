// Where what is seen changes between two neighbouring pixel centres: at an edge where a surface ends or folds away from
// the viewer, or where two surfaces pass through one another.
//
// The surface seen at each centre is followed towards the other, from triangle to triangle. If it gets there, nothing
// changes. Else it ends at a silhouette edge, where it hides what the other centre sees; or it sinks below the other
// surface. Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", section 3.4, look at
// the edges of the nearer triangle alone; following the surface finds the edges of triangles that no centre hits, and
// intersections have no edge at all.
//
// An edge steeper than 45° is looked for between pixels side by side, others between pixels one above the other, so
// that each stretch of it counts once.
#pragma once

#include "corners.h"
#include "growing.h"
#include "scatter.h"

namespace ISA {
namespace mesh {

constexpr int most_steps = 16;

/// A triangle on the way: seen from `from` to `to` (0 at the start, 1 at the other centre), at depth z/w = q + slope t.
struct Step {
    int64_t triangle;
    double from, to, q, slope, qX, qY;
};

struct Walk {
    Step steps[most_steps];
    int count = 0;
    bool arrived = false;   // at the triangle that the other centre sees
    bool ends = false;      // at a silhouette edge, at t = last().to
    int32_t first = 0, second = 0;  // vertices of that edge
    double A = 0, B = 0;    // its normal
    const Step& last() const { return steps[count - 1]; }
    /// The step at t, or null.
    const Step* at(double t) const {
        for (int i = 0; i < count; ++i)
            if (steps[i].from <= t && t <= steps[i].to) return steps + i;
        return nullptr;
    }
};

/// Of the edge opposite corner i of triangle t: that of the neighbour, or -1.
inline int opposite(const MeshScene& s, int64_t t, int i, int64_t neighbor) {
    const int32_t *f = s.faces + 3 * t, *g = s.faces + 3 * neighbor;
    for (int k = 0; k < 3; ++k)
        if (g[k] != f[(i + 1) % 3] && g[k] != f[(i + 2) % 3]) return k;
    return -1;
}

/// +1 if two triangles with a common edge face the same way, -1 if one is seen from the front and one from behind, 0 if
/// one is seen edge-on. i and k: the corners opposite the edge.
inline int alike(const MeshScene& s, int64_t t, int i, double determinant, int64_t neighbor, int k, double other) {
    const bool consistent = s.faces[3 * t + (i + 1) % 3] == s.faces[3 * neighbor + (k + 2) % 3];
    const double product = determinant * (consistent ? 1 : -1);
    return (product > 0 ? 1 : product < 0 ? -1 : 0) * (other > 0 ? 1 : other < 0 ? -1 : 0);
}

/// Follow the surface from triangle `start`, seen at pixel centre (x, y), along (dx, dy) to the centre that sees `goal`.
inline void walk(const MeshScene& s, const float* positions, const int32_t* neighbors, int64_t start, int64_t goal, double x, double y, double dx,
                 double dy, Walk& w) {
    int64_t t = start;
    double from = 0;
    Corner v[3];
    corners(s, positions, t, v);
    Barycentrics b;
    b.set(v, x, y);
    while (w.count < most_steps) {
        // b_i(t) = C_i + slope_i t: the triangle is left where the first of them falls below zero.
        double leave = 1, q = 0, slope = 0, qX = 0, qY = 0;
        int edge = -1;
        for (int i = 0; i < 3; ++i) {
            const double down = -(b.A[i] * dx + b.B[i] * dy);
            if (down > 0 && b.C[i] < leave * down) leave = b.C[i] / down, edge = i;
            q += b.C[i] * v[i].z, slope -= down * v[i].z, qX += b.A[i] * v[i].z, qY += b.B[i] * v[i].z;
        }
        leave = leave > from ? leave : from;
        w.steps[w.count++] = {t, from, leave, q, slope, qX, qY};
        if (edge < 0) return;
        w.first = s.faces[3 * t + (edge + 1) % 3], w.second = s.faces[3 * t + (edge + 2) % 3];
        w.A = b.A[edge], w.B = b.B[edge];
        const int64_t next = neighbors[3 * t + edge];
        if (next < 0) {
            w.ends = true;
            return;
        }
        const int k = opposite(s, t, edge, next);
        const double before = b.determinant;
        if (k < 0 || !corners(s, positions, next, v)) return;
        b.set(v, x, y);
        const int same = alike(s, t, edge, before, next, k, b.determinant);
        if (same < 0) w.ends = true;
        if (same <= 0) return;
        if (next == goal) {
            w.arrived = true;
            return;
        }
        t = next, from = leave;
    }
}

inline bool share_vertex(const MeshScene& s, int64_t t, int64_t u) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            if (s.faces[3 * t + i] == s.faces[3 * u + j]) return true;
    return false;
}

/// True if the walk's end at t is behind the surface that the other walk, from the other centre, follows.
inline bool hidden(const Walk& w, const Walk& other) {
    const double t = w.last().to;
    const Step* step = other.at(1 - t);
    return step && step->q + step->slope * (1 - t) < w.last().q + w.last().slope * t;
}

/// Find the crossing between the centres of a pixel (x, y), which sees triangle t, and of its neighbour to the right or
/// `below`, which sees u; -1 is the background.
inline bool find_crossing(const MeshScene& s, const float* positions, const int32_t* neighbors, int64_t t, int64_t u, double x, double y, bool below,
                          Crossing& found) {
    const double dx = below ? 0 : 1, dy = below ? 1 : 0;
    Walk one, two;
    if (t >= 0) walk(s, positions, neighbors, t, u, x, y, dx, dy, one);
    if (one.arrived) return false;
    if (u >= 0) walk(s, positions, neighbors, u, t, x + dx, y + dy, -dx, -dy, two);
    if (two.arrived) return false;
    bool first = one.ends && !hidden(one, two);
    bool second = two.ends && !hidden(two, one);
    if (first && second) {
        // A gap between two surfaces: what is in it no pixel tells; the nearer surface's edge counts.
        const double p = one.last().q + one.last().slope * one.last().to, q = two.last().q + two.last().slope * two.last().to;
        first = p <= q, second = !first;
    }
    auto steep = [&](double A, double B) { return (__builtin_fabs(A) >= __builtin_fabs(B)) != below; };
    if (first || second) {
        const Walk& w = first ? one : two;
        if (!steep(w.A, w.B)) return false;
        found.kind = below, found.first = w.first, found.second = w.second;
        found.position = float(first ? w.last().to : 1 - w.last().to);
        return true;
    }
    for (int i = 0; i < one.count; ++i)
        for (int k = 0; k < two.count; ++k) {
            const Step &a = one.steps[i], &b = two.steps[k];
            const double low = a.from > 1 - b.to ? a.from : 1 - b.to, high = a.to < 1 - b.from ? a.to : 1 - b.from;
            if (!(low < high) || share_vertex(s, a.triangle, b.triangle)) continue;
            const double d = a.q - (b.q + b.slope), slope = a.slope + b.slope, at_low = d + slope * low, at_high = d + slope * high;
            if (!(at_low < 0 && at_high >= 0)) continue;
            if (!steep(a.qX - b.qX, a.qY - b.qY)) return false;
            found.kind = 2 | int(below), found.first = int32_t(a.triangle), found.second = int32_t(b.triangle);
            found.position = float(-d / slope);
            return true;
        }
    return false;
}

Crossing* find_crossings(const MeshScene& s, const int32_t* neighbors, const float* rast, int64_t* count) {
    const int rows_a_chunk = 8, chunks_an_image = (s.height + rows_a_chunk - 1) / rows_a_chunk, chunks = chunks_an_image * int(s.batch);
    struct Found {
        Crossing* data;
        size_t size;
    };
    Buffer found_block(sizeof(Found) * size_t(chunks + 1));
    Found* found = found_block.as<Found>();
    each(chunks, s.threads, [&](int chunk) {
        Growing<Crossing> here;
        const int image = chunk / chunks_an_image, first = chunk % chunks_an_image * rows_a_chunk, last = min(s.height, first + rows_a_chunk);
        const float* positions = s.positions + 4 * int64_t(image) * s.vertices;
        for (int y = first; y < last; ++y)
            for (int x = 0; x < s.width; ++x) {
                const size_t at = size_t(image) * s.pixels() + size_t(y) * size_t(s.width) + size_t(x);
                for (int below = 0; below < 2; ++below) {
                    if (below ? y + 1 == s.height : x + 1 == s.width) continue;
                    const float here_id = rast[4 * at + 3], other_id = rast[4 * (at + (below ? size_t(s.width) : 1)) + 3];
                    if (here_id == other_id) continue;
                    const int64_t t = triangle_of(here_id, s.triangles), u = triangle_of(other_id, s.triangles);
                    Crossing c;
                    c.pixel = int32_t(at);
                    if (find_crossing(s, positions, neighbors, t, u, x + 0.5, y + 0.5, below, c)) here.push(c);
                }
            }
        found[chunk] = {here.data, here.size};
        here.data = nullptr;
    });
    size_t total = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) total += found[chunk].size;
    Crossing* all = static_cast<Crossing*>(acquire(sizeof(Crossing) * (total + 1)));
    total = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        if (!found[chunk].data) continue;
        std::memcpy(all + total, found[chunk].data, sizeof(Crossing) * found[chunk].size);
        total += found[chunk].size;
        release(found[chunk].data);
    }
    *count = int64_t(total);
    return all;
}

}  // namespace mesh
}  // namespace ISA
