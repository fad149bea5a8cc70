// Vertices of FlexiCubes, one cell at a time, and their derivatives.
//
// Backwards everything is gathered, so that sums have a fixed order and threads need no locks: a cell finds what its
// vertices got through the quads at its twelve edges; what it leaves at its corners is summed sample by sample. For the
// latter the cells being sorted helps: those that touch a range of samples are a range of cells.
#include "flexicubes.h"

#include <algorithm>
#include <cmath>

#include "buffers.h"
#include "pool.h"

namespace egregium {
namespace {

constexpr int chunk = 1024, most_loops = 4, quad_weight = 20;
constexpr double least_inside = 1e-18;  // its square is a normal float: no crossing's slope overflows

/// The corners at an edge's ends.
int low_end(int edge) {
    const int axis = edge >> 2, m = edge & 3;
    return (m >> axis) << (axis + 1) | (m & ((1 << axis) - 1));
}
int high_end(int edge) { return low_end(edge) | 1 << (edge >> 2); }

template <class F> void each_chunk(int64_t count, int threads, F&& f) {
    each(int((count + chunk - 1) / chunk), threads, [&](int task) {
        for (int64_t i = int64_t(task) * chunk, end = std::min(count, i + chunk); i < end; ++i) f(i);
    });
}

template <class T> struct Vec {
    T x, y, z;
    Vec operator+(Vec o) const { return {x + o.x, y + o.y, z + o.z}; }
    Vec operator-(Vec o) const { return {x - o.x, y - o.y, z - o.z}; }
    Vec operator*(T k) const { return {k * x, k * y, k * z}; }
    void operator+=(Vec o) { x += o.x, y += o.y, z += o.z; }
    T dot(Vec o) const { return x * o.x + y * o.y + z * o.z; }
    static Vec at(const T* p) { return {p[0], p[1], p[2]}; }
    void put(T* p) const { p[0] = x, p[1] = y, p[2] = z; }
};

/// A cell's corners, its crossings and what they average to.
template <class T> struct Cell {
    Vec<T> x[8];
    T s[8];
    bool held[8];  // the field's value was overruled: s is constant
    const uint8_t* loop;
    const T* weights;
    int loops = 0;
    Vec<T> u[12], plain[12], v[most_loops];  // crossings with and without weights; vertices
    T sum[most_loops] = {}, distance[12], mean[most_loops] = {}, deviation[most_loops] = {};
    int count[most_loops] = {};

    Cell(const FlexiCubesArrays<T>& a, int64_t cell) : loop(a.loops + 12 * a.cases[cell]), weights(a.weights + 21 * cell) {
        for (int c = 0; c < 8; ++c) {
            const int64_t sample = a.corners[8 * cell + c];
            x[c] = Vec<T>::at(a.positions + 3 * sample);
            const T value = a.field[sample];
            const bool inside = a.cases[cell] >> c & 1;
            held[c] = inside ? !(value <= T(-least_inside)) : value < 0;
            s[c] = !held[c] ? value : inside ? T(-least_inside) : T(0);
        }
        for (int l = 0; l < most_loops; ++l) v[l] = {0, 0, 0};
        for (int e = 0; e < 12; ++e) {
            const int l = loop[e];
            if (l == no_loop) continue;
            const int p = low_end(e), q = high_end(e);
            u[e] = x[p] + (x[q] - x[p]) * (s[p] * weights[p] / (s[p] * weights[p] - s[q] * weights[q]));
            plain[e] = x[p] + (x[q] - x[p]) * (s[p] / (s[p] - s[q]));
            v[l] += u[e] * weights[8 + e];
            sum[l] += weights[8 + e];
            ++count[l];
            loops = std::max(loops, l + 1);
        }
        for (int l = 0; l < loops; ++l) v[l] = v[l] * (1 / sum[l]);
        for (int e = 0; e < 12; ++e)
            if (loop[e] != no_loop) {
                const Vec<T> d = v[loop[e]] - plain[e];
                distance[e] = std::sqrt(d.dot(d));
                mean[loop[e]] += distance[e] / T(count[loop[e]]);
            }
        for (int e = 0; e < 12; ++e)
            if (loop[e] != no_loop) deviation[loop[e]] += std::abs(distance[e] - mean[loop[e]]) / T(count[loop[e]]);
    }
};

/// γ of each vertex: its cell's.
template <class T> void spread_gamma(const FlexiCubesArrays<T>& a, T* gamma) {
    each_chunk(a.n_cells, a.threads, [&](int64_t cell) {
        for (int64_t v = a.first[cell]; v < a.first[cell + 1]; ++v) gamma[v] = a.weights[21 * cell + quad_weight];
    });
}

/// Adds d t / d (sp, sq) for t = sp / (sp - sq), which is (1 - t, t) / (sp - sq): the square could underflow.
template <class T> void crossing_backward(T sp, T sq, T incoming, T& to_p, T& to_q) {
    const T difference = sp - sq, scale = incoming / difference;
    to_p -= scale * (sq / difference);
    to_q += scale * (sp / difference);
}

/// What a quad's midpoint gives back.
template <class T> struct QuadGradient {
    T to_vertex[2];   // times the midpoint's gradient, to the vertices 0, 2 and to 1, 3
    T to_product[2];  // gradient of γ0 γ2 and of γ1 γ3
};

template <class T> void cell_backward(const FlexiCubesArrays<T>& a, const FlexiCubesGradients<T>& g, const T* gamma, const QuadGradient<T>* quads,
                                      int64_t cell, T* corner_gradients) {
    const Cell<T> c(a, cell);
    T* weights = g.weights + 21 * cell;
    for (int k = 0; k < 21; ++k) weights[k] = 0;
    Vec<T> gv[most_loops];
    T slope_sum[most_loops] = {};  // Σ sign(distance - mean)
    for (int l = 0; l < c.loops; ++l) gv[l] = Vec<T>::at(g.vertices + 3 * (a.first[cell] + l));
    for (int e = 0; e < 12; ++e) {
        const int l = c.loop[e];
        if (l == no_loop) continue;
        slope_sum[l] += c.distance[e] > c.mean[l] ? T(1) : c.distance[e] < c.mean[l] ? T(-1) : T(0);
        if (!a.midpoints) continue;
        const int64_t edge = a.cell_edges[12 * cell + e];
        const int32_t* quad = a.quads + 4 * edge;
        int q = 0;
        while (quad[q] != a.first[cell] + l) ++q;
        gv[l] += Vec<T>::at(g.vertices + 3 * (a.n_vertices + edge)) * quads[edge].to_vertex[q & 1];
        weights[quad_weight] += quads[edge].to_product[q & 1] * gamma[quad[q ^ 2]];
    }
    Vec<T> g_plain[12];
    for (int e = 0; e < 12; ++e) {
        const int l = c.loop[e];
        if (l == no_loop) continue;
        const T slope = c.distance[e] > c.mean[l] ? T(1) : c.distance[e] < c.mean[l] ? T(-1) : T(0), n = T(c.count[l]);
        const T to_distance = g.deviations[a.first[cell] + l] * (slope - slope_sum[l] / n) / n;
        const Vec<T> direction = (c.v[l] - c.plain[e]) * (c.distance[e] > 0 ? to_distance / c.distance[e] : T(0));
        gv[l] += direction;
        g_plain[e] = direction * T(-1);
    }
    Vec<T> gx[8];
    T gs[8] = {};
    for (Vec<T>& each : gx) each = {0, 0, 0};
    for (int e = 0; e < 12; ++e) {
        const int l = c.loop[e];
        if (l == no_loop) continue;
        const int p = low_end(e), q = high_end(e);
        weights[8 + e] = gv[l].dot(c.u[e] - c.v[l]) / c.sum[l];
        const Vec<T> gu = gv[l] * (c.weights[8 + e] / c.sum[l]), along = c.x[q] - c.x[p];
        const T wp = c.s[p] * c.weights[p], wq = c.s[q] * c.weights[q], t = wp / (wp - wq), t_plain = c.s[p] / (c.s[p] - c.s[q]);
        gx[p] += gu * (1 - t) + g_plain[e] * (1 - t_plain);
        gx[q] += gu * t + g_plain[e] * t_plain;
        T to_p = 0, to_q = 0;
        crossing_backward(wp, wq, gu.dot(along), to_p, to_q);
        weights[p] += to_p * c.s[p], weights[q] += to_q * c.s[q];
        gs[p] += to_p * c.weights[p], gs[q] += to_q * c.weights[q];
        crossing_backward(c.s[p], c.s[q], g_plain[e].dot(along), gs[p], gs[q]);
    }
    for (int k = 0; k < 8; ++k) {
        gx[k].put(corner_gradients + 4 * k);
        corner_gradients[4 * k + 3] = c.held[k] ? T(0) : gs[k];
    }
}

}  // namespace

template <class T> void flexicubes(const FlexiCubesArrays<T>& a) {
    each_chunk(a.n_cells, a.threads, [&](int64_t cell) {
        const Cell<T> c(a, cell);
        for (int l = 0; l < c.loops; ++l) {
            c.v[l].put(a.vertices + 3 * (a.first[cell] + l));
            a.deviations[a.first[cell] + l] = c.deviation[l];
        }
    });
    if (!a.midpoints) return;
    Buffer gammas(sizeof(T) * size_t(a.n_vertices + 1));
    T* gamma = gammas.as<T>();
    spread_gamma(a, gamma);
    each_chunk(a.n_edges, a.threads, [&](int64_t edge) {
        const int32_t* quad = a.quads + 4 * edge;
        const T even = gamma[quad[0]] * gamma[quad[2]], odd = gamma[quad[1]] * gamma[quad[3]], half = T(0.5) / (even + odd);
        Vec<T> v[4];
        for (int q = 0; q < 4; ++q) v[q] = Vec<T>::at(a.vertices + 3 * int64_t(quad[q]));
        ((v[0] + v[2]) * (even * half) + (v[1] + v[3]) * (odd * half)).put(a.vertices + 3 * (a.n_vertices + edge));
    });
}

template <class T> void flexicubes_backward(const FlexiCubesArrays<T>& a, const FlexiCubesGradients<T>& g) {
    Buffer gammas(sizeof(T) * size_t(a.n_vertices + 1)), quad_block(sizeof(QuadGradient<T>) * size_t(a.midpoints ? a.n_edges + 1 : 1));
    T* gamma = gammas.as<T>();
    QuadGradient<T>* quads = quad_block.as<QuadGradient<T>>();
    if (a.midpoints) {
        spread_gamma(a, gamma);
        each_chunk(a.n_edges, a.threads, [&](int64_t edge) {
            const int32_t* quad = a.quads + 4 * edge;
            const T even = gamma[quad[0]] * gamma[quad[2]], odd = gamma[quad[1]] * gamma[quad[3]], inverse = 1 / (even + odd);
            Vec<T> v[4];
            for (int q = 0; q < 4; ++q) v[q] = Vec<T>::at(a.vertices + 3 * int64_t(quad[q]));
            const int64_t at = 3 * (a.n_vertices + edge);
            const Vec<T> incoming = Vec<T>::at(g.vertices + at), across = (v[0] + v[2] - v[1] - v[3]) * T(0.5);
            const T pull = incoming.dot(across) * inverse * inverse;
            quads[edge] = {{even * inverse / 2, odd * inverse / 2}, {pull * odd, -pull * even}};
        });
    }
    Buffer corners(sizeof(T) * 32 * size_t(a.n_cells + 1));
    T* corner_gradients = corners.as<T>();
    each_chunk(a.n_cells, a.threads, [&](int64_t cell) { cell_backward(a, g, gamma, quads, cell, corner_gradients + 32 * cell); });

    const int tasks = int(std::min<int64_t>(8 * a.threads, 1 + a.n_samples / 4096));
    each(tasks, a.threads, [&](int task) {
        const int64_t begin = a.n_samples * task / tasks, end = a.n_samples * (task + 1) / tasks;
        std::fill(g.field + begin, g.field + end, T(0));
        if (g.positions) std::fill(g.positions + 3 * begin, g.positions + 3 * end, T(0));
        // The first cell whose highest corner is not before the range; on to the first whose lowest is behind it.
        int64_t cell = 0;
        for (int64_t length = a.n_cells; length > 0;) {
            const int64_t half = length / 2;
            if (a.corners[8 * (cell + half) + 7] < begin) cell += half + 1, length -= half + 1;
            else length = half;
        }
        for (; cell < a.n_cells && a.corners[8 * cell] < end; ++cell)
            for (int c = 0; c < 8; ++c) {
                const int64_t sample = a.corners[8 * cell + c];
                if (sample < begin || sample >= end) continue;
                const T* from = corner_gradients + 32 * cell + 4 * c;
                g.field[sample] += from[3];
                if (g.positions)
                    for (int k = 0; k < 3; ++k) g.positions[3 * sample + k] += from[k];
            }
    });
}

template void flexicubes(const FlexiCubesArrays<float>&);
template void flexicubes(const FlexiCubesArrays<double>&);
template void flexicubes_backward(const FlexiCubesArrays<float>&, const FlexiCubesGradients<float>&);
template void flexicubes_backward(const FlexiCubesArrays<double>&, const FlexiCubesGradients<double>&);

}  // namespace egregium
