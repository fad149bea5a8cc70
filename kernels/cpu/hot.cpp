// The kernels of one instruction set: compiled once for each, with ISA the namespace's name.
#include "adam.h"
#include "blend.h"
#include "blocks.h"
#include "curvature.h"
#include "pairs.h"
#include "project.h"
#include "spherical_harmonics.h"
#include "ssim.h"
#include "tangent.h"

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

/// What weights leave to be done: the tiles in which one is not zero, and the splats on these.
class Sample {
  public:
    /// `image` has the image's channels; `alpha`, one, may be null. Without `image` all is to be done.
    Sample(const SplatScene& s, const SplatState& state, const float* image, const float* alpha = nullptr)
        : state_(state), tiles_(size_t(s.tiles_x() * s.tiles_y())), splats_(size_t(s.n + 1)) {
        const int tiles = s.tiles_x() * s.tiles_y();
        uint8_t *active = tiles_.as<uint8_t>(), *needed = splats_.as<uint8_t>();
        each(image ? tiles : 0, s.threads, [&](int t) {
            const Tile tile_(s, t);
            active[t] = !idle(tile_, s.channels(), image) || (alpha && !idle(tile_, 1, alpha));
        });
        for (int t = 0; t < tiles && image; ++t) all_ &= active[t] != 0;
        if (all_) return;
        std::memset(needed, 0, size_t(s.n));
        each(tiles, s.threads, [&](int t) {
            if (active[t])
                for (uint32_t k = state.tile_start[t]; k < state.tile_start[t + 1]; ++k) __atomic_store_n(needed + state.pairs[k].splat(), uint8_t(1), __ATOMIC_RELAXED);
        });
    }
    bool has(int t) const { return all_ || tiles_.as<uint8_t>()[t]; }
    bool needs(int64_t splat) const { return state_.runs[2 * splat + 1] && (all_ || splats_.as<uint8_t>()[splat]); }
    bool all() const { return all_; }

  private:
    const SplatState& state_;
    Buffer tiles_, splats_;
    bool all_ = true;
};

/// Calls f(list, count, task) for each chunk of the splats with those of it that are needed, in their order; before that,
/// rest(splat) for the others.
template <class Rest, class F> void each_chunk(const SplatScene& s, const Sample& sample, Rest&& rest, F&& f) {
    each(int((s.n + chunk - 1) / chunk), s.threads, [&](int task) {
        uint32_t list[chunk];
        int count = 0;
        const int64_t first = int64_t(task) * chunk, last = first + chunk < s.n ? first + chunk : s.n;
        for (int64_t i = first; i < last; ++i) {
            if (sample.needs(i)) list[count++] = uint32_t(i);
            else rest(size_t(i));
        }
        f(list, count, task);
    });
}

void zero(float* to, size_t n) { std::memset(to, 0, sizeof(float) * n); }

/// A row, `width` wide, for each pair: to be written tile by tile, zero in tiles that are left out. (A splat's are
/// neighbours: cleared here, in order, they cost a fraction of what they would one by one in the tiles.)
struct PairRows : Buffer {
    PairRows(const SplatScene& s, const SplatState& state, const Sample& sample, int width) : Buffer(sizeof(float) * size_t(width) * size_t(state.n_pairs + 1)) {
        if (sample.all()) return;
        each_chunk(s, sample, [](size_t) {}, [&](const uint32_t* list, int count, int) {
            for (int i = 0; i < count; ++i) {
                const uint32_t* run = state.runs + 2 * size_t(list[i]);
                zero(as<float>() + size_t(run[0]) * size_t(width), size_t(run[1]) * size_t(width));
            }
        });
    }
};

/// The gradient by a turn of the splat about its own axes, from that by its quaternion: dq = ½ q (0, turn).
void turn_gradient(const Vf q[4], const Vf by[4], Vf to[3]) {
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        to[i] = 0.5f * (q[0] * by[1 + i] - q[1 + i] * by[0] + q[1 + k] * by[1 + j] - q[1 + j] * by[1 + k]);
    }
}

