// Which splats touch which tiles, front to back.
//
// A splat touches the pixels where Q(dx, dy) = a dx² + 2b dx dy + c dy² <= t. The ellipse cut by a band of rows (or
// columns) is convex, so its extent there is an interval: each pair is exact, none is dropped and none is wasted
// (square 3-sigma boxes cost 2.1-2.7 times as much in the blend). Depth order comes from one global radix sort;
// a counting sort by tile over contiguous chunks of that order keeps it, for any number of threads.
#pragma once

#include "growing.h"
#include "pool.h"
#include "simd.h"
#include "splats.h"

namespace ISA {
using namespace egregium;

constexpr float slack = 1e-3f;  // pixels: the blend's own rounding must never find a pixel that the bounds missed

/// Tiles that a splat touches: rows y0 to y1, which columns in the first and in the last of them, and how many in these
/// two. Most splats have no other rows, so these are found W splats at a time. A splat of one row has an empty last
/// one, first1 = last1 + 1. None if y0 > y1.
struct alignas(16) Box {
    uint16_t y0, y1, first0, last0, first1, last1;
    uint32_t tiles;
};

/// The ellipse of a record, and the points where it reaches furthest right (at y = ys) and furthest down (at x = xs).
template <class F> struct Ellipse {
    F u, v, a, b, c, t, det, half_x, half_y, xs, ys;

    Ellipse(F u_, F v_, F A, F B, F C, F lo, F det_)
        : u(u_), v(v_), a(-A), b(-0.5f * B), c(-C), t(lo - log2_smallest_alpha), det(det_) {
        half_x = root(t * c / det);
        half_y = root(t * a / det);
        xs = -b / a * half_y;
        ys = -b / c * half_x;
    }
    static float root(float x) { return __builtin_sqrtf(x < 1e16f ? x : 1e16f); }
    static Vf root(Vf x) { return sqrt(min(x, splat(1e16f))); }
    static float from_below(float x) { return x > 0 ? x : 0; }
    static Vf from_below(Vf x) { return max(x, splat(0.0f)); }

    /// Leftmost and rightmost points within the rows [y0, y1] (relative to v): the ellipse cut by a band is convex, so
    /// each lies where the whole ellipse's does, or at the border next to that.
    void columns(F y0, F y1, F& left, F& right) const {
        const F yl = min(max(-ys, y0), y1), yr = min(max(ys, y0), y1);
        left = u + (-b * yl - root(from_below(a * t - det * yl * yl))) / a;
        right = u + (-b * yr + root(from_below(a * t - det * yr * yr))) / a;
    }
    void rows(F x0, F x1, F& top, F& bottom) const {
        const F xu = min(max(-xs, x0), x1), xd = min(max(xs, x0), x1);
        top = v + (-b * xu - root(from_below(c * t - det * xu * xu))) / c;
        bottom = v + (-b * xd + root(from_below(c * t - det * xd * xd))) / c;
    }
};

inline Ellipse<float> ellipse(const float* r) {
    return {r[record::u], r[record::v], r[record::A], r[record::B], r[record::C], r[record::lo], r[record::det]};
}

/// First and last pixel whose centres lie in [low, high], cut to [first, last]; empty where out_lo > out_hi.
inline void centres(Vf low, Vf high, float first, float last, Vf& out_lo, Vf& out_hi) {
    out_lo = max(ceil(min(low - (0.5f + slack), splat(last + 1))), splat(first));
    out_hi = min(floor(max(high - (0.5f - slack), splat(first - 1))), splat(last));
}

/// Stable least-significant-digit radix sort of `n` keys by their upper 32 bits (positive floats). Sorted keys end in
/// the array that is returned: `keys` or `spare`.
inline uint64_t* radix_sort(uint64_t* keys, uint64_t* spare, int64_t n, int chunks, int threads) {
    constexpr int bits = 11, buckets = 1 << bits;
    Buffer counts_block(sizeof(uint32_t) * buckets * size_t(chunks));
    uint32_t* counts = counts_block.as<uint32_t>();
    for (int shift = 32; shift < 64; shift += bits) {
        auto from = [&](int chunk) { return n * chunk / chunks; };
        each(chunks, threads, [&](int chunk) {
            uint32_t* count = counts + size_t(chunk) * buckets;
            std::memset(count, 0, sizeof(uint32_t) * buckets);
            for (int64_t i = from(chunk); i < from(chunk + 1); ++i) ++count[(keys[i] >> shift) & (buckets - 1)];
        });
        uint32_t total = 0;
        bool one_bucket = false;
        for (int b = 0; b < buckets; ++b) {
            const uint32_t before = total;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                uint32_t& count = counts[size_t(chunk) * buckets + b];
                const uint32_t here = count;
                count = total;
                total += here;
            }
            one_bucket |= int64_t(total - before) == n;
        }
        if (one_bucket) continue;
        each(chunks, threads, [&](int chunk) {
            uint32_t* next = counts + size_t(chunk) * buckets;
            for (int64_t i = from(chunk); i < from(chunk + 1); ++i) spare[next[(keys[i] >> shift) & (buckets - 1)]++] = keys[i];
        });
        uint64_t* swap = keys;
        keys = spare;
        spare = swap;
    }
    return keys;
}

