// Forward mode: how the image changes along a step p of the unknowns, J p, and with its reverse J^T W J p.
//
// A step changes ln alpha of a splat by a quadratic of the offset and its colour by a constant: one tangent a splat, from
// one derivative of the projection along the step (the twin of project_backward, whose adjoint it is). In a tile the walk
// carries the change of T beside T, and w = alpha T:
//
//   dw = alpha (T d ln alpha + dT),   d image += dw colour + w d colour,   dT -= dw
//
// J^T W J p does both walks of a tile while its alphas are in the cache: the first keeps them, and the second goes back to
// front through what was kept. With the light known, that needs neither an exponential nor the image: behind a splat lies
// B = Σ u · colour, u = W J p, seen as if it were alone,
//
//   dL / d ln alpha = w (u · colour - B),   B += alpha (u · colour - B),   T /= 1 - alpha
#pragma once

#include "blend.h"
#include "project.h"
#include "spherical_harmonics.h"

namespace ISA {

/// A splat's tangent, strided as its record: d ln alpha = c0 + c1 dx + c2 dx² + tau (c3 + c4 dx + c5 tau), then d colour.
namespace tangent {
enum { c0, c1, c2, c3, c4, c5, channels = record::channels };
}

/// A step of the camera: viewmat becomes exp([turn, shift]) viewmat, then the intrinsics in pixels.
struct CameraStep {
    float turn[3] = {}, shift[3] = {}, fx = 0, fy = 0, cx = 0, cy = 0;
    explicit CameraStep(const float* from) {
        if (from) std::memcpy(this, from, sizeof *this);
    }
};

/// The change of ln alpha of W splats along a step of their unknowns (mean, ln scale, turn, logit) and of the camera.
inline void project_tangent(const Camera& cam, const SplatScene& s, const Splats& p, const Projected& o, const Vf step[10], const CameraStep& e, Vf to[6]) {
    Vf m[3], turned[9];  // the mean in the camera's frame and R, changes of both
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        m[i] = cam.R[3 * i] * step[0] + cam.R[3 * i + 1] * step[1] + cam.R[3 * i + 2] * step[2] + (e.turn[j] * o.m[k] - e.turn[k] * o.m[j]) + e.shift[i];
        for (int c = 0; c < 3; ++c) turned[3 * i + c] = splat(e.turn[j] * cam.R[3 * k + c] - e.turn[k] * cam.R[3 * j + c]);
    }
    const Vf jx = cam.fx * o.rz, jy = cam.fy * o.rz, tx = o.m[0] * o.rz, ty = o.m[1] * o.rz;
    const Vf dtx = (m[0] - tx * m[2]) * o.rz, dty = (m[1] - ty * m[2]) * o.rz;
    const Vf du = cam.fx * dtx + e.fx * tx + e.cx, dv = cam.fy * dty + e.fy * ty + e.cy;
    const Vf drx = keep(o.inside_x, dtx), dry = keep(o.inside_y, dty);
    const Vf djx = (e.fx - jx * m[2]) * o.rz, djy = (e.fy - jy * m[2]) * o.rz;
    Vf T[6], A[6], V[6];  // changes of J R and V; A = J R Rot(q), whose columns a turn of the splat mixes
    for (int c = 0; c < 3; ++c) {
        T[c] = djx * (cam.R[c] - o.rx * cam.R[6 + c]) + jx * (turned[c] - o.rx * turned[6 + c] - drx * cam.R[6 + c]);
        T[3 + c] = djy * (cam.R[3 + c] - o.ry * cam.R[6 + c]) + jy * (turned[3 + c] - o.ry * turned[6 + c] - dry * cam.R[6 + c]);
    }
    for (int i = 0; i < 6; i += 3)
        for (int k = 0; k < 3; ++k) A[i + k] = o.T[i] * o.Q[k] + o.T[i + 1] * o.Q[3 + k] + o.T[i + 2] * o.Q[6 + k];
    for (int i = 0; i < 6; i += 3)
        for (int k = 0; k < 3; ++k) {
            const int l = (k + 1) % 3, n = (k + 2) % 3;
            V[i + k] = T[i] * o.M[k] + T[i + 1] * o.M[3 + k] + T[i + 2] * o.M[6 + k] + o.V[i + k] * step[3 + k] +
                       p.scale[k] * (A[i + l] * step[6 + n] - A[i + n] * step[6 + l]);
        }
    // Whitened, as in project_backward: ln alpha changes by e · Lᵀ d(u, v) + ½ eᵀ Lᵀ dΣ L e, e = (along dx, steep tau).
    const Vf along = 1.0f / sqrt(o.a), steep = sqrt(o.a * o.inv_det), slope = -o.raw_b * o.inv_det / steep;
    Vf ss = splat(0.0f), st = ss, tt = ss;
    for (int k = 0; k < 3; ++k) {
        const Vf x0 = along * o.V[k], x1 = slope * o.V[k] + steep * o.V[3 + k], y0 = along * V[k], y1 = slope * V[k] + steep * V[3 + k];
        ss += x0 * y0, st += x0 * y1 + x1 * y0, tt += x1 * y1;
    }
    to[tangent::c0] = (1.0f - p.opacity) * step[9];
    if (s.antialiased) {
        const Mask positive = lt(splat(1e-30f), o.raw_det);
        Vf n[3], change = splat(0.0f);  // of det VVᵀ / 2 = |n|² / 2
        normal(o.V, n);
        for (int j = 0; j < 3; ++j) {
            const int k = (j + 1) % 3, l = (j + 2) % 3;
            change += V[j] * (o.V[3 + k] * n[l] - o.V[3 + l] * n[k]) + V[3 + j] * (n[k] * o.V[l] - n[l] * o.V[k]);
        }
        to[tangent::c0] += keep(positive, change / select(positive, o.raw_det, splat(1.0f)) - (ss + tt));
    }
    to[tangent::c1] = along * (along * du);
    to[tangent::c2] = along * along * ss;
    to[tangent::c3] = steep * (slope * du + steep * dv);
    to[tangent::c4] = along * steep * st;
    to[tangent::c5] = steep * steep * tt;
}

