// What the image kernels of all instruction sets share.
#pragma once

namespace egregium {

struct ImageShape {
    int height, width, channels, threads;
};

/// The kernels of one instruction set.
struct ImageKernels {
    void (*ssim)(const ImageShape&, const float* x, const float* y, float* map, float* partials);
    void (*ssim_backward)(const ImageShape&, const float* x, const float* y, const float* partials, const float* incoming, float* gradient);
};

}  // namespace egregium
