// Front-to-back blending of one tile, and its reverse.
//
// The reverse pass also runs front to back: with S = ∂L/∂image · image the part of the gradient that lies behind
// splat i is S minus what has been passed, so neither the order nor the last splat of a pixel needs to be stored.
// Geometry needs three running sums a lane (g, g tau, g tau²), multiplied by dx and dx² once at the end.
#pragma once

#include "walk.h"

namespace ISA {

constexpr int gradient_stride(int channels) { return (6 + channels + 3) / 4 * 4; }

template <int CH, bool MEDIAN> void blend_tile(const SplatScene& s, const SplatState& state, const SplatImages& out, int index) {
    const Tile tile_(s, index);
    alignas(64) TilePlane T, colour[CH];
    alignas(64) int32_t median[MEDIAN ? parts : 1][MEDIAN ? tile : 1][W];
    std::memset(colour, 0, sizeof colour);
    if (MEDIAN) std::memset(median, 0xff, sizeof median);
    const bool some = start(s, tile_, T);

    const uint32_t begin = state.tile_start[index], end = some ? state.tile_start[index + 1] : begin;
    walk<record_stride(CH)>(state, T, begin, end, [&](uint32_t, Pair pair, const float* r, auto&& rows) INLINED_LAMBDA {
        Vf channel[CH];
        for (int c = 0; c < CH; ++c) channel[c] = splat(r[record::channels + c]);
        for (int part = 0; part < parts; ++part)
            rows(part, Row(r, tile_, part, pair), [&](int y, Vf, Vf before, Vf, Vf w) INLINED_LAMBDA {
                for (int c = 0; c < CH; ++c) store(colour[c].at[part][y], load(colour[c].at[part][y]) + w * channel[c]);
                if (MEDIAN) {
                    const Vf half = splat(0.5f);
                    const Mask crosses = both(lt(half, before), ge(half, before - w));
                    Vi now;
                    std::memcpy(&now, median[part][y], sizeof now);
                    now = select(crosses, Vi{} + int32_t(pair.splat()), now);
                    std::memcpy(median[part][y], &now, sizeof now);
                }
            });
    });

    for (int y = 0; y < tile_.rows; ++y) {
        for (int part = 0; part < parts; ++part) {
            const Vf left = uncovered(load(T.at[part][y]));
            store(T.at[part][y], 1.0f - left);  // alpha from here on
            if (s.background)
                for (int c = 0; c < s.channels(); ++c) store(colour[c].at[part][y], load(colour[c].at[part][y]) + left * s.background[c]);
        }
        const int64_t pixel = tile_.pixel(y);
        row_out<CH>(colour, y, tile_.columns, s.channels(), out.image + pixel * s.channels());
        row_out<1>(&T, y, tile_.columns, 1, out.alpha + pixel);
        if (MEDIAN && out.median)
            for (int x = 0; x < tile_.columns; ++x) out.median[pixel + x] = median[x / W][y][x % W];
    }
}

/// Sums of g = dL / d ln alpha over a part's rows, in each lane, and what they add to a pair's moments.
struct Moments {
    Vf m0 = splat(0.0f), m1 = splat(0.0f), m2 = splat(0.0f);
    INLINED void add(Vf g, Vf tau) {
        m0 += g;
        m1 += g * tau;
        m2 += g * (tau * tau);
    }
    INLINED void into(Vf* sums, Vf dx) const {
        sums[0] += m0;
        sums[1] += m0 * dx;
        sums[2] += m0 * dx * dx;
        sums[3] += m1;
        sums[4] += m1 * dx;
        sums[5] += m2;
    }
};

/// A pair's row of gradients: the six moments of g (of 1, dx, dx², tau, tau dx, tau²), then the channels'.
template <int CH> struct PairSums {
    Vf at[gradient_stride(CH)];
    INLINED PairSums() {
        for (int i = 0; i < gradient_stride(CH); ++i) at[i] = splat(0.0f);
    }
    INLINED void write(float* to) const {
        for (int i = 0; i < gradient_stride(CH); i += 4) sum4(at[i], at[i + 1], at[i + 2], at[i + 3], to + i);
    }
};

/// The reverse walk: writes PairSums, one row a pair. T: transmittance 1 where a pixel is rendered, else 0, and so are `incoming` (dL/dimage) and
/// `behind` (its product with what has yet to come, the whole image). Both are used up.
template <int CH>
INLINED void reverse_tile(const SplatState& state, const Tile& tile_, int index, TilePlane& T, TilePlane& behind, const TilePlane* incoming, bool some,
                          float* pair_gradients) {
    constexpr int width = gradient_stride(CH);
    const uint32_t begin = state.tile_start[index], end = state.tile_start[index + 1];
    uint32_t k = walk<record_stride(CH)>(state, T, begin, some ? end : begin, [&](uint32_t, Pair pair, const float* r, auto&& rows) INLINED_LAMBDA {
        const Vf most = splat(largest_alpha);
        PairSums<CH> sums;
        for (int part = 0; part < parts; ++part) {
            const Row row(r, tile_, part, pair);
            Moments moments;
            rows(part, row, [&](int y, Vf tau, Vf before, Vf alpha, Vf w) INLINED_LAMBDA {
                Vf along = splat(0.0f);
                for (int c = 0; c < CH; ++c) {
                    const Vf gradient = load(incoming[c].at[part][y]);
                    along += gradient * r[record::channels + c];
                    sums.at[6 + c] += gradient * w;
                }
                const Vf left = load(behind.at[part][y]);
                store(behind.at[part][y], left - w * along);
                // dL/d ln alpha; none where alpha is clamped.
                moments.add(keep(lt(alpha, most), (before * along - left) * (alpha * reciprocal(1.0f - alpha))), tau);
            });
            moments.into(sums.at, row.dx);
        }
        sums.write(pair_gradients + size_t(pair.place) * width);
    });
    for (; k < end; ++k) std::memset(pair_gradients + size_t(state.pairs[k].place) * width, 0, width * sizeof(float));
}

/// Writes one row of gradients a pair, as reverse_tile; adds to `background_sums` (CH).
template <int CH>
void blend_tile_backward(const SplatScene& s, const SplatState& state, const SplatImages& out, const SplatGradients& g, int index,
                         float* pair_gradients, float* background_sums) {
    const Tile tile_(s, index);
    alignas(64) TilePlane T, behind, incoming[CH];
    const bool some = start(s, tile_, T);
    const int channels = s.channels();
    alignas(64) TilePlane image[CH], alpha, alpha_gradient;
    Vf background[CH];
    for (int c = 0; c < CH; ++c) background[c] = splat(0.0f);
    std::memset(&behind, 0, sizeof behind);
    if (!g.alpha) std::memset(&alpha_gradient, 0, sizeof alpha_gradient);
    for (int y = 0; y < tile_.rows; ++y) {
        const int64_t pixel = tile_.pixel(y);
        row_in<CH>(incoming, y, tile_.columns, channels, g.image + pixel * channels);
        row_in<CH>(image, y, tile_.columns, channels, out.image + pixel * channels);
        row_in<1>(&alpha, y, tile_.columns, 1, out.alpha + pixel);
        if (g.alpha) row_in<1>(&alpha_gradient, y, tile_.columns, 1, g.alpha + pixel);
        for (int part = 0; part < parts; ++part) {
            const Vf left = 1.0f - load(alpha.at[part][y]);
            const Mask on = lt(splat(0.0f), load(T.at[part][y]));
            Vf total = -left * load(alpha_gradient.at[part][y]);
            for (int c = 0; c < CH; ++c) {
                const Vf gradient = load(incoming[c].at[part][y]);
                total += gradient * load(image[c].at[part][y]);
                background[c] += left * gradient;
                store(incoming[c].at[part][y], keep(on, gradient));
            }
            store(behind.at[part][y], keep(on, total));
        }
    }
    for (int c = 0; c < channels; ++c) background_sums[c] = sum(background[c]);
    reverse_tile<CH>(state, tile_, index, T, behind, incoming, some, pair_gradients);
}

}  // namespace ISA