/// The tangents of the splats listed, strided as their records.
inline void tangent_chunk(const Camera& cam, const SplatScene& s, const SplatState& state, const SplatStep& step, const uint32_t* list, int count, float* tangents) {
    const int stride = record_stride(s.channels());
    const CameraStep e(step.camera);
    float eye[3];  // the negated change of the camera's centre
    for (int j = 0; j < 3; ++j) eye[j] = cam.R[j] * e.shift[0] + cam.R[3 + j] * e.shift[1] + cam.R[6 + j] * e.shift[2];
    for (int i = 0; i < count; i += W) {
        const uint32_t* index = list + i;
        const int lanes = min(count - i, W);
        const Splats p = load_splats(s, index, lanes);
        Vf along[10], change[6];
        for (int k = 0; k < 10; ++k) along[k] = splat(0.0f);
        if (step.geometry) transpose_in<10>(step.geometry, index, lanes, along);
        project_tangent(cam, s, p, project(cam, s, p), along, e, change);
        for (int l = 0; l < lanes; ++l) {
            float* to = tangents + size_t(index[l]) * size_t(stride);
            std::memset(to, 0, sizeof(float) * size_t(stride));
            for (int k = 0; k < 6; ++k) to[k] = change[k][l];
            to += tangent::channels;
            const size_t size = s.sh_degree >= 0 ? 3 * size_t(s.sh_coefficients) : size_t(s.color_channels);
            const float* colors = step.colors ? step.colors + index[l] * size : nullptr;
            if (s.sh_degree >= 0) {
                const float* rgb = state.records + size_t(index[l]) * size_t(stride) + record::channels;
                float moved[3];
                for (int k = 0; k < 3; ++k) moved[k] = eye[k] + along[k][l];
                sh_tangent(s.sh_degree, s.means + 3 * size_t(index[l]), cam.centre, s.colors + index[l] * size, rgb, colors, moved, to);
            } else if (colors)
                for (int c = 0; c < s.color_channels; ++c) to[c] = colors[c];
        }
    }
}

/// The alphas of a tile, row by row, as the walk came upon them, and which rows of each pair those are.
struct Kept {
    uint16_t* seen = nullptr;  // (pairs, parts)
    float *next = nullptr, *end = nullptr;
    uint32_t pairs = 0;        // that were walked
    bool whole = false;        // all had room

