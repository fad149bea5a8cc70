// Sums of many weighted rows into few, in an order that does not depend on the number of threads.
//
// Pixels add to vertices or texels. Atomics would make the sums' last bits a matter of luck; here the additions are
// first sorted by ranges of where they go to (a counting sort, stable), then each range is summed by one task, in
// double precision, in the order of the pixels. A range's sums stay in the cache whatever the order of access.
#pragma once

#include "buffers.h"
#include "pool.h"
#include "simd.h"

namespace ISA {
namespace mesh {
using namespace egregium;

struct Addition {
    uint32_t to, row;
    float weight;
};

/// to[k] = Σ weight · rows[row] over all that emit(chunk, put) puts as put(k, row, weight), for k in [0, count).
/// `emit` is run twice for each chunk and must put the same k both times.
template <class Emit>
void scatter_add(int64_t count, int columns, int chunks, int threads, const float* rows, float* to, Emit&& emit) {
    constexpr int most_ranges = 256;
    constexpr int chunks_at_once = 64;  // bounds the memory: a chunk is some ten thousand additions
    int shift = 0;
    while ((count - 1) >> shift >= most_ranges) ++shift;
    const int ranges = count ? int((count - 1) >> shift) + 1 : 0;
    std::memset(to, 0, sizeof(float) * size_t(count) * size_t(columns));
    Buffer places_block(sizeof(int64_t) * (size_t(chunks_at_once) * most_ranges + most_ranges + 1));
    int64_t* places = places_block.as<int64_t>();
    int64_t* starts = places + size_t(chunks_at_once) * most_ranges;
    for (int first = 0; first < chunks; first += chunks_at_once) {
        const int here = min(chunks_at_once, chunks - first);
        each(here, threads, [&](int chunk) {
            int64_t* place = places + size_t(chunk) * most_ranges;
            std::memset(place, 0, sizeof(int64_t) * most_ranges);
            emit(first + chunk, [&](uint32_t k, uint32_t, float) { ++place[k >> shift]; });
        });
        int64_t total = 0;
        for (int range = 0; range < ranges; ++range) {
            starts[range] = total;
            for (int chunk = 0; chunk < here; ++chunk) {
                int64_t& place = places[size_t(chunk) * most_ranges + size_t(range)];
                const int64_t n = place;
                place = total;
                total += n;
            }
        }
        starts[ranges] = total;
        Buffer additions_block(sizeof(Addition) * size_t(total + 1));
        Addition* additions = additions_block.as<Addition>();
        each(here, threads, [&](int chunk) {
            int64_t* place = places + size_t(chunk) * most_ranges;
            emit(first + chunk, [&](uint32_t k, uint32_t row, float weight) { additions[place[k >> shift]++] = {k, row, weight}; });
        });
        each(ranges, threads, [&](int range) {
            const int64_t low = int64_t(range) << shift;
            const int64_t high = low + (int64_t(1) << shift) < count ? low + (int64_t(1) << shift) : count;
            const size_t size = size_t(high - low) * size_t(columns);
            if (starts[range] == starts[range + 1]) return;
            Buffer sums_block(sizeof(double) * size);
            double* sums = sums_block.as<double>();
            for (size_t i = 0; i < size; ++i) sums[i] = 0;
            for (int64_t i = starts[range]; i < starts[range + 1]; ++i) {
                const Addition a = additions[i];
                const float* row = rows + size_t(a.row) * size_t(columns);
                double* sum = sums + size_t(int64_t(a.to) - low) * size_t(columns);
                for (int c = 0; c < columns; ++c) sum[c] += double(a.weight) * double(row[c]);
            }
            float* out = to + size_t(low) * size_t(columns);
            for (size_t i = 0; i < size; ++i) out[i] += float(sums[i]);
        });
    }
}

}  // namespace mesh
}  // namespace ISA
