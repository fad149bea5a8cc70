// The exact Gauss-Newton block of each splat: what J^T W J holds of one splat's ten degrees of freedom and its colour.
//
// With f_c = d image_c / d ln alpha of a splat at a pixel, and ln alpha a quadratic of the offset (dx, dy) whose
// coefficients hang on the splat alone, its block is G (sum over pixels of h b bᵀ) Gᵀ: h = sum_c W_c f_c², b the monomials
// of the offset up to degree 2, G (10 x 6) the coefficients' derivatives. So a tile gathers 15 moments of h a pair, and the
// splats do the rest once. Offsets are whitened first, e = Lᵀ (dx, dy) with L Lᵀ the conic: a needle's moments are then of
// order 1 in both directions (raw, they cancel to nothing in float), and since L is lower triangular the first coordinate
// is constant in a lane, as dx is.
#pragma once

#include "blend.h"
#include "project.h"
#include "spherical_harmonics.h"

namespace ISA {

constexpr int unknowns = 10;                             // mean 3, log scale 3, rotation 3, logit of opacity
constexpr int block_size = unknowns * (unknowns + 1) / 2;
constexpr int moments = 15, curvature_stride = 20;       // sums of h s^j t^k, j + k <= 4, k outermost; three of colour
constexpr int first_of_power[5] = {0, 5, 9, 12, 14};     // where those with t^k begin

/// Writes one row a pair: the 15 moments and, a channel, sum W w² with w the blending weight.
inline void blend_tile_curvature(const SplatScene& s, const SplatState& state, const SplatImages& out, const float* weights, int index,
                                 float* rows) {
    constexpr int CH = 3;
    const Tile tile_(s, index);
    alignas(64) TilePlane T, rest[CH], weight[CH];
    const bool some = start(s, tile_, T);
    const int channels = s.channels();
    std::memset(rest, 0, sizeof rest);
    std::memset(weight, 0, sizeof weight);
    for (int y = 0; y < tile_.rows; ++y) {
        const int64_t pixel = tile_.pixel(y);
        row_in<CH>(rest, y, tile_.columns, channels, out.image + pixel * channels);
        row_in<CH>(weight, y, tile_.columns, channels, weights + pixel * channels);
    }
    const float half = 0.5f * log2e;
    const Vf most = splat(largest_alpha), zero = splat(0.0f);
    const uint32_t begin = state.tile_start[index], end = state.tile_start[index + 1];
    uint32_t k = walk<record_stride(CH)>(state, T, begin, some ? end : begin, [&](uint32_t, Pair pair, const float* r, auto&& pair_rows) INLINED_LAMBDA {
        // Lᵀ (dx, dy) = (along dx, steep tau), from the exponent's coefficients.
        const float Z = -r[record::C] / half, steep = __builtin_sqrtf(Z);
        const float along = __builtin_sqrtf(r[record::det] / (half * half * Z));
        Vf sums[curvature_stride];
        for (int i = 0; i < curvature_stride; ++i) sums[i] = zero;
        for (int part = 0; part < parts; ++part) {
            const Row row(r, tile_, part, pair);
            Vf power[5];
            for (int j = 0; j < 5; ++j) power[j] = zero;
            pair_rows(part, row, [&](int y, Vf tau, Vf before, Vf alpha, Vf w) INLINED_LAMBDA {
                const Vf ratio = alpha * reciprocal(1.0f - alpha), w2 = w * w;
                Vf h = zero;
                for (int c = 0; c < CH; ++c) {
                    const Vf W_c = load(weight[c].at[part][y]), left = load(rest[c].at[part][y]);
                    const Vf f = before * r[record::channels + c] - left;  // times alpha / (1 - alpha)
                    store(rest[c].at[part][y], left - w * r[record::channels + c]);
                    h += W_c * f * f;
                    sums[moments + c] += W_c * w2;
                }
                h = keep(lt(alpha, most), h * (ratio * ratio));
                const Vf t = steep * tau, t2 = t * t;
                power[0] += h;
                power[1] += h * t;
                power[2] += h * t2;
                power[3] += h * t2 * t;
                power[4] += h * t2 * t2;
            });
            const Vf e = along * row.dx;
            for (int j = 0; j < 5; ++j) {
                Vf value = power[j];
                for (int i = 0; i + j < 5; ++i) {
                    sums[first_of_power[j] + i] += value;
                    value *= e;
                }
            }
        }
        float* to = rows + size_t(pair.place) * curvature_stride;
        for (int i = 0; i < curvature_stride; i += 4) sum4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3], to + i);
    });
    for (; k < end; ++k) std::memset(rows + size_t(state.pairs[k].place) * curvature_stride, 0, curvature_stride * sizeof(float));
}

