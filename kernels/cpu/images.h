// What the image and solver kernels of all instruction sets share.
#pragma once

#include <cstdint>

namespace egregium {

struct ImageShape {
    int height, width, channels, threads;
};

/// Arrays of (rows, columns) floats, and what scales their step.
struct AdamArrays {
    int64_t rows;
    int columns;
    float *parameter, *gradient, *first, *second;
    const float* factors;  // (rows): times the rate; 0 leaves the row and its moments alone
    const float* rates;    // (columns)
    const float* limits;   // (rows): the largest step of each, or null for `limit`
    float limit, beta1, beta2, eps;
    int threads;
};

/// Symmetric systems of 1 to 16 unknowns, (H + damping diag H) x = g: blocks (rows, n (n + 1) / 2) are upper triangles,
/// row by row. With shares, a step by running averages: x = -limited (overlap H + diag(sqrt(squares) / rates))^-1 averages.
struct BlockArrays {
    int64_t rows;
    int unknowns;
    const float *blocks, *gradients;                                // (rows, n (n + 1) / 2), null for zero; (rows, n)
    float* steps;
    int threads;
    float damping = 0;
    float *averages = nullptr, *squares = nullptr;                  // (rows, n) of the gradient and of its square
    const float *shares = nullptr, *square_shares = nullptr;        // (rows): the newest's; 0 leaves the row and its averages alone
    const float *rates = nullptr, *limits = nullptr;                // (n); (rows, n), or (n) with a stride of 0
    int64_t limit_stride = 0;
    float overlap = 1;
};

/// The kernels of one instruction set.
struct ImageKernels {
    void (*adam)(const AdamArrays&);
    bool (*block_step)(const BlockArrays&);
    void (*ssim)(const ImageShape&, const float* x, const float* y, float* map, float* partials);
    void (*ssim_backward)(const ImageShape&, const float* x, const float* y, const float* partials, const float* incoming, float* gradient);
};

}  // namespace egregium
