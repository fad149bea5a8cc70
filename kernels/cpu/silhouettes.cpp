// What happens once for each crossing or each triangle rather than for each pixel: the neighbours of triangles, the
// blending at crossings and its gradients. Too little work for SIMD or threads.
#include <algorithm>
#include <vector>

#include "mesh.h"
#include "pool.h"

namespace egregium {
namespace {

struct Vector {
    double x, y, z;
};
Vector cross(Vector a, Vector b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
double dot(Vector a, Vector b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

/// A vertex in homogeneous pixel coordinates, and the way back for gradients.
struct Points {
    const MeshScene& s;
    int64_t offset;
    float* gradient;

    const float* clip(int64_t vertex) const { return s.positions + 4 * (offset + vertex); }
    Vector operator()(int64_t vertex) const {
        const float* p = clip(vertex);
        const double w = double(p[3]);
        return {(double(p[0]) + w) * 0.5 * s.width, (double(p[1]) + w) * 0.5 * s.height, w};
    }
    void add(int64_t vertex, Vector g, double z) const {
        float* to = gradient + 4 * (offset + vertex);
        const double x = g.x * 0.5 * s.width, y = g.y * 0.5 * s.height;
        to[0] += float(x), to[1] += float(y), to[2] += float(z), to[3] += float(g.z + x + y);
    }
};

/// The edge a × b =: l crosses the row (or column) through p at l·p = 0: dX = −dl·p / l_X, with dl = da × b + a × db.
void edge_backward(const Points& points, const Crossing& c, Vector p, double gradient) {
    const Vector a = points(c.first), b = points(c.second), l = cross(a, b);
    const double along = c.kind & 1 ? l.y : l.x;
    if (along == 0) return;
    const double scale = -gradient / along;
    const Vector to_a = cross(b, p), to_b = cross(p, a);
    points.add(c.first, {scale * to_a.x, scale * to_a.y, scale * to_a.z}, 0);
    points.add(c.second, {scale * to_b.x, scale * to_b.y, scale * to_b.z}, 0);
}

/// The depth q = zᵀ M⁻¹ p of a triangle's plane.
struct Plane {
    Vector v[3];
    double z[3], b[3];
    Vector slopes;  // of q by X, Y and 1

    Plane(const Points& points, const int32_t* face, Vector p) {
        for (int i = 0; i < 3; ++i) v[i] = points(face[i]), z[i] = double(points.clip(face[i])[2]);
        const double inverse = 1 / dot(v[0], cross(v[1], v[2]));
        slopes = {0, 0, 0};
        for (int i = 0; i < 3; ++i) {
            const Vector row = cross(v[(i + 1) % 3], v[(i + 2) % 3]);
            b[i] = inverse * dot(row, p);
            slopes.x += z[i] * inverse * row.x, slopes.y += z[i] * inverse * row.y, slopes.z += z[i] * inverse * row.z;
        }
    }
    /// dq = Σ b_i dz_i − (M⁻ᵀ z)·(dM b)
    void backward(const Points& points, const int32_t* face, double gradient) const {
        for (int i = 0; i < 3; ++i) {
            const double scale = -gradient * b[i];
            points.add(face[i], {scale * slopes.x, scale * slopes.y, scale * slopes.z}, gradient * b[i]);
        }
    }
};

/// The planes meet where q₁ − q₂ = 0 along the row (or column): dX = −(dq₁ − dq₂) / ∂(q₁ − q₂)/∂X.
void meeting_backward(const Points& points, const Crossing& c, Vector p, double gradient) {
    const int32_t *one = points.s.faces + 3 * int64_t(c.first), *two = points.s.faces + 3 * int64_t(c.second);
    const Plane a(points, one, p), b(points, two, p);
    const double slope = c.kind & 1 ? a.slopes.y - b.slopes.y : a.slopes.x - b.slopes.x;
    if (slope == 0) return;
    a.backward(points, one, -gradient / slope);
    b.backward(points, two, gradient / slope);
}

}  // namespace

void face_neighbors(const int32_t* faces, int64_t triangles, int64_t vertices, int32_t* neighbors, int threads) {
    // Edges by their lower vertex, then by the other; equal ones are neighbours. A triangle with two equal corners has no
    // area and joins nothing: its edges are left out.
    std::fill(neighbors, neighbors + 3 * triangles, -1);
    struct Edge {
        int32_t other, place;
    };
    std::vector<int64_t> starts(size_t(vertices) + 2);
    auto each_edge = [&](auto&& f) {
        for (int64_t t = 0; t < triangles; ++t) {
            const int32_t* v = faces + 3 * t;
            if (v[0] == v[1] || v[1] == v[2] || v[2] == v[0]) continue;
            for (int i = 0; i < 3; ++i) {
                const int32_t a = v[(i + 1) % 3], b = v[(i + 2) % 3];
                f(std::min(a, b), std::max(a, b), int32_t(3 * t + i));
            }
        }
    };
    each_edge([&](int32_t low, int32_t, int32_t) { ++starts[size_t(low) + 2]; });
    for (size_t i = 2; i < starts.size(); ++i) starts[i] += starts[i - 1];
    std::vector<Edge> edges(size_t(3 * triangles));
    each_edge([&](int32_t low, int32_t high, int32_t place) { edges[size_t(starts[size_t(low) + 1]++)] = {high, place}; });
    constexpr int64_t vertices_a_task = 16384;
    each(int((vertices + vertices_a_task - 1) / vertices_a_task), threads, [&](int task) {
        for (int64_t v = task * vertices_a_task; v < std::min(vertices, (task + 1) * vertices_a_task); ++v) {
            Edge *first = edges.data() + starts[size_t(v)], *last = edges.data() + starts[size_t(v) + 1];
            std::sort(first, last, [](const Edge& a, const Edge& b) { return a.other != b.other ? a.other < b.other : a.place < b.place; });
            while (first < last) {
                Edge* end = first + 1;
                while (end < last && end->other == first->other) ++end;
                if (end == first + 2) neighbors[first->place] = first[1].place / 3, neighbors[first[1].place] = first->place / 3;
                first = end;
            }
        }
    });
}

// With the change at t between the centres of pixels A and B, A's colour reaches to t: for t < ½, the part ½ - t of A has
// B's colour; for t > ½, the part t - ½ of B has A's. Either way the derivative by t is A - B.

void antialias(const Crossing* crossings, int64_t count, int width, int channels, const float* color, float* out) {
    for (int64_t i = 0; i < count; ++i) {
        const Crossing& c = crossings[i];
        const size_t a = size_t(c.pixel) * size_t(channels), b = a + size_t(c.kind & 1 ? width : 1) * size_t(channels);
        const float part = c.position - 0.5f;
        float* to = out + (part < 0 ? a : b);
        for (int k = 0; k < channels; ++k) to[k] += part * (color[a + size_t(k)] - color[b + size_t(k)]);
    }
}

void antialias_backward(const MeshScene& s, const Crossing* crossings, int64_t count, int channels, const float* color, const float* gradient,
                        float* color_gradient, float* positions) {
    for (int64_t i = 0; i < count; ++i) {
        const Crossing& c = crossings[i];
        const size_t a = size_t(c.pixel) * size_t(channels), b = a + size_t(c.kind & 1 ? s.width : 1) * size_t(channels);
        const float part = c.position - 0.5f;
        const float* g = gradient + (part < 0 ? a : b);
        double by_position = 0;
        for (size_t k = 0; k < size_t(channels); ++k) {
            by_position += double(g[k]) * (double(color[a + k]) - double(color[b + k]));
            if (color_gradient) color_gradient[a + k] += part * g[k], color_gradient[b + k] -= part * g[k];
        }
        if (!positions || by_position == 0) continue;
        const int64_t image = int64_t(c.pixel) / int64_t(s.pixels()), pixel = int64_t(c.pixel) % int64_t(s.pixels());
        const Points points{s, image * s.vertices, positions};
        Vector p{double(pixel % s.width) + 0.5, double(pixel / s.width) + 0.5, 1};
        (c.kind & 1 ? p.y : p.x) += double(c.position);
        if (c.kind & 2) meeting_backward(points, c, p, by_position);
        else edge_backward(points, c, p, by_position);
    }
}

}  // namespace egregium