/// How ln alpha hangs on the unknowns, W splats at a time: coefficients of 1, s, t, s², st, t² for each, s and t being
/// the whitened offset.
inline void coefficients(const Camera& cam, const SplatScene& s, const Splats& p, const Projected& o, Vf G[unknowns][6]) {
    const Vf along = 1.0f / sqrt(o.a), steep = sqrt(o.a * o.inv_det), slope = -o.raw_b * o.inv_det / steep;
    auto white = [&](Vf x, Vf y, Vf to[2]) { to[0] = along * x, to[1] = slope * x + steep * y; };
    const Mask sound = lt(splat(1e-30f), o.raw_det);
    const Vf inv_raw = 1.0f / select(sound, o.raw_det, splat(1.0f));
    // From the changes of the centre (whitened) and of the covariance: the latter's is x yᵀ + y xᵀ, summed over some x, y.
    struct Change {
        Vf centre[2], K[3], raw[3];
        Change() : centre{splat(0.0f), splat(0.0f)}, K{splat(0.0f), splat(0.0f), splat(0.0f)}, raw{splat(0.0f), splat(0.0f), splat(0.0f)} {}
    };
    auto add = [&](Change& to, Vf x0, Vf x1, Vf y0, Vf y1, Vf factor) {
        Vf x[2], y[2];
        white(x0, x1, x), white(y0, y1, y);
        to.K[0] += 2.0f * factor * x[0] * y[0];
        to.K[1] += factor * (x[0] * y[1] + x[1] * y[0]);
        to.K[2] += 2.0f * factor * x[1] * y[1];
        if (!s.antialiased) return;
        to.raw[0] += 2.0f * factor * x0 * y0;
        to.raw[1] += factor * (x0 * y1 + x1 * y0);
        to.raw[2] += 2.0f * factor * x1 * y1;
    };
    auto finish = [&](const Change& d, Vf g[6]) {
        g[0] = splat(0.0f);
        if (s.antialiased)  // ln o' = ln o + ½ (ln det VVᵀ - ln det(VVᵀ + eps I)), and d ln det Σ = tr Σ⁻¹ dΣ
            g[0] = keep(sound, 0.5f * ((d.raw[0] * o.raw_c - 2.0f * d.raw[1] * o.raw_b + d.raw[2] * o.raw_a) * inv_raw - (d.K[0] + d.K[2])));
        g[1] = d.centre[0], g[2] = d.centre[1];
        g[3] = 0.5f * d.K[0], g[4] = d.K[1], g[5] = 0.5f * d.K[2];
    };
    const Vf zero = splat(0.0f), jx = cam.fx * o.rz, jy = cam.fy * o.rz, tx = o.m[0] * o.rz, ty = o.m[1] * o.rz;
    Vf N[3], towards[3][6];
    for (int k = 0; k < 3; ++k) N[k] = cam.R[6] * o.M[k] + cam.R[7] * o.M[3 + k] + cam.R[8] * o.M[6 + k];
    for (int i = 0; i < 3; ++i) {  // the mean in the camera's frame
        const Vf depth = i == 2 ? o.rz : zero;
        const Vf dtx = i == 0 ? o.rz : i == 2 ? -tx * o.rz : zero, dty = i == 1 ? o.rz : i == 2 ? -ty * o.rz : zero;
        const Vf drx = keep(o.inside_x, dtx), dry = keep(o.inside_y, dty);
        Change d;
        white(cam.fx * dtx, cam.fy * dty, d.centre);
        for (int k = 0; k < 3; ++k)
            add(d, -depth * o.V[k] - jx * drx * N[k], -depth * o.V[3 + k] - jy * dry * N[k], o.V[k], o.V[3 + k], splat(1.0f));
        finish(d, towards[i]);
    }
    for (int j = 0; j < 3; ++j)
        for (int k = 0; k < 6; ++k) G[j][k] = cam.R[j] * towards[0][k] + cam.R[3 + j] * towards[1][k] + cam.R[6 + j] * towards[2][k];
    for (int i = 0; i < 3; ++i) {
        Change d;
        add(d, o.V[i], o.V[3 + i], o.V[i], o.V[3 + i], splat(1.0f));
        finish(d, G[3 + i]);
    }
    Vf A[6];  // J R Rot(q), so that V = A diag(s)
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < 3; ++k) A[3 * i + k] = o.T[3 * i] * o.Q[k] + o.T[3 * i + 1] * o.Q[3 + k] + o.T[3 * i + 2] * o.Q[6 + k];
    for (int i = 0; i < 3; ++i) {  // Q becomes Q (I + [w]x): axis j turns towards k, and k away from j
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        Change d;
        add(d, A[j], A[3 + j], A[k], A[3 + k], (p.scale[j] - p.scale[k]) * (p.scale[j] + p.scale[k]));
        finish(d, G[6 + i]);
    }
    for (int k = 0; k < 6; ++k) G[9][k] = zero;
    G[9][0] = 1.0f - p.opacity;
}

