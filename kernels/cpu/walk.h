// The walk over the splats of one tile, front to back, that every pass makes: whom a splat reaches, with which alpha, and
// what light is left behind it.
//
// One row of 16 pixels is one vector (or two, or four); all state of a tile lies in L1. Offsets are taken in (dx, tau),
// tau = dy + shear dx, in which the ellipse is upright: in (dx, dy) the terms of a needle cancel to nothing, and so do the
// moments that other passes need. In a lane dx is constant for a splat, so log2 alpha = q0 + C tau² costs three operations
// a row. dy counts up as a vector: from a scalar it would be converted and broadcast in each row, a seventh of the pass.
// (tau would not do: its steps round, and the same splat would look otherwise a row of tiles further down.)
//
// A pass is a lambda for the pair and, in it, one for the row. All are inlined into the loops here, so that what they
// capture stays in registers.
#pragma once

#include "simd.h"
#include "splats.h"

namespace ISA {
using namespace egregium;

constexpr int parts = tile / W;  // vectors a row

struct alignas(64) TilePlane {
    float at[parts][tile][W];
    float apart[16];  // else planes four apart would share their addresses' last 12 bits, and loads wait for others' stores
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

/// Whether every value of a tile is zero: no weight, nothing to be done. (NaN is a value.)
inline bool idle(const Tile& t, int channels, const float* image) {
    uint32_t found = 0;
    for (int y = 0; y < t.rows; ++y) {
        const float* row = image + t.pixel(y) * channels;
        for (int i = 0; i < t.columns * channels; ++i) {
            uint32_t bits;
            std::memcpy(&bits, row + i, 4);
            found |= bits << 1;  // without the sign
        }
    }
    return found == 0;
}

/// A pair's splat as it is seen from one part of a tile. dy begins a row above the pair's first.
struct Row {
    Vf dx, dy, shift, q0, C;
    INLINED Row(const float* r, const Tile& t, int part, Pair pair)
        : dx(splat(float(t.x0 + part * W) + 0.5f - r[record::u]) + iota()), dy(splat(float(t.y0 + pair.first_row()) + 0.5f - r[record::v]) - 1.0f),
          C(splat(r[record::C])) {
        const float inverse = 1.0f / r[record::C];
        shift = 0.5f * r[record::B] * inverse * dx;
        q0 = r[record::det] * inverse * dx * dx + r[record::lo];
    }
};

/// A pair's rows. Called with visit(y, tau, before, alpha, weight): of those that have an open pixel, weight = alpha before
/// where the splat shows, else both 0; takes the weight off the transmittance.
struct Rows {
    TilePlane& T;
    uint32_t* live;
    int first, last;

    template <class Visit> INLINED void operator()(int part, const Row& row, Visit&& visit) const {
        const Vf cut = splat(log2_smallest_alpha), eps = splat(finished_transmittance), most = splat(largest_alpha);
        Vf dy = row.dy;
        for (int y = first; y <= last; ++y) {
            dy += 1.0f;
            const Vf before = load(T.at[part][y]);
            const Mask open = ge(before, eps);
            if (!any(open)) {
                live[part] &= ~(1u << y);
                continue;
            }
            const Vf tau = dy + row.shift, p = row.q0 + row.C * tau * tau;
            const Vf alpha = keep(both(open, ge(p, cut)), min(exp2(p), most));
            const Vf w = alpha * before;
            visit(y, tau, before, alpha, w);
            store(T.at[part][y], before - w);
        }
    }
};

/// Calls visit(k, pair, record, rows) for the pairs from k to end until no pixel is open; returns where it stopped.
template <int stride, class Visit> INLINED uint32_t walk(const SplatState& state, TilePlane& T, uint32_t k, uint32_t end, Visit&& visit) {
    uint32_t live[parts];
    for (int part = 0; part < parts; ++part) live[part] = 0xffff;
    for (; k < end; ++k) {
        uint32_t alive = 0;
        for (int part = 0; part < parts; ++part) alive |= live[part];
        if (!alive) break;
        if (k + 6 < end) __builtin_prefetch(state.records + size_t(state.pairs[k + 6].splat()) * stride);
        const Pair pair = state.pairs[k];
        visit(k, pair, state.records + size_t(pair.splat()) * stride, Rows{T, live, pair.first_row(), pair.last_row()});
    }
    return k;
}

}  // namespace ISA