    /// Of a tile of n pairs, in `bytes` bytes.
    Kept(char* block, int64_t bytes, uint32_t n) {
        const int64_t table = (int64_t(n) * parts * int64_t(sizeof(uint16_t)) + 63) / 64 * 64;
        if (table > bytes) return;
        seen = reinterpret_cast<uint16_t*>(block);
        next = reinterpret_cast<float*>(block + table);
        end = next + (bytes - table) / int64_t(sizeof(float));
        whole = true;
    }
};

/// J p of one tile into the planes `change`. T and some as of start(); T is used up. Keeps what has room if KEEP.
template <int CH, bool KEEP>
INLINED void tangent_tile(const SplatScene& s, const SplatState& state, const float* tangents, const Tile& tile_, int index, TilePlane& T, bool some,
                          TilePlane* change, Kept* kept) {
    constexpr int stride = record_stride(CH);
    alignas(64) TilePlane dimmed;  // the change of T
    std::memset(&dimmed, 0, sizeof dimmed);
    std::memset(change, 0, sizeof(TilePlane) * CH);
    const uint32_t begin = state.tile_start[index], end = some ? state.tile_start[index + 1] : begin;
    bool keeping = KEEP && kept->whole;
    float* next = KEEP ? kept->next : nullptr;
    const uint32_t stopped = walk<stride>(state, T, begin, end, [&](uint32_t k, Pair pair, const float* r, auto&& rows) INLINED_LAMBDA {
        if (k + 6 < end) __builtin_prefetch(tangents + size_t(state.pairs[k + 6].splat()) * stride);
        const float* d = tangents + size_t(pair.splat()) * stride;
        const Vf most = splat(largest_alpha);
        if (KEEP) keeping = keeping && kept->end - next >= tile * tile;
        Vf colour[CH], colour_change[CH];
        for (int c = 0; c < CH; ++c) colour[c] = splat(r[record::channels + c]), colour_change[c] = splat(d[tangent::channels + c]);
        for (int part = 0; part < parts; ++part) {
            const Row row(r, tile_, part, pair);
            const Vf k0 = d[tangent::c0] + row.dx * (d[tangent::c1] + d[tangent::c2] * row.dx);
            const Vf k1 = d[tangent::c3] + d[tangent::c4] * row.dx, k2 = splat(d[tangent::c5]);
            uint32_t seen = 0;
            rows(part, row, [&](int y, Vf tau, Vf before, Vf alpha, Vf w) INLINED_LAMBDA {
                const Vf here = keep(lt(alpha, most), k0 + tau * (k1 + k2 * tau));
                const Vf light = load(dimmed.at[part][y]), more = alpha * (before * here + light);
                for (int c = 0; c < CH; ++c) store(change[c].at[part][y], load(change[c].at[part][y]) + more * colour[c] + w * colour_change[c]);
                store(dimmed.at[part][y], light - more);
                if (KEEP && keeping) {
                    store(next, alpha);
                    next += W;
                    seen |= 1u << y;
                }
            });
            if (KEEP && keeping) kept->seen[size_t(k - begin) * parts + size_t(part)] = uint16_t(seen);
        }
    });
    if (KEEP) kept->whole = keeping, kept->pairs = stopped - begin, kept->next = next;
    if (!s.background) return;
    for (int part = 0; part < parts; ++part)
        for (int y = 0; y < tile; ++y) {
            const Vf light = load(dimmed.at[part][y]);
            for (int c = 0; c < s.channels(); ++c) store(change[c].at[part][y], load(change[c].at[part][y]) + light * s.background[c]);
        }
}