/// An interval of tiles in one row of tiles.
struct Span {
    uint16_t first, last;
};

/// Fill runs, tile_start and pairs. `keys` are the `n` visible splats, depth << 32 | splat, with room for as
/// many again in `spare`; `boxes` are all splats'.
inline void make_pairs(const SplatScene& s, SplatState& state, Box* boxes, uint64_t* keys, uint64_t* spare, int64_t n, AllocatePairs allocate,
                       void* context) {
    const int stride = record_stride(s.channels()), tiles_x = s.tiles_x(), tiles_y = s.tiles_y();
    const size_t row = size_t(tiles_x) + 1;  // of a table of differences: one more than there are columns
    constexpr int most_chunks = 64;
    // Waking threads costs as much as sorting some ten thousand splats.
    const int chunks = n < 4096 ? 1 : min(most_chunks, s.threads);
    keys = radix_sort(keys, spare, n, chunks, s.threads);
    auto from = [&](int chunk) { return n * chunk / chunks; };

    // How many of a chunk's splats touch each tile: a splat adds one where its span begins and takes one where it
    // ends, whatever its length; sums along the rows make that the counts.
    Buffer counts_block(sizeof(uint32_t) * row * size_t(tiles_y) * size_t(chunks));
    auto counts = [&](int chunk) { return counts_block.as<uint32_t>() + size_t(chunk) * row * size_t(tiles_y); };
    Growing<Span> middle[most_chunks];  // what lies between splats' first and last rows of tiles
    each(chunks, s.threads, [&](int chunk) {
        uint32_t* count = counts(chunk);
        std::memset(count, 0, sizeof(uint32_t) * row * size_t(tiles_y));
        auto touch = [&](int y, int first, int last) {
            uint32_t* at = count + size_t(y) * row;
            ++at[first];
            --at[last + 1];
        };
        for (int64_t k = from(chunk); k < from(chunk + 1); ++k) {
            if (k + 32 < n) {
                __builtin_prefetch(boxes + uint32_t(keys[k + 32]));
                const uint32_t ahead = uint32_t(keys[k + 16]);
                if (boxes[ahead].y1 > boxes[ahead].y0 + 1) __builtin_prefetch(state.records + size_t(ahead) * stride);
            }
            const uint32_t splat = uint32_t(keys[k]);
            Box& box = boxes[splat];
            touch(box.y0, box.first0, box.last0);
            touch(box.y1, box.first1, box.last1);
            if (box.y1 < box.y0 + 2) continue;
            const Ellipse<float> e = ellipse(state.records + int64_t(splat) * stride);
            for (int y = box.y0 + 1; y < box.y1; ++y) {
                const float top = float(y * tile) + 0.5f - e.v;
                float left, right;
                e.columns(top, top + float(tile - 1), left, right);
                left = max(left - (0.5f + slack), 0.0f);
                right = min(right - (0.5f - slack), float(s.width - 1));
                Span span{1, 0};  // none: that part of the ellipse lies beside the image
                if (left <= right) span = {uint16_t(int(left) / tile), uint16_t(int(right) / tile)};
                middle[chunk].push(span);
                touch(y, span.first, span.last);
                box.tiles += uint32_t(span.last - span.first + 1);
            }
        }
        for (int y = 0; y < tiles_y; ++y)
            for (int x = 1; x < tiles_x; ++x) count[size_t(y) * row + size_t(x)] += count[size_t(y) * row + size_t(x) - 1];
    });
    uint32_t next = 0;
    int64_t total = 0;
    for (int y = 0; y < tiles_y; ++y)
        for (int x = 0; x < tiles_x; ++x) {
            state.tile_start[y * tiles_x + x] = next;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                uint32_t& count = counts(chunk)[size_t(y) * row + size_t(x)];
                const uint32_t here = count;
                count = next;
                next += here;
                total += here;
            }
        }
    state.tile_start[tiles_x * tiles_y] = next;
    allocate(context, total, state);
    uint32_t place = 0;
    for (int64_t i = 0; i < s.n; ++i) {
        const uint32_t tiles = boxes[i].tiles;
        state.runs[2 * i] = place;
        state.runs[2 * i + 1] = tiles;
        place += tiles;
    }

    each(chunks, s.threads, [&](int chunk) {
        uint32_t* count = counts(chunk);
        const Span* between = middle[chunk].data;
        for (int64_t k = from(chunk); k < from(chunk + 1); ++k) {
            if (k + 16 < n) {
                __builtin_prefetch(boxes + uint32_t(keys[k + 16]));
                __builtin_prefetch(state.runs + 2 * size_t(uint32_t(keys[k + 16])));
            }
            const uint32_t splat = uint32_t(keys[k]);
            const Box box = boxes[splat];
            uint32_t place = state.runs[2 * size_t(splat)];
            auto touch = [&](int y, int first, int last) {
                uint32_t* next = count + size_t(y) * row;
                for (int x = first; x <= last; ++x) {
                    const uint32_t where = next[x]++;
                    state.pairs[where] = {splat, place++};
                }
            };
            touch(box.y0, box.first0, box.last0);
            for (int y = box.y0 + 1; y < box.y1; ++y, ++between) touch(y, between->first, between->last);
            touch(box.y1, box.first1, box.last1);
        }
    });
}

