// Many small symmetric positive systems at once, one a lane: (H + λ diag H) x = g by Cholesky's factorisation.
//
// LAPACK takes microseconds a system in overhead alone; here a hundred thousand of ten unknowns take some milliseconds.
#pragma once

#include "buffers.h"
#include "images.h"
#include "pool.h"
#include "simd.h"

namespace ISA {
using namespace egregium;

/// Returns whether all of it, given and found, is finite.
bool solve_blocks(const BlockArrays& a) {
    constexpr int rows_a_task = 1024, most = 16;
    const int n = a.unknowns, size = n * (n + 1) / 2, tasks = int((a.rows + rows_a_task - 1) / rows_a_task);
    Buffer flags(size_t(tasks) + 64);
    uint8_t* sound = flags.as<uint8_t>();
    each(tasks, a.threads, [&](int task) {
        const int64_t end = a.rows < int64_t(task + 1) * rows_a_task ? a.rows : int64_t(task + 1) * rows_a_task;
        bool broken = false;
        for (int64_t row = int64_t(task) * rows_a_task; row < end; row += W) {
            const int lanes = int(end - row < W ? end - row : W);
            Vf L[most][most], x[most];  // L[i][j], j <= i, holds the upper triangle's (j, i)
            int at = 0;
            for (int j = 0; j < n; ++j)
                for (int i = j; i < n; ++i, ++at) {
                    Vf v = splat(0.0f);
                    for (int l = 0; l < lanes; ++l) v[l] = a.blocks[(row + l) * size + at];
                    L[i][j] = v;
                }
            for (int i = 0; i < n; ++i) {
                Vf v = splat(0.0f);
                for (int l = 0; l < lanes; ++l) v[l] = a.gradients[(row + l) * n + i];
                x[i] = v;
            }
            // In units in which the diagonal is 1, correlations lie within ±1 and no pivot of what is positive semi-definite
            // below λ: what lies beyond is rounding. An unknown that nothing hangs on does not move.
            Vf unit[most];
            for (int i = 0; i < n; ++i) {
                const Mask moves = lt(splat(1e-30f), L[i][i]);
                unit[i] = keep(moves, 1.0f / sqrt(select(moves, L[i][i], splat(1.0f))));
                broken |= any(Mask(~lt(max(L[i][i], -L[i][i]), splat(3e38f)))) || any(Mask(~lt(max(x[i], -x[i]), splat(3e38f))));
                x[i] *= unit[i];
            }
            for (int j = 0; j < n; ++j) {
                Vf pivot = splat(1.0f + a.damping);
                for (int k = 0; k < j; ++k) pivot -= L[j][k] * L[j][k];
                const Vf inverse = 1.0f / sqrt(max(pivot, splat(max(a.damping, 1e-6f))));
                L[j][j] = inverse;
                for (int i = j + 1; i < n; ++i) {
                    broken |= any(Mask(~lt(max(L[i][j], -L[i][j]), splat(3e38f))));
                    Vf v = max(min(L[i][j] * unit[i] * unit[j], splat(1.0f)), splat(-1.0f));
                    for (int k = 0; k < j; ++k) v -= L[i][k] * L[j][k];
                    L[i][j] = v * inverse;
                }
            }
            for (int i = 0; i < n; ++i) {
                for (int k = 0; k < i; ++k) x[i] -= L[i][k] * x[k];
                x[i] *= L[i][i];
            }
            for (int i = n - 1; i >= 0; --i) {
                for (int k = i + 1; k < n; ++k) x[i] -= L[k][i] * x[k];
                x[i] *= L[i][i];
            }
            for (int i = 0; i < n; ++i) x[i] *= unit[i];
            for (int i = 0; i < n; ++i)
                for (int l = 0; l < lanes; ++l) {
                    const float value = x[i][l];
                    broken |= !(value - value == 0);
                    a.steps[(row + l) * n + i] = value;
                }
        }
        sound[task] = !broken;
    });
    bool all = true;
    for (int task = 0; task < tasks; ++task) all &= sound[task] != 0;
    return all;
}

}  // namespace ISA
