// A step of the splats' ten unknowns, taken in place: in torch a dozen passes over the arrays, of which a turn is most.
#pragma once

#include <cmath>
#include <cstdint>

#include "pool.h"

namespace egregium {

/// Arrays of n splats: means (n, 3), logarithms of scales (n, 3), quaternions wxyz (n, 4), logits (n).
struct MovedSplats {
    float *means, *log_scales, *quats, *logits;
};

/// Adds the steps (n, 10): mean, logarithm of scale, turn about the splat's own axes, logit. q becomes q ⊗ (1, ω / 2), normalised.
inline void move_splats(const MovedSplats& s, const float* steps, int64_t n, int threads) {
    constexpr int64_t a_task = 2048;
    each(int((n + a_task - 1) / a_task), threads, [&](int task) {
        const int64_t end = n < (task + 1) * a_task ? n : (task + 1) * a_task;
        for (int64_t i = task * a_task; i < end; ++i) {
            const float* step = steps + 10 * i;
            for (int c = 0; c < 3; ++c) s.means[3 * i + c] += step[c], s.log_scales[3 * i + c] += step[3 + c];
            s.logits[i] += step[9];
            float* q = s.quats + 4 * i;
            const float w = q[0], x = q[1], y = q[2], z = q[3], a = 0.5f * step[6], b = 0.5f * step[7], c = 0.5f * step[8];
            const float turned[4] = {w - x * a - y * b - z * c, x + w * a + y * c - z * b, y + w * b + z * a - x * c, z + w * c + x * b - y * a};
            const float squared = turned[0] * turned[0] + turned[1] * turned[1] + turned[2] * turned[2] + turned[3] * turned[3];
            const float scale = squared > 1e-24f ? 1.0f / std::sqrt(squared) : 0.0f;
            for (int k = 0; k < 4; ++k) q[k] = scale * turned[k];
        }
    });
}

}  // namespace egregium