/// The reverse walk of what was kept, back to front; T as the first walk left it, `behind` the background's B. Used up.
template <int CH>
INLINED void reverse_kept(const SplatState& state, const Tile& tile_, int index, TilePlane& T, TilePlane& behind, const TilePlane* incoming, const Kept& kept,
                          float* pair_gradients) {
    constexpr int stride = record_stride(CH), width = gradient_stride(CH);
    const Vf most = splat(largest_alpha);
    const uint32_t begin = state.tile_start[index], end = state.tile_start[index + 1];
    for (uint32_t k = begin + kept.pairs; k < end; ++k) std::memset(pair_gradients + size_t(state.pairs[k].place) * width, 0, width * sizeof(float));
    const float* from = kept.next;
    for (uint32_t k = begin + kept.pairs; k-- > begin;) {
        if (k >= begin + 6) __builtin_prefetch(state.records + size_t(state.pairs[k - 6].splat()) * stride);
        const Pair pair = state.pairs[k];
        const float* r = state.records + size_t(pair.splat()) * stride;
        PairSums<CH> sums;
        for (int part = parts; part-- > 0;) {
            const Row row(r, tile_, part, pair);
            const uint32_t seen = kept.seen[size_t(k - begin) * parts + size_t(part)];
            Moments moments;
            Vf dy = row.dy + float(pair.last_row() - pair.first_row() + 2);
            for (int y = pair.last_row(); y >= pair.first_row(); --y) {
                dy -= 1.0f;
                if (!(seen >> y & 1)) continue;
                from -= W;
                const Vf alpha = load(from), before = load(T.at[part][y]) * reciprocal(1.0f - alpha), w = alpha * before;
                store(T.at[part][y], before);
                Vf along = splat(0.0f);
                for (int c = 0; c < CH; ++c) {
                    const Vf gradient = load(incoming[c].at[part][y]);
                    along += gradient * r[record::channels + c];
                    sums.at[6 + c] += gradient * w;
                }
                const Vf rest = load(behind.at[part][y]), more = along - rest;
                store(behind.at[part][y], rest + alpha * more);
                moments.add(keep(lt(alpha, most), w * more), dy + row.shift);
            }
            moments.into(sums.at, row.dx);
        }
        sums.write(pair_gradients + size_t(pair.place) * width);
    }
}

/// J p of one tile, into the image `change`.
template <int CH> void jvp_tile(const SplatScene& s, const SplatState& state, const float* tangents, int index, float* change) {
    const Tile tile_(s, index);
    alignas(64) TilePlane T, planes[CH];
    const bool some = start(s, tile_, T);
    tangent_tile<CH, false>(s, state, tangents, tile_, index, T, some, planes, nullptr);
    for (int y = 0; y < tile_.rows; ++y) row_out<CH>(planes, y, tile_.columns, s.channels(), change + tile_.pixel(y) * s.channels());
}

/// J^T W J p of one tile: rows of gradients as of reverse_tile. `block`: `bytes` bytes of scratch.
template <int CH>
void gauss_newton_tile(const SplatScene& s, const SplatState& state, const SplatImages& out, const float* tangents, const float* weights, int index, char* block,
                       int64_t bytes, float* pair_gradients) {
    const Tile tile_(s, index);
    const int channels = s.channels();
    alignas(64) TilePlane T, behind, change[CH], image[CH], weight[CH];
    const bool some = start(s, tile_, T);
    Kept kept(block, bytes, state.tile_start[index + 1] - state.tile_start[index]);
    tangent_tile<CH, true>(s, state, tangents, tile_, index, T, some, change, &kept);
    std::memset(weight, 0, sizeof weight);
    for (int y = 0; y < tile_.rows; ++y) row_in<CH>(weight, y, tile_.columns, channels, weights + tile_.pixel(y) * channels);
    if (!kept.whole) {
        start(s, tile_, T);
        std::memset(image, 0, sizeof image);
        for (int y = 0; y < tile_.rows; ++y) row_in<CH>(image, y, tile_.columns, channels, out.image + tile_.pixel(y) * channels);
    }
    for (int part = 0; part < parts; ++part)
        for (int y = 0; y < tile; ++y) {
            const Mask on = lt(splat(0.0f), load(T.at[part][y]));
            Vf total = splat(0.0f);
            for (int c = 0; c < CH; ++c) {
                const Vf u = keep(on, load(weight[c].at[part][y]) * load(change[c].at[part][y]));
                if (!kept.whole) total += u * load(image[c].at[part][y]);
                else if (s.background && c < channels) total += u * s.background[c];
                store(change[c].at[part][y], u);
            }
            store(behind.at[part][y], total);
        }
    if (kept.whole) reverse_kept<CH>(state, tile_, index, T, behind, change, kept, pair_gradients);
    else reverse_tile<CH>(state, tile_, index, T, behind, change, some, pair_gradients);
}

}  // namespace ISA