/// Sums the rows of pair gradients of the splats listed and carries them to their parameters.
template <int CH>
void backward_chunk(const Camera& cam, const SplatScene& s, const SplatState& state, const SplatGradients& g, const float* pair_gradients, const uint32_t* list,
                    int count, double* camera) {
    constexpr int width = gradient_stride(CH), stride = record_stride(CH);
    CameraSums sums;
    Vf* const sum = sums.R;  // the 16 of them, one after the other
    for (int k = 0; k < 16; ++k) sum[k] = splat(0.0f);
    for (int first = 0; first < count; first += W) {
        const uint32_t* index = list + first;
        const int lanes = min(count - first, W);
        float total[6][W] = {}, direction[3][W] = {};
        for (int l = 0; l < lanes; ++l) {
            const size_t i = index[l];
            const float* from = pair_gradients + size_t(state.runs[2 * i]) * width;
            const float* r = state.records + i * stride + record::channels;
            float row[width] = {};
            for (uint32_t k = 0; k < state.runs[2 * i + 1]; ++k, from += width)
                for (int c = 0; c < width; ++c) row[c] += from[c];
            for (int c = 0; c < 6; ++c) total[c][l] = row[c];
            if (s.sh_degree >= 0) {
                const size_t at = i * 3 * size_t(s.sh_coefficients);
                float d[3];
                sh_backward(s.sh_degree, s.sh_coefficients, s.means + 3 * i, cam.centre, s.colors + at, r, row + 6, g.colors + at, d);
                for (int c = 0; c < 3; ++c) direction[c][l] = d[c];
            } else
                copy(g.colors + i * size_t(s.color_channels), row + 6, s.color_channels);
            if (s.feature_channels && g.features) copy(g.features + i * size_t(s.feature_channels), row + 6 + s.color_channels, s.feature_channels);
        }
        const Splats p = load_splats(s, index, lanes);
        const Projected o = project(cam, s, p);
        Vf moments[6], directions[3];
        for (int c = 0; c < 6; ++c) moments[c] = load(total[c]);
        for (int c = 0; c < 3; ++c) directions[c] = load(direction[c]);
        Splats d = project_backward(cam, s, p, o, moments, directions, sums);
        for (int c = 0; c < 3; ++c) d.mean[c] = keep(o.visible, d.mean[c]), d.scale[c] = keep(o.visible, d.scale[c]);
        for (int c = 0; c < 4; ++c) d.quat[c] = keep(o.visible, d.quat[c]);
        d.opacity = keep(o.visible, d.opacity);
        if (g.geometry) {
            Vf to[unknowns];
            for (int c = 0; c < 3; ++c) to[c] = d.mean[c], to[3 + c] = d.scale[c] * p.scale[c];
            turn_gradient(p.quat, d.quat, to + 6);
            to[9] = d.opacity * p.opacity * (1.0f - p.opacity);
            transpose_out<unknowns>(to, index, lanes, g.geometry);
            continue;
        }
        transpose_out<3>(d.mean, index, lanes, g.means);
        transpose_out<4>(d.quat, index, lanes, g.quats);
        transpose_out<3>(d.scale, index, lanes, g.scales);
        transpose_out<1>(&d.opacity, index, lanes, g.opacities);
    }
    for (int k = 0; k < 16; ++k) {
        float lanes[W];
        store(lanes, sum[k]);
        camera[k] = 0;
        for (int l = 0; l < W; ++l) camera[k] += double(lanes[l]);
    }
}

/// The same of all splats; zeroes the gradients of those that are not needed.
template <int CH> void backward_splats(const SplatScene& s, const SplatState& state, const SplatGradients& g, const float* pair_gradients, const Sample& sample) {
    const int chunks = int((s.n + chunk - 1) / chunk);
    const Camera cam(s);
    Buffer cameras(sizeof(double) * 16 * size_t(chunks + 1));
    const size_t colors = size_t(s.sh_degree >= 0 ? 3 * s.sh_coefficients : s.color_channels), features = size_t(s.feature_channels);
    each_chunk(s, sample, [&](size_t i) {
        if (g.geometry) zero(g.geometry + i * unknowns, unknowns);
        else zero(g.means + 3 * i, 3), zero(g.quats + 4 * i, 4), zero(g.scales + 3 * i, 3), zero(g.opacities + i, 1);
        zero(g.colors + i * colors, colors);
        if (features && g.features) zero(g.features + i * features, features);
    }, [&](const uint32_t* list, int count, int task) {
        backward_chunk<CH>(cam, s, state, g, pair_gradients, list, count, cameras.as<double>() + 16 * task);
    });
    for (int k = 0; k < 16; ++k) g.camera[k] = 0;
    for (int c = 0; c < chunks; ++c)
        for (int k = 0; k < 16; ++k) g.camera[k] += cameras.as<double>()[16 * c + k];
}