/// The blocks (N, 55) of the splats listed, upper triangles row by row, and the colours' diagonal, shaped as the colours.
inline void curvature_chunk(const Camera& cam, const SplatScene& s, const SplatState& state, const float* rows, float* blocks, float* colors,
                            const uint32_t* list, int count) {
    constexpr int powers[6][2] = {{0, 0}, {1, 0}, {0, 1}, {2, 0}, {1, 1}, {0, 2}};
    const int stride = record_stride(s.channels());
    for (int first = 0; first < count; first += W) {
        const uint32_t* index = list + first;
        const int lanes = min(count - first, W);
        float total[moments][W] = {};
        for (int l = 0; l < lanes; ++l) {
            const size_t i = index[l];
            const float* from = rows + size_t(state.runs[2 * i]) * curvature_stride;
            float row[curvature_stride] = {};
            for (uint32_t k = 0; k < state.runs[2 * i + 1]; ++k, from += curvature_stride)
                for (int c = 0; c < curvature_stride; ++c) row[c] += from[c];
            for (int c = 0; c < moments; ++c) total[c][l] = row[c];
            if (s.sh_degree >= 0) {
                const float* rgb = state.records + i * size_t(stride) + record::channels;
                float n[3], b[16];
                sh_direction(s.means + 3 * i, cam.centre, n);
                sh_basis(s.sh_degree, n[0], n[1], n[2], b);
                float* to = colors + i * 3 * size_t(s.sh_coefficients);
                for (int k = 0; k < s.sh_coefficients; ++k)
                    for (int c = 0; c < 3; ++c) to[3 * k + c] = k < sh_count(s.sh_degree) && rgb[c] > 0 ? b[k] * b[k] * row[moments + c] : 0.0f;
            } else
                for (int c = 0; c < s.color_channels; ++c) colors[i * size_t(s.color_channels) + size_t(c)] = row[moments + c];
        }
        const Splats p = load_splats(s, index, lanes);
        const Projected o = project(cam, s, p);
        Vf G[unknowns][6], H[6][6], found[block_size + 1];
        coefficients(cam, s, p, o, G);
        for (int a = 0; a < 6; ++a)
            for (int b = 0; b < 6; ++b) H[a][b] = load(total[first_of_power[powers[a][1] + powers[b][1]] + powers[a][0] + powers[b][0]]);
        int at = 0;
        for (int a = 0; a < unknowns; ++a) {
            Vf half[6];
            for (int k = 0; k < 6; ++k) {
                half[k] = splat(0.0f);
                for (int j = 0; j < 6; ++j) half[k] += G[a][j] * H[j][k];
            }
            for (int b = a; b < unknowns; ++b, ++at) {
                Vf value = splat(0.0f);
                for (int k = 0; k < 6; ++k) value += half[k] * G[b][k];
                if (b == a) value = max(value, splat(0.0f));  // rounding
                found[at] = keep(o.visible, value);
            }
        }
        found[block_size] = splat(0.0f);
        // Eight at a time: one by one, lane by lane, they cost as much as all else here.
        float block[W][block_size + 1];
        for (int k = 0; k < block_size; k += 8) store8(found + k, block[0] + k, block_size + 1);
        for (int l = 0; l < lanes; ++l) std::memcpy(blocks + size_t(index[l]) * block_size, block[l], sizeof(float) * block_size);
    }
}

}  // namespace ISA
