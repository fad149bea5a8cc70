// The kernels of one instruction set: compiled once for each, with ISA the namespace's name.
#include "adam.h"
#include "blend.h"
#include "blocks.h"
#include "curvature.h"
#include "pairs.h"
#include "project.h"
#include "spherical_harmonics.h"
#include "ssim.h"

namespace ISA {

constexpr int chunk = 1024;  // splats a task; also the unit in which the camera's gradient is summed, for determinism

/// Copy a few floats: mostly three, which the compiler would else prepare to copy by the vector.
inline void copy(float* to, const float* from, int n) {
    if (n == 3) std::memcpy(to, from, 3 * sizeof(float));
    else
        for (int i = 0; i < n; ++i) to[i] = from[i];
}

/// Fills records and boxes; writes the keys of those that are drawn from keys[first] on and returns their number.
int64_t project_chunk(const Camera& cam, const SplatScene& s, SplatState& state, Box* boxes, uint64_t* keys, int64_t first, int64_t last) {
    uint64_t* key = keys + first;
    const int stride = record_stride(s.channels()), channels = s.channels();
    const float half = 0.5f * log2e;
    for (int64_t i = first; i < last; i += W) {
        const int lanes = int(last - i < W ? last - i : W);
        const Projected o = project(cam, s, load_splats(s, i, lanes));
        const Vf A = -half * o.c * o.inv_det, B = 2.0f * half * o.raw_b * o.inv_det, C = -half * o.a * o.inv_det;
        const Vf lo = log2(max(o.opacity, splat(smallest_alpha))), det = half * half * o.inv_det;
        const Ellipse<Vf> e(o.u, o.v, A, B, C, lo, det);
        Vf x0, x1, y0, y1;
        centres(o.u - e.half_x, o.u + e.half_x, 0, float(s.width - 1), x0, x1);
        centres(o.v - e.half_y, o.v + e.half_y, 0, float(s.height - 1), y0, y1);
        const Mask drawn = both(o.visible, both(ge(x1, x0), ge(y1, y0)));
        // Its columns of tiles in its first and last row of tiles, as the four words of a Box.
        const Vf rows[2] = {floor(y0 * (1.0f / tile)), floor(y1 * (1.0f / tile))};
        const Mask one_row = ge(rows[0], rows[1]);
        Vi tiles = {}, words[4] = {integers(rows[0]) | integers(rows[1]) << 16};
        for (int end = 0; end < 2; ++end) {
            const Vf y = rows[end] * float(tile) + 0.5f - o.v;
            Vf left, right;
            e.columns(y, y + float(tile - 1), left, right);
            left = min(max(left - (0.5f + slack), x0), x1);
            right = max(min(right - (0.5f - slack), x1), left);
            const Vi to = integers(floor(right * (1.0f / tile)));
            Vi from = integers(floor(left * (1.0f / tile)));
            if (end == 1) from = select(one_row, to + 1, from);
            tiles += to - from + 1;
            words[1 + end] = from | to << 16;
        }
        words[3] = select(drawn, tiles, Vi{});
        int32_t box[4][W];
        std::memcpy(box, words, sizeof box);
        const Vf fields[8] = {o.u, o.v, A, B, C, lo, o.m[2], det};
        if (lanes == W)
            store8(fields, state.records + i * stride, stride);
        else
            for (int l = 0; l < lanes; ++l)
                for (int k = 0; k < 8; ++k) state.records[(i + l) * stride + k] = fields[k][l];
        for (int l = 0; l < lanes; ++l) {
            float* to = state.records + (i + l) * stride + record::channels;
            if (stride == 16) std::memset(to, 0, 8 * sizeof(float));  // sizes the compiler knows
            else std::memset(to, 0, 24 * sizeof(float));
            if (!lane(drawn, l)) continue;
            if (s.sh_degree >= 0)
                sh_color(s.sh_degree, s.means + 3 * (i + l), cam.centre, s.colors + (i + l) * 3 * s.sh_coefficients, to);
            else
                copy(to, s.colors + (i + l) * s.color_channels, s.color_channels);
            if (s.feature_channels) copy(to + s.color_channels, s.features + (i + l) * s.feature_channels, s.feature_channels);
        }
        for (int l = 0; l < lanes; ++l) {
            float* r = state.records + (i + l) * stride;
            bool visible = lane(drawn, l);
            for (int k = 0; k < stride; k += W) visible &= !any(Mask(~lt(magnitude(load(r + k)), splat(finite))));
            uint32_t depth;
            std::memcpy(&depth, r + record::depth, 4);
            *key = uint64_t(depth) << 32 | uint64_t(i + l);
            key += visible;
            if (!visible) {
                std::memset(r, 0, sizeof(float) * size_t(stride));
                box[3][l] = 0;
            }
            const int32_t b[4] = {box[0][l], box[1][l], box[2][l], box[3][l]};
            std::memcpy(boxes + i + l, b, sizeof b);
        }
    }
    return key - (keys + first);
}

/// Calls f with the number of channels to compile for: at least `channels`, and of the same record stride.
template <class F> void with_channels(int channels, F&& f) {
    if (channels <= 3) f.template operator()<3>();
    else if (channels <= 6) f.template operator()<6>();
    else if (channels <= 8) f.template operator()<8>();
    else if (channels == 9) f.template operator()<9>();
    else f.template operator()<most_channels>();
}

void blend(const SplatScene& s, const SplatState& state, const SplatImages& out) {
    const int tiles = s.tiles_x() * s.tiles_y();
    with_channels(s.channels(), [&]<int CH>() {
        each(tiles, s.threads, [&](int t) {
            if (!state.rows_known) find_rows(s, state, t);
            if (out.median) blend_tile<CH, true>(s, state, out, t);
            else blend_tile<CH, false>(s, state, out, t);
        });
    });
}

void forward(const SplatScene& s, SplatState& state, const SplatImages& out, AllocatePairs allocate, void* context) {
    const Camera cam(s);
    const int chunks = int((s.n + chunk - 1) / chunk);
    Buffer boxes(sizeof(Box) * size_t(s.n + 1)), keys_block(sizeof(uint64_t) * 2 * size_t(s.n + 1)), visible(sizeof(int64_t) * size_t(chunks + 1));
    uint64_t* keys = keys_block.as<uint64_t>();
    each(chunks, s.threads, [&](int task) {
        const int64_t first = int64_t(task) * chunk;
        visible.as<int64_t>()[task] = project_chunk(cam, s, state, boxes.as<Box>(), keys, first, first + chunk < s.n ? first + chunk : s.n);
    });
    int64_t n = 0;
    for (int task = 0; task < chunks; ++task) {
        const int64_t here = visible.as<int64_t>()[task];
        std::memmove(keys + n, keys + int64_t(task) * chunk, sizeof(uint64_t) * size_t(here));
        n += here;
    }
    make_pairs(s, state, boxes.as<Box>(), keys, keys + s.n + 1, n, allocate, context);
    blend(s, state, out);
}

/// Sums each splat's rows of pair gradients and carries them to its parameters.
void backward_chunk(const Camera& cam, const SplatScene& s, const SplatState& state, const SplatGradients& g, const float* pair_gradients,
                    int64_t first, int64_t last, double* camera) {
    const int channels = s.channels(), stride = record_stride(channels);
    CameraSums sums;
    Vf* const sum = sums.R;  // the 16 of them, one after the other
    for (int k = 0; k < 16; ++k) sum[k] = splat(0.0f);
    with_channels(channels, [&]<int CH>() {
        constexpr int width = gradient_stride(CH);
        for (int64_t i = first; i < last; i += W) {
            const int lanes = int(last - i < W ? last - i : W);
            float total[6][W] = {}, direction[3][W] = {};
            for (int l = 0; l < lanes; ++l) {
                const uint32_t count = state.runs[2 * (i + l) + 1];
                const float* from = pair_gradients + size_t(state.runs[2 * (i + l)]) * width;
                const float* r = state.records + (i + l) * stride + record::channels;
                float row[width] = {};
                for (uint32_t k = 0; k < count; ++k, from += width)
                    for (int c = 0; c < width; ++c) row[c] += from[c];
                for (int c = 0; c < 6; ++c) total[c][l] = row[c];
                if (s.sh_degree >= 0) {
                    float* to = g.colors + (i + l) * 3 * s.sh_coefficients;
                    if (count) {
                        float d[3];
                        sh_backward(s.sh_degree, s.sh_coefficients, s.means + 3 * (i + l), cam.centre, s.colors + (i + l) * 3 * s.sh_coefficients, r, row + 6, to, d);
                        for (int c = 0; c < 3; ++c) direction[c][l] = d[c];
                    } else
                        for (int c = 0; c < 3 * s.sh_coefficients; ++c) to[c] = 0;
                } else
                    for (int c = 0; c < s.color_channels; ++c) g.colors[(i + l) * s.color_channels + c] = row[6 + c];
                for (int c = 0; c < s.feature_channels; ++c) g.features[(i + l) * s.feature_channels + c] = row[6 + s.color_channels + c];
            }
            const Splats p = load_splats(s, i, lanes);
            Projected o = project(cam, s, p);
            float touched[W] = {};
            for (int l = 0; l < lanes; ++l) touched[l] = float(state.runs[2 * (i + l) + 1]);
            o.visible = both(o.visible, lt(splat(0.0f), load(touched)));
            Vf moments[6], directions[3];
            for (int c = 0; c < 6; ++c) moments[c] = load(total[c]);
            for (int c = 0; c < 3; ++c) directions[c] = load(direction[c]);
            Splats d = project_backward(cam, s, p, o, moments, directions, sums);
            for (int c = 0; c < 3; ++c) d.mean[c] = keep(o.visible, d.mean[c]), d.scale[c] = keep(o.visible, d.scale[c]);
            for (int c = 0; c < 4; ++c) d.quat[c] = keep(o.visible, d.quat[c]);
            d.opacity = keep(o.visible, d.opacity);
            transpose_out<3>(d.mean, lanes, g.means + 3 * i);
            transpose_out<4>(d.quat, lanes, g.quats + 4 * i);
            transpose_out<3>(d.scale, lanes, g.scales + 3 * i);
            transpose_out<1>(&d.opacity, lanes, g.opacities + i);
        }
    });
    for (int k = 0; k < 16; ++k) {
        float lanes[W];
        store(lanes, sum[k]);
        camera[k] = 0;
        for (int l = 0; l < W; ++l) camera[k] += double(lanes[l]);
    }
}

void backward(const SplatScene& s, const SplatState& state, const SplatImages& out, const SplatGradients& g) {
    const int channels = s.channels(), tiles = s.tiles_x() * s.tiles_y(), chunks = int((s.n + chunk - 1) / chunk);
    Buffer backgrounds(sizeof(float) * size_t(tiles) * size_t(channels) + 64);
    with_channels(channels, [&]<int CH>() {
        Buffer rows(sizeof(float) * gradient_stride(CH) * size_t(state.n_pairs + 1));
        each(tiles, s.threads, [&](int t) {
            blend_tile_backward<CH>(s, state, out, g, t, rows.as<float>(), backgrounds.as<float>() + size_t(t) * size_t(channels));
        });
        const Camera cam(s);
        Buffer cameras(sizeof(double) * 16 * size_t(chunks + 1));
        each(chunks, s.threads, [&](int task) {
            const int64_t first = int64_t(task) * chunk;
            backward_chunk(cam, s, state, g, rows.as<float>(), first, first + chunk < s.n ? first + chunk : s.n, cameras.as<double>() + 16 * task);
        });
        for (int k = 0; k < 16; ++k) g.camera[k] = 0;
        for (int c = 0; c < chunks; ++c)
            for (int k = 0; k < 16; ++k) g.camera[k] += cameras.as<double>()[16 * c + k];
    });
    for (int c = 0; c < channels; ++c) g.background[c] = 0;
    for (int t = 0; t < tiles; ++t)
        for (int c = 0; c < channels; ++c) g.background[c] += double(backgrounds.as<float>()[size_t(t) * size_t(channels) + size_t(c)]);
}

/// Adds each splat's block of J^T W J and the colours' diagonal; at most three channels, `weights` shaped as the image.
void curvature(const SplatScene& s, const SplatState& state, const SplatImages& out, const float* weights, float* blocks, float* colors) {
    const int tiles = s.tiles_x() * s.tiles_y(), chunks = int((s.n + chunk - 1) / chunk);
    Buffer rows(sizeof(float) * curvature_stride * size_t(state.n_pairs + 1));
    each(tiles, s.threads, [&](int t) { blend_tile_curvature(s, state, out, weights, t, rows.as<float>()); });
    const Camera cam(s);
    each(chunks, s.threads, [&](int task) {
        const int64_t first = int64_t(task) * chunk;
        curvature_chunk(cam, s, state, rows.as<float>(), blocks, colors, first, first + chunk < s.n ? first + chunk : s.n);
    });
}

extern const SplatKernels splat_kernels;
extern const ImageKernels image_kernels;
const SplatKernels splat_kernels = {forward, blend, backward, curvature};
const ImageKernels image_kernels = {adam, block_step, diagonal_step, ssim, ssim_backward};

}  // namespace ISA
