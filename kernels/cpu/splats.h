// What the splat kernels of all instruction sets share: inputs, outputs and the layout of what a forward pass
// leaves for its backward pass.
#pragma once

#include <cstdint>

#include "inlined.h"

namespace egregium {

constexpr int tile = 16;                              // pixels a side; 8 costs 1.4-1.8 times as much
constexpr float smallest_alpha = 1.0f / 255.0f;       // below it a splat does not touch a pixel
constexpr float log2_smallest_alpha = -7.99435344f;
constexpr float largest_alpha = 0.999f;               // keeps 1/(1 - alpha) finite
constexpr float finished_transmittance = 1e-4f;       // below it a pixel is done
constexpr uint32_t most_splats = 1u << 24;            // a pair packs the splat into 24 bits, its rows into 8

/// One camera's view of N splats. Pointers are to contiguous float32 arrays.
struct SplatScene {
    int64_t n = 0;
    const float* means = nullptr;      // (N, 3)
    const float* quats = nullptr;      // (N, 4) wxyz
    const float* scales = nullptr;     // (N, 3)
    const float* opacities = nullptr;  // (N)
    const float* colors = nullptr;     // (N, color_channels) or (N, sh_coefficients, 3)
    const float* features = nullptr;   // (N, feature_channels), blended after the colour
    int color_channels = 3;
    int feature_channels = 0;
    int sh_coefficients = 0;
    int sh_degree = -1;                // -1: colors are colours
    const float* viewmat = nullptr;    // (4, 4) world to camera
    const float* K = nullptr;          // (3, 3) pixels
    const float* background = nullptr; // (channels) or null
    const uint8_t* mask = nullptr;     // (height, width) or null
    int width = 0, height = 0;
    float near_plane = 0, far_plane = 0, eps2d = 0;
    bool antialiased = false;
    int threads = 1;

    INLINED int channels() const { return color_channels + feature_channels; }
    INLINED int tiles_x() const { return (width + tile - 1) / tile; }
    INLINED int tiles_y() const { return (height + tile - 1) / tile; }
};

/// A projected splat: eight fields, then its channels. The exponent of alpha at an offset (dx, dy) from the centre is
/// log2 alpha = lo + A dx² + B dx dy + C dy²; det = A C - (B/2)², exact for needles. A culled splat is all zero.
namespace record {
enum { u, v, A, B, C, lo, depth, det, channels };
}
INLINED constexpr int record_stride(int channels) { return channels <= 8 ? 16 : 32; }
constexpr int most_channels = 24;

/// A splat on a tile: its number with the first and the last row of pixels that it covers there, and the place of this
/// pair among all pairs ordered by splat (where the reverse pass leaves its gradient: each splat's are neighbours).
struct Pair {
    uint32_t packed;                   // splat | first row << 24 | last row << 28
    uint32_t place;
    INLINED uint32_t splat() const { return packed & 0xffffff; }
    INLINED int first_row() const { return int(packed >> 24 & 15); }
    INLINED int last_row() const { return int(packed >> 28); }
};

/// What is left for the backward pass (and for metadata).
struct SplatState {
    float* records = nullptr;          // (N, record_stride)
    uint32_t* runs = nullptr;          // (N, 2): the first of each splat's places, number of tiles touched
    uint32_t* tile_start = nullptr;    // (tiles + 1): each tile's first pair
    Pair* pairs = nullptr;             // (P), tile after tile, front to back in each
    int64_t n_pairs = 0;
    bool rows_known = false;           // the pairs' rows are filled in (by the forward pass)
};

struct SplatImages {
    float* image = nullptr;            // (height, width, channels)
    float* alpha = nullptr;            // (height, width)
    int32_t* median = nullptr;         // (height, width): splat at which transmittance passes 1/2, or -1; may be null
};

struct SplatGradients {
    const float* image = nullptr;      // (height, width, channels) incoming
    const float* alpha = nullptr;      // (height, width) incoming; may be null
    float* means = nullptr;            // outgoing, shaped as the inputs
    float* quats = nullptr;
    float* scales = nullptr;
    float* opacities = nullptr;
    float* colors = nullptr;
    float* features = nullptr;
    float* geometry = nullptr;         // (N, 10), as SplatStep's; in place of the first four where not null
    double* camera = nullptr;          // (16): R row-major 9, t 3, fx, fy, cx, cy
    double* background = nullptr;      // (channels); may be null
};

/// A step of the unknowns: each may be null, for none.
struct SplatStep {
    const float* geometry = nullptr;   // (N, 10): mean 3, ln scale 3, turn about the splat's own axes 3, logit of opacity
    const float* colors = nullptr;     // shaped as the colours
    const float* camera = nullptr;     // (10): turn 3 and shift 3 in the camera's frame, fx, fy, cx, cy
};

/// Called with the number of pairs once it is known; must set pairs and n_pairs.
using AllocatePairs = void (*)(void* context, int64_t n_pairs, SplatState& state);

/// The kernels of one instruction set.
struct SplatKernels {
    void (*forward)(const SplatScene&, SplatState&, const SplatImages&, AllocatePairs, void* context);
    void (*blend)(const SplatScene&, const SplatState&, const SplatImages&);
    void (*backward)(const SplatScene&, const SplatState&, const SplatImages&, const SplatGradients&);
    void (*curvature)(const SplatScene&, const SplatState&, const SplatImages&, const float* weights, float* blocks, float* colors);
    void (*jvp)(const SplatScene&, const SplatState&, const SplatStep&, const float* weights, float* change);
    void (*gauss_newton)(const SplatScene&, const SplatState&, const SplatImages&, const SplatStep&, const float* weights, int64_t kept_bytes,
                         const SplatGradients&);
};

}  // namespace egregium
