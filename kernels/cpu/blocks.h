// Many small symmetric positive systems at once, one a lane: (H + λ diag H) x = g by Cholesky's factorisation.
//
// LAPACK takes microseconds a system in overhead alone; here a hundred thousand of ten unknowns take some milliseconds.
// A step of stochastic Levenberg–Marquardt is the same with what goes before and after: in torch, running averages, solve
// and limits pass over the arrays two dozen times.
#pragma once

#include "buffers.h"
#include "images.h"
#include "pool.h"
#include "simd.h"

namespace ISA {
using namespace egregium;

constexpr int most_unknowns = 16;

/// Whether every lane is a finite number.
inline bool finite_lanes(Vf v) { return !any(Mask(~lt(max(v, -v), splat(3e38f)))); }

/// x becomes the solution; L[i][j], j <= i, holds the upper triangle's (j, i) and is lost. Returns whether all was finite.
/// N is the number of unknowns where the compiler is to know it, else 0.
template <int N> bool solve_lanes(Vf L[][most_unknowns], Vf* x, int unknowns, float damping) {
    const int n = N ? N : unknowns;
    // In units in which the diagonal is 1, correlations lie within ±1 and no pivot of what is positive semi-definite
    // below λ: what lies beyond is rounding. An unknown that nothing hangs on does not move.
    bool sound = true;
    Vf unit[most_unknowns];
    for (int i = 0; i < n; ++i) {
        const Mask moves = lt(splat(1e-30f), L[i][i]);
        unit[i] = keep(moves, 1.0f / sqrt(select(moves, L[i][i], splat(1.0f))));
        sound &= finite_lanes(L[i][i]) && finite_lanes(x[i]);
        x[i] *= unit[i];
    }
    for (int j = 0; j < n; ++j) {
        Vf pivot = splat(1.0f + damping);
        for (int k = 0; k < j; ++k) pivot -= L[j][k] * L[j][k];
        const Vf inverse = 1.0f / sqrt(max(pivot, splat(max(damping, 1e-6f))));
        L[j][j] = inverse;
        for (int i = j + 1; i < n; ++i) {
            sound &= finite_lanes(L[i][j]);
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
    for (int i = 0; i < n; ++i) {
        x[i] *= unit[i];
        sound &= finite_lanes(x[i]);
    }
    return sound;
}

/// Calls f(first, end), which returns whether all is well, for ranges of rows; returns whether all is.
template <class F> bool all_rows(int64_t rows, int threads, F&& f) {
    constexpr int64_t rows_a_task = 1024;
    const int tasks = int((rows + rows_a_task - 1) / rows_a_task);
    Buffer flags(size_t(tasks) + 64);
    uint8_t* sound = flags.as<uint8_t>();
    each(tasks, threads, [&](int task) { const int64_t first = task * rows_a_task; sound[task] = f(first, rows < first + rows_a_task ? rows : first + rows_a_task); });
    bool all = true;
    for (int task = 0; task < tasks; ++task) all &= sound[task] != 0;
    return all;
}

/// Columns of `count` floats of W rows, `stride` apart, one column a vector; lanes past the end are zero.
inline void columns_in(const float* from, int64_t stride, int count, int lanes, float (*to)[W]) {
    if (lanes < W) std::memset(to, 0, sizeof(float) * size_t(W * count));
    for (int l = 0; l < lanes; ++l)
        for (int c = 0; c < count; ++c) to[c][l] = from[l * stride + c];
}

/// Solves the systems of rows, or takes their steps: see BlockArrays.
template <int N> bool step_rows(const BlockArrays& a, int64_t first, int64_t end) {
    const int n = N ? N : a.unknowns, size = n * (n + 1) / 2;
    bool sound = true;
    alignas(64) float blocks[most_unknowns * (most_unknowns + 1) / 2][W], gradients[most_unknowns][W], averages[most_unknowns][W], squares[most_unknowns][W],
        limits[most_unknowns][W];
    for (int64_t row = first; row < end; row += W) {
        const int lanes = int(end - row < W ? end - row : W);
        float share[W] = {}, square_share[W] = {}, *const steps = a.steps + row * n;
        bool some = false;
        for (int l = 0; l < lanes; ++l) some |= (share[l] = a.shares ? a.shares[row + l] : 1.0f) > 0;
        if (!some) {
            std::memset(steps, 0, sizeof(float) * size_t(lanes * n));
            continue;
        }
        const Vf part = load(share);
        const Mask on = lt(splat(0.0f), part);
        if (a.blocks) columns_in(a.blocks + row * size, size, size, lanes, blocks);
        columns_in(a.gradients + row * n, n, n, lanes, gradients);
        Vf L[most_unknowns][most_unknowns], x[most_unknowns];
        const float overlap = a.shares ? a.overlap : 1.0f;
        if (a.blocks)
            for (int j = 0, at = 0; j < n; ++j)
                for (int i = j; i < n; ++i, ++at) L[i][j] = keep(on, overlap * load(blocks[at]));
        for (int i = 0; i < n; ++i) x[i] = keep(on, load(gradients[i]));
        if (a.shares) {
            for (int l = 0; l < lanes; ++l) square_share[l] = a.square_shares[row + l];
            columns_in(a.averages + row * n, n, n, lanes, averages);
            columns_in(a.squares + row * n, n, n, lanes, squares);
            for (int i = 0; i < n; ++i) {
                const Vf m = load(averages[i]), s = load(squares[i]), g = x[i];
                x[i] = m + part * (g - m);
                const Vf square = s + load(square_share) * (g * g - s);
                const Vf noise = keep(on, sqrt(square)) * (1.0f / a.rates[i]);
                store(averages[i], select(on, x[i], m));
                store(squares[i], select(on, square, s));
                x[i] = keep(on, x[i]);
                if (a.blocks) {
                    L[i][i] += noise;
                } else {  // a diagonal alone is solved at once
                    const Mask moves = lt(splat(1e-30f), noise);
                    sound &= finite_lanes(noise) && finite_lanes(x[i]);
                    x[i] = keep(moves, x[i] / select(moves, noise, splat(1.0f)));
                }
            }
            for (int l = 0; l < lanes; ++l)
                for (int i = 0; i < n; ++i) a.averages[(row + l) * n + i] = averages[i][l], a.squares[(row + l) * n + i] = squares[i][l];
            if (a.limit_stride) columns_in(a.limits + row * n, n, n, lanes, limits);
            else
                for (int i = 0; i < n; ++i) store(limits[i], splat(a.limits[i]));
        }
        if (a.blocks) sound &= solve_lanes<N>(L, x, n, a.damping);
        for (int i = 0; i < n; ++i) store(gradients[i], a.shares ? -max(min(x[i], load(limits[i])), -load(limits[i])) : x[i]);
        for (int l = 0; l < lanes; ++l)
            for (int i = 0; i < n; ++i) steps[l * n + i] = gradients[i][l];
    }
    return sound;
}

/// Returns whether all of it, given and found, is finite.
bool block_step(const BlockArrays& a) {
    return all_rows(a.rows, a.threads, [&](int64_t first, int64_t end) {
        return a.unknowns == 10 ? step_rows<10>(a, first, end) : step_rows<0>(a, first, end);
    });
}

}  // namespace ISA