void backward(const SplatScene& s, const SplatState& state, const SplatImages& out, const SplatGradients& g) {
    const int tiles = s.tiles_x() * s.tiles_y();
    const size_t channels = size_t(s.channels());
    const Sample sample(s, state, g.image, g.alpha);
    Buffer backgrounds(sizeof(float) * size_t(tiles) * channels + 64);
    with_channels(s.channels(), [&]<int CH>() {
        const PairRows rows(s, state, sample, gradient_stride(CH));
        each(tiles, s.threads, [&](int t) {
            float* to_background = backgrounds.as<float>() + size_t(t) * channels;
            if (sample.has(t)) blend_tile_backward<CH>(s, state, out, g, t, rows.as<float>(), to_background);
            else zero(to_background, channels);
        });
        backward_splats<CH>(s, state, g, rows.as<float>(), sample);
    });
    if (!g.background) return;
    for (size_t c = 0; c < channels; ++c) g.background[c] = 0;
    for (int t = 0; t < tiles; ++t)
        for (size_t c = 0; c < channels; ++c) g.background[c] += double(backgrounds.as<float>()[size_t(t) * channels + c]);
}

/// Each splat's block of J^T W J and the colours' diagonal; at most three channels, `weights` shaped as the image.
void curvature(const SplatScene& s, const SplatState& state, const SplatImages& out, const float* weights, float* blocks, float* colors) {
    const Sample sample(s, state, weights);
    const PairRows rows(s, state, sample, curvature_stride);
    each(s.tiles_x() * s.tiles_y(), s.threads, [&](int t) {
        if (sample.has(t)) blend_tile_curvature(s, state, out, weights, t, rows.as<float>());
    });
    const Camera cam(s);
    const size_t size = size_t(s.sh_degree >= 0 ? 3 * s.sh_coefficients : s.color_channels);
    each_chunk(s, sample, [&](size_t i) { zero(blocks + i * block_size, block_size), zero(colors + i * size, size); },
               [&](const uint32_t* list, int count, int) { curvature_chunk(cam, s, state, rows.as<float>(), blocks, colors, list, count); });
}

/// The tangents of the splats that are needed, (N, record_stride); nothing is written to the others'.
void tangents_of(const SplatScene& s, const SplatState& state, const SplatStep& step, const Sample& sample, float* tangents) {
    const Camera cam(s);
    each_chunk(s, sample, [](size_t) {}, [&](const uint32_t* list, int count, int) { tangent_chunk(cam, s, state, step, list, count, tangents); });
}

/// J p, an image; with weights, only of the tiles in which one is not zero, and nothing is written to the others.
void jvp(const SplatScene& s, const SplatState& state, const SplatStep& step, const float* weights, float* change) {
    const Sample sample(s, state, weights);
    Buffer tangents(sizeof(float) * size_t(record_stride(s.channels())) * size_t(s.n + 1));
    tangents_of(s, state, step, sample, tangents.as<float>());
    with_channels(s.channels(), [&]<int CH>() {
        each(s.tiles_x() * s.tiles_y(), s.threads, [&](int t) {
            if (sample.has(t)) jvp_tile<CH>(s, state, tangents.as<float>(), t, change);
        });
    });
}

/// J^T W J p, tile by tile. `kept_bytes` is what one thread may keep of a tile.
void gauss_newton(const SplatScene& s, const SplatState& state, const SplatImages& out, const SplatStep& step, const float* weights, int64_t kept_bytes,
                  const SplatGradients& g) {
    const Sample sample(s, state, weights);
    Buffer tangents(sizeof(float) * size_t(record_stride(s.channels())) * size_t(s.n + 1));
    tangents_of(s, state, step, sample, tangents.as<float>());
    with_channels(s.channels(), [&]<int CH>() {
        const PairRows rows(s, state, sample, gradient_stride(CH));
        each(s.tiles_x() * s.tiles_y(), s.threads, [&](int t) {
            if (!sample.has(t)) return;
            const Buffer kept{size_t(kept_bytes)};
            gauss_newton_tile<CH>(s, state, out, tangents.as<float>(), weights, t, kept.as<char>(), kept_bytes, rows.as<float>());
        });
        backward_splats<CH>(s, state, g, rows.as<float>(), sample);
    });
}

extern const SplatKernels splat_kernels;
extern const ImageKernels image_kernels;
const SplatKernels splat_kernels = {forward, blend, backward, curvature, jvp, gauss_newton};
const ImageKernels image_kernels = {adam, block_step, ssim, ssim_backward};

}  // namespace ISA