/// Add to each pair of a tile the rows that its splat covers there. Done just before the tile is blended: it brings the
/// records into the cache that the blend needs next.
inline void find_rows(const SplatScene& s, const SplatState& state, int index) {
    const int stride = record_stride(s.channels());
    const int x0 = index % s.tiles_x() * tile, y0 = index / s.tiles_x() * tile;
    const int columns = min(tile, s.width - x0), rows = min(tile, s.height - y0);
    const uint32_t end = state.tile_start[index + 1];
    for (uint32_t k = state.tile_start[index]; k < end; k += W) {
        const int lanes = min(W, int(end - k));
        const float* rows_of[W];
        for (int l = 0; l < W; ++l) {
            const uint32_t here = k + uint32_t(l), ahead = here + W;
            if (ahead < end) __builtin_prefetch(state.records + size_t(state.pairs[ahead].packed) * stride);
            rows_of[l] = state.records + size_t(state.pairs[here < end ? here : k].packed) * stride;
        }
        Vf f[8];
        load8(rows_of, f);
        const Ellipse<Vf> e(f[record::u] - float(x0), f[record::v] - float(y0), f[record::A], f[record::B], f[record::C], f[record::lo], f[record::det]);
        Vf top, bottom, first, last;
        e.rows(0.5f - e.u, float(columns) - 0.5f - e.u, top, bottom);
        centres(top, bottom, 0, float(rows - 1), first, last);
        // A pair between two rows of pixel centres keeps one, where the blend finds nothing.
        first = min(first, splat(float(rows - 1)));
        last = max(last, first);
        const Vi packed = __builtin_convertvector(first, Vi) << 24 | __builtin_convertvector(last, Vi) << 28;
        int32_t bits[W];
        std::memcpy(bits, &packed, sizeof bits);
        for (int l = 0; l < lanes; ++l) state.pairs[k + uint32_t(l)].packed |= uint32_t(bits[l]);
    }
}

}  // namespace ISA
