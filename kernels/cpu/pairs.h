// Which splats touch which tiles, front to back.
//
// A splat touches the pixels where Q(dx, dy) = a dx² + 2b dx dy + c dy² <= t. The ellipse cut by a band of rows (or
// columns) is convex, so its extent there is an interval: each pair is exact, none is dropped and none is wasted
// (square 3-sigma boxes cost 2.1-2.7 times as much in the blend). Depth order comes from one global radix sort;
// a counting sort by tile over contiguous chunks of that order keeps it, for any number of threads.
#pragma once

#include "buffers.h"
#include "pool.h"
#include "simd.h"
#include "splats.h"

namespace ISA {
using namespace egregium;

template <class F> inline void each(int tasks, int threads, F&& f) {
    parallel_for(tasks, threads, [](void* c, int task) { (*static_cast<F*>(c))(task); }, &f);
}

constexpr float slack = 1e-3f;  // pixels: the blend's own rounding must never find a pixel that the bounds missed

/// Tiles that a splat touches: rows y0 to y1, and which columns in the first and in the last of them. Most splats have
/// no other rows, so these are found W splats at a time. None if y0 > y1.
struct Box {
    uint16_t y0, y1, first0, first1, last0, last1;
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

/// One splat's interval of tiles in one row of tiles.
struct Span {
    uint32_t splat;
    uint16_t row, first, last;
};

/// A growing array of spans in kept memory.
struct Spans {
    Span* data = nullptr;
    size_t size = 0, room = 0;
    ~Spans() {
        if (data) release(data);
    }
    void push(Span s) {
        if (size == room) {
            room = room ? 2 * room : 16384;
            Span* grown = static_cast<Span*>(acquire(room * sizeof(Span)));
            if (data) {
                std::memcpy(grown, data, size * sizeof(Span));
                release(data);
            }
            data = grown;
        }
        data[size++] = s;
    }
};

/// Fill runs, tile_start, pairs and places from the records and their boxes.
inline void make_pairs(const SplatScene& s, SplatState& state, const Box* boxes, AllocatePairs allocate, void* context) {
    const int stride = record_stride(s.channels()), tiles_x = s.tiles_x(), tiles = tiles_x * s.tiles_y();
    constexpr int most_chunks = 64;
    const int chunks = max(1, min(most_chunks, s.threads));

    // Visible splats, in depth order.
    Buffer keys_block(sizeof(uint64_t) * 2 * size_t(s.n + 1));
    uint64_t* keys = keys_block.as<uint64_t>();
    int64_t n = 0;
    for (int64_t i = 0; i < s.n; ++i) {
        uint32_t depth;
        std::memcpy(&depth, state.records + i * stride + record::depth, 4);
        keys[n] = uint64_t(depth) << 32 | uint64_t(i);
        n += boxes[i].y0 <= boxes[i].y1;
    }
    keys = radix_sort(keys, keys + s.n + 1, n, chunks, s.threads);
    auto from = [&](int chunk) { return n * chunk / chunks; };

    Buffer counts_block(sizeof(uint32_t) * size_t(tiles) * size_t(chunks));
    uint32_t* counts = counts_block.as<uint32_t>();
    Spans spans[most_chunks];
    int64_t chunk_pairs[most_chunks];
    each(chunks, s.threads, [&](int chunk) {
        uint32_t* count = counts + size_t(chunk) * size_t(tiles);
        std::memset(count, 0, sizeof(uint32_t) * size_t(tiles));
        int64_t pairs = 0;
        for (int64_t k = from(chunk); k < from(chunk + 1); ++k) {
            if (k + 16 < n) __builtin_prefetch(boxes + uint32_t(keys[k + 16]));
            const uint32_t splat = uint32_t(keys[k]);
            const Box box = boxes[splat];
            const int64_t before = pairs;
            auto touch = [&](int row, int first, int last) {
                spans[chunk].push({splat, uint16_t(row), uint16_t(first), uint16_t(last)});
                for (int column = first; column <= last; ++column) ++count[row * tiles_x + column];
                pairs += last - first + 1;
            };
            touch(box.y0, box.first0, box.first1);
            if (box.y1 > box.y0 + 1) {
                const Ellipse<float> e = ellipse(state.records + int64_t(splat) * stride);
                for (int row = box.y0 + 1; row < box.y1; ++row) {
                    const float y = float(row * tile) + 0.5f - e.v;
                    float left, right;
                    e.columns(y, y + float(tile - 1), left, right);
                    left = max(left - (0.5f + slack), 0.0f);
                    right = min(right - (0.5f - slack), float(s.width - 1));
                    if (left <= right) touch(row, int(left) / tile, int(right) / tile);
                }
            }
            if (box.y1 > box.y0) touch(box.y1, box.last0, box.last1);
            state.runs[2 * int64_t(splat)] = uint32_t(before);  // within the chunk, for now
            state.runs[2 * int64_t(splat) + 1] = uint32_t(pairs - before);
        }
        chunk_pairs[chunk] = pairs;
    });
    int64_t total = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        const int64_t here = chunk_pairs[chunk];
        chunk_pairs[chunk] = total;
        total += here;
    }
    allocate(context, total, state);
    uint32_t next = 0;
    for (int t = 0; t < tiles; ++t) {
        state.tile_start[t] = next;
        for (int chunk = 0; chunk < chunks; ++chunk) {
            uint32_t& count = counts[size_t(chunk) * size_t(tiles) + size_t(t)];
            const uint32_t here = count;
            count = next;
            next += here;
        }
    }
    state.tile_start[tiles] = next;

    each(chunks, s.threads, [&](int chunk) {
        uint32_t* at = counts + size_t(chunk) * size_t(tiles);
        uint32_t* place = state.places + chunk_pairs[chunk];
        if (chunk > 0)
            for (int64_t k = from(chunk); k < from(chunk + 1); ++k) state.runs[2 * int64_t(uint32_t(keys[k]))] += uint32_t(chunk_pairs[chunk]);
        for (size_t k = 0; k < spans[chunk].size; ++k) {
            const Span span = spans[chunk].data[k];
            for (int column = span.first; column <= span.last; ++column) {
                const uint32_t where = at[span.row * tiles_x + column]++;
                state.pairs[where] = span.splat;
                *place++ = where;
            }
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
            if (ahead < end) __builtin_prefetch(state.records + size_t(state.pairs[ahead]) * stride);
            rows_of[l] = state.records + size_t(state.pairs[here < end ? here : k]) * stride;
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
        for (int l = 0; l < lanes; ++l) state.pairs[k + uint32_t(l)] |= uint32_t(bits[l]);
    }
}

}  // namespace ISA
