// Front-to-back blending of one tile, and its reverse: the inner loops.
//
// One row of 16 pixels is one vector (or two, or four); all state of a tile lies in L1. In a lane dx is constant for a
// splat, so log2 alpha = q0 + dy (q1 + C dy) costs two multiply-adds a row (dy counts up as a vector: from a scalar it
// would be converted and broadcast in each row, which cost a seventh of the pass), and in the reverse pass geometry needs
// three running sums a lane (g, g dy, g dy²), multiplied by dx and dx² once at the end.
//
// The reverse pass also runs front to back: with S = ∂L/∂image · image the part of the gradient that lies behind
// splat i is S minus what has been passed, so neither the order nor the last splat of a pixel needs to be stored.
#pragma once

#include "simd.h"
#include "splats.h"

namespace ISA {
using namespace egregium;

constexpr int parts = tile / W;  // vectors a row
constexpr int gradient_stride(int channels) { return (6 + channels + 3) / 4 * 4; }

struct alignas(64) TilePlane {
    float at[parts][tile][W];
};

/// A tile of the image: x0, y0 its first pixel, columns × rows its size at the image's border.
struct Tile {
    int x0, y0, columns, rows, width;
    Tile(const SplatScene& s, int index)
        : x0(index % s.tiles_x() * tile), y0(index / s.tiles_x() * tile), columns(min(tile, s.width - x0)), rows(min(tile, s.height - y0)),
          width(s.width) {}
    int64_t pixel(int y) const { return int64_t(y0 + y) * width + x0; }
};

/// Copy a row of `columns` pixels of `channels` floats out of the CH planes, or into them (zeros beyond the row's end).
/// Through a buffer, so that what the compiler sees has fixed sizes: pixel by pixel this was a seventh of the blend.
template <int CH> inline void row_out(const TilePlane* planes, int y, int columns, int channels, float* to) {
    float row[tile][CH];
    for (int x = 0; x < tile; ++x)
        for (int c = 0; c < CH; ++c) row[x][c] = planes[c].at[x / W][y][x % W];
    if (columns == tile && channels == CH) std::memcpy(to, row, sizeof row);
    else
        for (int x = 0; x < columns; ++x) std::memcpy(to + x * channels, row[x], sizeof(float) * size_t(channels));
}
template <int CH> inline void row_in(TilePlane* planes, int y, int columns, int channels, const float* from) {
    float row[tile][CH];
    if (columns == tile && channels == CH) std::memcpy(row, from, sizeof row);
    else {
        std::memset(row, 0, sizeof row);
        for (int x = 0; x < columns; ++x) std::memcpy(row[x], from + x * channels, sizeof(float) * size_t(channels));
    }
    for (int x = 0; x < tile; ++x)
        for (int c = 0; c < CH; ++c) planes[c].at[x / W][y][x % W] = row[x][c];
}

/// Transmittance 1 where there is a pixel to be rendered, 0 (finished) elsewhere. Returns whether there is any.
inline bool start(const SplatScene& s, const Tile& t, TilePlane& T) {
    std::memset(&T, 0, sizeof T);
    bool some = !s.mask;
    for (int y = 0; y < t.rows; ++y)
        for (int x = 0; x < t.columns; ++x) {
            const bool on = !s.mask || s.mask[t.pixel(y) + x];
            T.at[x / W][y][x % W] = on ? 1.0f : 0.0f;
            some |= on;
        }
    return some;
}

/// What shows of the background, from the transmittance: 1 where nothing was rendered. (Rendering leaves some always.)
inline Vf uncovered(Vf T) { return select(lt(splat(0.0f), T), T, splat(1.0f)); }

/// A pair's splat as it is seen from one part of a tile.
struct Row {
    Vf dx, q0, q1, C;
    Row(const float* r, float x0)
        : dx(splat(x0 + 0.5f - r[record::u]) + iota()), q0(r[record::A] * dx * dx + r[record::lo]), q1(r[record::B] * dx),
          C(splat(r[record::C])) {}
    Vf exponent(Vf dy) const { return q0 + dy * (q1 + C * dy); }
};

template <int CH, bool MEDIAN> void blend_tile(const SplatScene& s, const SplatState& state, const SplatImages& out, int index) {
    constexpr int stride = record_stride(CH);
    const Tile tile_(s, index);
    alignas(64) TilePlane T, colour[CH];
    alignas(64) int32_t median[MEDIAN ? parts : 1][MEDIAN ? tile : 1][W];
    std::memset(colour, 0, sizeof colour);
    if (MEDIAN) std::memset(median, 0xff, sizeof median);
    const bool some = start(s, tile_, T);

    const uint32_t begin = state.tile_start[index], end = some ? state.tile_start[index + 1] : begin;
    const Vf cut = splat(log2_smallest_alpha), eps = splat(finished_transmittance), most = splat(largest_alpha);
    uint32_t live[parts];
    for (int part = 0; part < parts; ++part) live[part] = 0xffff;
    for (uint32_t k = begin; k < end; ++k) {
        if (k + 6 < end) __builtin_prefetch(state.records + size_t(state.pairs[k + 6].splat()) * stride);
        const Pair pair = state.pairs[k];
        const float* r = state.records + size_t(pair.splat()) * stride;
        const int row0 = pair.first_row(), row1 = pair.last_row();
        Vf channel[CH];
        for (int c = 0; c < CH; ++c) channel[c] = splat(r[record::channels + c]);
        for (int part = 0; part < parts; ++part) {
            const Row row(r, float(tile_.x0 + part * W));
            Vf dy = splat(float(tile_.y0 + row0) + 0.5f - r[record::v]) - 1.0f;
            for (int y = row0; y <= row1; ++y) {
                dy += 1.0f;
                const Vf before = load(T.at[part][y]);
                const Mask open = ge(before, eps);
                if (!any(open)) {
                    live[part] &= ~(1u << y);
                    continue;
                }
                const Vf p = row.exponent(dy);
                const Mask m = both(open, ge(p, cut));
                const Vf w = keep(m, min(exp2(p), most) * before);
                for (int c = 0; c < CH; ++c) store(colour[c].at[part][y], load(colour[c].at[part][y]) + w * channel[c]);
                const Vf after = before - w;
                store(T.at[part][y], after);
                if (MEDIAN) {
                    const Vf half = splat(0.5f);
                    const Mask crosses = both(lt(half, before), ge(half, after));
                    Vi now;
                    std::memcpy(&now, median[part][y], sizeof now);
                    now = select(crosses, Vi{} + int32_t(pair.splat()), now);
                    std::memcpy(median[part][y], &now, sizeof now);
                }
            }
        }
        uint32_t alive = 0;
        for (int part = 0; part < parts; ++part) alive |= live[part];
        if (!alive) break;
    }

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

/// Writes one row of gradients a pair: the six moments, then the channels; adds to `background_sums` (CH).
template <int CH>
void blend_tile_backward(const SplatScene& s, const SplatState& state, const SplatImages& out, const SplatGradients& g, int index,
                         float* pair_gradients, float* background_sums) {
    constexpr int stride = record_stride(CH), width = gradient_stride(CH);
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

    const uint32_t begin = state.tile_start[index], end = state.tile_start[index + 1];
    const Vf cut = splat(log2_smallest_alpha), eps = splat(finished_transmittance), most = splat(largest_alpha), zero = splat(0.0f);
    uint32_t live[parts];
    for (int part = 0; part < parts; ++part) live[part] = some ? 0xffff : 0;
    uint32_t k = begin;
    for (; k < end; ++k) {
        uint32_t alive = 0;
        for (int part = 0; part < parts; ++part) alive |= live[part];
        if (!alive) break;
        if (k + 6 < end) __builtin_prefetch(state.records + size_t(state.pairs[k + 6].splat()) * stride);
        const Pair pair = state.pairs[k];
        const float* r = state.records + size_t(pair.splat()) * stride;
        const int row0 = pair.first_row(), row1 = pair.last_row();
        Vf sums[width];
        for (int i = 0; i < width; ++i) sums[i] = zero;
        for (int part = 0; part < parts; ++part) {
            const Row row(r, float(tile_.x0 + part * W));
            Vf m0 = zero, m1 = zero, m2 = zero;
            Vf dy = splat(float(tile_.y0 + row0) + 0.5f - r[record::v]) - 1.0f;
            for (int y = row0; y <= row1; ++y) {
                dy += 1.0f;
                const Vf before = load(T.at[part][y]);
                const Mask open = ge(before, eps);
                if (!any(open)) {
                    live[part] &= ~(1u << y);
                    continue;
                }
                const Vf p = row.exponent(dy);
                const Mask m = both(open, ge(p, cut));
                const Vf raw = exp2(p);
                const Vf alpha = keep(m, min(raw, most));
                const Vf w = alpha * before;
                Vf along = zero;
                for (int c = 0; c < CH; ++c) {
                    const Vf gradient = load(incoming[c].at[part][y]);
                    along += gradient * r[record::channels + c];
                    sums[6 + c] += gradient * w;
                }
                const Vf here = w * along;
                const Vf rest = load(behind.at[part][y]) - here;
                store(behind.at[part][y], rest);
                store(T.at[part][y], before - w);
                // dL/d ln alpha; none where alpha is clamped.
                const Vf d = keep(lt(raw, most), here - rest * alpha * reciprocal(1.0f - alpha));
                m0 += d;
                m1 += d * dy;
                m2 += d * (dy * dy);
            }
            sums[0] += m0;
            sums[1] += m0 * row.dx;
            sums[2] += m0 * row.dx * row.dx;
            sums[3] += m1;
            sums[4] += m1 * row.dx;
            sums[5] += m2;
        }
        float* to = pair_gradients + size_t(state.pairs[k].place) * width;
        for (int i = 0; i < width; i += 4) sum4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3], to + i);
    }
    for (; k < end; ++k) std::memset(pair_gradients + size_t(state.pairs[k].place) * width, 0, width * sizeof(float));
}

}  // namespace ISA
