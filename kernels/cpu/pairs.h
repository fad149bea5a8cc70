// Which splats touch which tiles, front to back.
//
// A splat touches the pixels where Q(dx, dy) = a dx² + 2b dx dy + c dy² <= t. The ellipse cut by a band of rows (or
// columns) is convex, so its extent there is an interval: each pair is exact, none is dropped and none is wasted
// (square 3-sigma boxes cost 2.1-2.7 times as much in the blend). Depth order comes from one global radix sort;
// a counting sort by tile over contiguous chunks of that order keeps it, for any number of threads.
#pragma once

#include <cstdlib>

#include "buffers.h"
#include "pool.h"
#include "simd.h"
#include "splats.h"

namespace ISA {
using namespace egregium;

template <class F> inline void each(int tasks, int threads, F&& f) {
    parallel_for(tasks, threads, [](void* c, int task) { (*static_cast<F*>(c))(task); }, &f);
}

constexpr float slack = 1e-3f;  // pixels; the blend's own rounding must never find a pixel that the bounds missed

/// The ellipse of a record, and the point where it reaches farthest right (ys) and farthest down (xs).
struct Ellipse {
    float u, v, a, b, c, t, det, half_x, half_y, xs, ys;

    explicit Ellipse(const float* r)
        : u(r[record::u]), v(r[record::v]), a(-r[record::A]), b(-0.5f * r[record::B]), c(-r[record::C]),
          t(r[record::lo] - log2_smallest_alpha), det(r[record::det]) {
        half_x = bounded(__builtin_sqrtf(t * c / det));
        half_y = bounded(__builtin_sqrtf(t * a / det));
        xs = -b / a * half_y;
        ys = -b / c * half_x;
    }
    static float bounded(float x) { return x < 1e8f ? x : 1e8f; }
    static float clamp(float x, float lo, float hi) { return min(max(x, lo), hi); }
    /// Half the length of the chord at y = yc (times a), or at x = xc (times c).
    float chord(float k, float at) const { return __builtin_sqrtf(max(0.0f, k * t - det * at * at)); }
};

/// Pixels whose centres lie in [lo, hi], cut to [first, last]; empty if .lo > .hi.
struct Range {
    int lo, hi;
    Range(float low, float high, int first, int last) {
        const float l = max(low - 0.5f - slack, float(first)), h = min(high - 0.5f + slack, float(last));
        lo = l <= float(last) ? int(__builtin_ceilf(l)) : last + 1;
        hi = h >= float(first) ? int(__builtin_floorf(h)) : first - 1;
    }
    bool empty() const { return lo > hi; }
};

inline Range columns(const Ellipse& e, int row0, int row1, int width) {
    const float y0 = float(row0) + 0.5f - e.v, y1 = float(row1) + 0.5f - e.v;
    const float yr = Ellipse::clamp(e.ys, y0, y1), yl = Ellipse::clamp(-e.ys, y0, y1);
    return Range(e.u + (-e.b * yl - e.chord(e.a, yl)) / e.a, e.u + (-e.b * yr + e.chord(e.a, yr)) / e.a, 0, width - 1);
}

inline Range rows(const Ellipse& e, int column0, int column1, int row0, int row1) {
    const float x0 = float(column0) + 0.5f - e.u, x1 = float(column1) + 0.5f - e.u;
    const float xd = Ellipse::clamp(e.xs, x0, x1), xu = Ellipse::clamp(-e.xs, x0, x1);
    return Range(e.v + (-e.b * xu - e.chord(e.c, xu)) / e.c, e.v + (-e.b * xd + e.chord(e.c, xd)) / e.c, row0, row1);
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

/// A growing array of spans; malloc'ed, so that no template of the library is instantiated here.
struct Spans {
    Span* data = nullptr;
    size_t size = 0, room = 0;
    ~Spans() { std::free(data); }
    bool push(Span s) {
        if (size == room) {
            room = room ? 2 * room : 4096;
            void* grown = std::realloc(data, room * sizeof(Span));
            if (!grown) return false;
            data = static_cast<Span*>(grown);
        }
        data[size++] = s;
        return true;
    }
};

/// Fill runs, tile_start, pairs and places from the records. False when memory ran out.
inline bool make_pairs(const SplatScene& s, SplatState& state, AllocatePairs allocate, void* context) {
    const int stride = record_stride(s.channels()), tiles_x = s.tiles_x(), tiles = tiles_x * s.tiles_y();
    constexpr int most_chunks = 64;
    const int chunks = max(1, min(most_chunks, s.threads));

    // Visible splats, in depth order.
    Buffer keys_block(sizeof(uint64_t) * 2 * size_t(s.n + 1));
    uint64_t* keys = keys_block.as<uint64_t>();
    int64_t n = 0;
    for (int64_t i = 0; i < s.n; ++i) {
        const float* r = state.records + i * stride;
        state.runs[2 * i] = state.runs[2 * i + 1] = 0;
        uint32_t depth;
        std::memcpy(&depth, r + record::depth, 4);
        keys[n] = uint64_t(depth) << 32 | uint64_t(i);
        n += r[record::lo] >= log2_smallest_alpha;
    }
    keys = radix_sort(keys, keys + s.n + 1, n, chunks, s.threads);
    auto from = [&](int chunk) { return n * chunk / chunks; };

    Buffer counts_block(sizeof(uint32_t) * size_t(tiles) * size_t(chunks));
    uint32_t* counts = counts_block.as<uint32_t>();
    Spans spans[most_chunks];
    int64_t chunk_pairs[most_chunks];
    bool enough = true;
    each(chunks, s.threads, [&](int chunk) {
        uint32_t* count = counts + size_t(chunk) * size_t(tiles);
        std::memset(count, 0, sizeof(uint32_t) * size_t(tiles));
        int64_t pairs = 0;
        for (int64_t k = from(chunk); k < from(chunk + 1); ++k) {
            if (k + 8 < n) __builtin_prefetch(state.records + int64_t(uint32_t(keys[k + 8])) * stride);
            const uint32_t splat = uint32_t(keys[k]);
            const Ellipse e(state.records + int64_t(splat) * stride);
            const Range all(e.v - e.half_y, e.v + e.half_y, 0, s.height - 1);
            if (all.empty()) continue;
            int64_t touched = 0;
            for (int row = all.lo / tile; row <= all.hi / tile; ++row) {
                const Range x = columns(e, max(all.lo, row * tile), min(all.hi, row * tile + tile - 1), s.width);
                if (x.empty()) continue;
                const int first = x.lo / tile, last = x.hi / tile;
                if (!spans[chunk].push({splat, uint16_t(row), uint16_t(first), uint16_t(last)})) enough = false;
                for (int column = first; column <= last; ++column) ++count[row * tiles_x + column];
                touched += last - first + 1;
            }
            state.runs[2 * int64_t(splat)] = uint32_t(pairs);  // within the chunk, for now
            state.runs[2 * int64_t(splat) + 1] = uint32_t(touched);
            pairs += touched;
        }
        chunk_pairs[chunk] = pairs;
    });
    if (!enough) return false;

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
        for (int64_t k = from(chunk); k < from(chunk + 1); ++k)
            state.runs[2 * int64_t(uint32_t(keys[k]))] += uint32_t(chunk_pairs[chunk]);
        for (size_t k = 0; k < spans[chunk].size; ++k) {
            const Span span = spans[chunk].data[k];
            const Ellipse e(state.records + int64_t(span.splat) * stride);
            const int row0 = span.row * tile, row1 = min(s.height, row0 + tile) - 1;
            for (int column = span.first; column <= span.last; ++column) {
                const Range y = rows(e, column * tile, min(s.width, column * tile + tile) - 1, row0, row1);
                // A pair between two rows of pixel centres keeps one row, where the blend finds nothing.
                const uint32_t lo = uint32_t(min(y.lo, row1) - row0), hi = uint32_t(max(y.hi, row0) - row0);
                const uint32_t where = at[span.row * tiles_x + column]++;
                state.pairs[where] = span.splat | (lo < hi ? lo : hi) << 24 | hi << 28;
                *place++ = where;
            }
        }
    });
    return true;
}

}  // namespace ISA
