// One step of Adam (Kingma & Ba 2015, algorithm 1) on the rows of an array, in place.
//
// A step in torch passes over the five arrays a dozen times; this passes once. A row's factor and a column's rate are
// spread over the row's elements first, so that the update itself runs over contiguous floats for any row length.
#pragma once

#include "images.h"
#include "pool.h"
#include "simd.h"

namespace ISA {
using namespace egregium;

void adam(const AdamArrays& a) {
    constexpr int rows_a_task = 512, most = 64;
    each(int((a.rows + rows_a_task - 1) / rows_a_task), a.threads, [&](int task) {
        const int64_t end = a.rows < int64_t(task + 1) * rows_a_task ? a.rows : int64_t(task + 1) * rows_a_task;
        const int rows_at_once = max(1, 1024 / a.columns);
        float factor[1024 + most + W], limit[1024 + most + W];
        for (int64_t row = int64_t(task) * rows_a_task; row < end; row += rows_at_once) {
            const int rows = int(end - row < rows_at_once ? end - row : rows_at_once), length = rows * a.columns;
            for (int r = 0, e = 0; r < rows; ++r)
                for (int c = 0; c < a.columns; ++c, ++e) {
                    factor[e] = a.factors[row + r] * a.rates[c];
                    limit[e] = a.limits ? a.limits[row + r] : a.limit;
                }
            for (int e = length; e < length + W; ++e) factor[e] = limit[e] = 0;
            for (int e = 0; e < length; e += W) {
                const int64_t at = row * a.columns + e;
                const int lanes = min(W, length - e);
                float tail[4][W] = {};
                float* from[4] = {a.parameter + at, a.gradient + at, a.first + at, a.second + at};
                Vf v[4];
                for (int k = 0; k < 4; ++k) {
                    if (lanes < W) std::memcpy(tail[k], from[k], sizeof(float) * size_t(lanes));
                    v[k] = load(lanes < W ? tail[k] : from[k]);
                }
                const Vf f = load(factor + e), most_step = load(limit + e);
                const Mask on = lt(splat(0.0f), f);  // a factor of zero: the row sits this step out
                const Vf m = a.beta1 * v[2] + (1 - a.beta1) * v[1];
                const Vf s = a.beta2 * v[3] + (1 - a.beta2) * v[1] * v[1];
                const Vf step = max(min(f * m / (sqrt(s) + a.eps), most_step), -most_step);
                v[0] = select(on, v[0] - step, v[0]);
                v[2] = select(on, m, v[2]);
                v[3] = select(on, s, v[3]);
                for (int k = 0; k < 4; k += k ? 1 : 2) {
                    if (lanes == W) {
                        store(from[k], v[k]);
                    } else {
                        store(tail[k], v[k]);
                        std::memcpy(from[k], tail[k], sizeof(float) * size_t(lanes));
                    }
                }
            }
        }
    });
}

}  // namespace ISA
