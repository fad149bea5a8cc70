// The Python module `kernels._cpu`: picks the instruction set and passes arrays through. No torch at build time:
// tensors arrive through DLPack, results leave as NumPy arrays that own blocks of our scratch memory.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "flexicubes.h"
#include "images.h"
#include "mesh_module.h"
#include "move.h"
#include "nearest.h"
#include "splats.h"

namespace nb = nanobind;
using namespace nb::literals;

#define DECLARE(isa)                                    \
    namespace isa {                                     \
    extern const egregium::SplatKernels splat_kernels;  \
    extern const egregium::ImageKernels image_kernels;  \
    extern const egregium::MeshKernels mesh_kernels;    \
    }
DECLARE(baseline)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
#endif

namespace {

using namespace egregium;

struct Chosen {
    std::string name = "baseline";
    const SplatKernels* splats = &baseline::splat_kernels;
    const ImageKernels* images = &baseline::image_kernels;
    const MeshKernels* mesh = &baseline::mesh_kernels;
};

std::vector<std::string> available() {
    std::vector<std::string> names{"baseline"};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) names.push_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        names.push_back("avx512");
#endif
    return names;
}

Chosen chosen;

void use(const std::string& name) {
    for (const std::string& each : available())
        if (each == name) {
            chosen = {name, &baseline::splat_kernels, &baseline::image_kernels, &baseline::mesh_kernels};
#if defined(__x86_64__)
            if (name == "avx2") chosen = {name, &avx2::splat_kernels, &avx2::image_kernels, &avx2::mesh_kernels};
            if (name == "avx512") chosen = {name, &avx512::splat_kernels, &avx512::image_kernels, &avx512::mesh_kernels};
#endif
            return;
        }
    throw nb::value_error(("this machine has no instruction set '" + name + "'").c_str());
}

/// The inputs of one camera, as Python holds them.
struct Scene {
    SplatScene s;

    Scene(In<float> means, In<float> quats, In<float> scales, In<float> opacities, In<float> colors, std::optional<In<float>> features,
          In<float> viewmat, In<float> K, std::optional<In<float>> background, std::optional<In<uint8_t>> mask, int width, int height,
          int sh_degree, float near_plane, float far_plane, float eps2d, bool antialiased, int threads) {
        s.n = int64_t(means.shape(0));
        if (s.n > int64_t(most_splats)) throw nb::value_error("at most 16,777,216 splats");
        s.means = means.data(), s.quats = quats.data(), s.scales = scales.data(), s.opacities = opacities.data(), s.colors = colors.data();
        s.sh_degree = sh_degree;
        if (sh_degree >= 0) s.sh_coefficients = int(colors.shape(1));
        else s.color_channels = int(colors.shape(1));
        if (features) s.features = features->data(), s.feature_channels = int(features->shape(1));
        if (s.channels() > most_channels) throw nb::value_error("at most 24 channels");
        s.viewmat = viewmat.data(), s.K = K.data();
        s.background = pointer(background), s.mask = pointer(mask);
        s.width = width, s.height = height;
        s.near_plane = near_plane, s.far_plane = far_plane, s.eps2d = eps2d;
        s.antialiased = antialiased;
        s.threads = threads;
    }
};

nb::tuple splats_forward(const Scene& scene, Out<float> image, Out<float> alpha, std::optional<Out<int32_t>> median) {
    const SplatScene& s = scene.s;
    const size_t stride = size_t(record_stride(s.channels())), tiles = size_t(s.tiles_x()) * size_t(s.tiles_y()), n = size_t(s.n);
    SplatState state;
    state.records = static_cast<float*>(acquire(sizeof(float) * stride * n + 64));
    auto records = owned(state.records, {n, stride});
    state.runs = static_cast<uint32_t*>(acquire(8 * n + 64));
    auto runs = owned(reinterpret_cast<int32_t*>(state.runs), {n, 2});
    state.tile_start = static_cast<uint32_t*>(acquire(4 * (tiles + 1)));
    auto tile_start = owned(reinterpret_cast<int32_t*>(state.tile_start), {tiles + 1});
    SplatImages out{image.data(), alpha.data(), pointer(median)};
    {
        nb::gil_scoped_release unlocked;
        chosen.splats->forward(s, state, out, [](void*, int64_t n_pairs, SplatState& to) {
            if (n_pairs >= (int64_t(1) << 31)) throw std::length_error("the splats of this view cover more than 2^31 tiles");
            to.n_pairs = n_pairs;
            to.pairs = static_cast<Pair*>(acquire(sizeof(Pair) * size_t(n_pairs) + 64));
        }, nullptr);
    }
    auto pairs = owned(reinterpret_cast<int32_t*>(state.pairs), {size_t(state.n_pairs), 2});
    return nb::make_tuple(records, runs, tile_start, pairs);
}

SplatState saved(In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs) {
    SplatState state;
    state.records = const_cast<float*>(records.data());
    state.runs = reinterpret_cast<uint32_t*>(const_cast<int32_t*>(runs.data()));
    state.tile_start = reinterpret_cast<uint32_t*>(const_cast<int32_t*>(tile_start.data()));
    state.pairs = reinterpret_cast<Pair*>(const_cast<int32_t*>(pairs.data()));
    state.n_pairs = int64_t(pairs.shape(0));
    state.rows_known = true;
    return state;
}

void splats_blend(const Scene& scene, In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs, Out<float> image, Out<float> alpha) {
    const SplatState state = saved(records, runs, tile_start, pairs);
    SplatImages out{image.data(), alpha.data(), nullptr};
    nb::gil_scoped_release unlocked;
    chosen.splats->blend(scene.s, state, out);
}

void splats_backward(const Scene& scene, In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs, In<float> image, In<float> alpha,
                     In<float> image_gradient, std::optional<In<float>> alpha_gradient, Out<float> means, Out<float> quats, Out<float> scales, Out<float> opacities,
                     Out<float> colors, std::optional<Out<float>> features, Out<double> camera, Out<double> background) {
    const SplatState state = saved(records, runs, tile_start, pairs);
    SplatImages out{const_cast<float*>(image.data()), const_cast<float*>(alpha.data()), nullptr};
    SplatGradients g;
    g.image = image_gradient.data(), g.alpha = pointer(alpha_gradient);
    g.means = means.data(), g.quats = quats.data(), g.scales = scales.data(), g.opacities = opacities.data(), g.colors = colors.data();
    g.features = pointer(features);
    g.camera = camera.data(), g.background = background.data();
    nb::gil_scoped_release unlocked;
    chosen.splats->backward(scene.s, state, out, g);
}

/// Returns the blocks (N, 55): in kept memory, for fresh pages would cost as much as to fill them.
nb::ndarray<nb::numpy, float> splats_curvature(const Scene& scene, In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs,
                                               In<float> image, In<float> weights, Out<float> colors) {
    const SplatState state = saved(records, runs, tile_start, pairs);
    SplatImages out{const_cast<float*>(image.data()), nullptr, nullptr};
    const size_t n = size_t(scene.s.n);
    float* block = static_cast<float*>(acquire(sizeof(float) * 55 * n));
    auto blocks = owned(block, {n, 55});
    {
        nb::gil_scoped_release unlocked;
        chosen.splats->curvature(scene.s, state, out, weights.data(), block, colors.data());
    }
    return blocks;
}

SplatStep step_of(std::optional<In<float>> geometry, std::optional<In<float>> colors, std::optional<In<float>> camera) {
    return {pointer(geometry), pointer(colors), pointer(camera)};
}

void splats_jvp(const Scene& scene, In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs, std::optional<In<float>> geometry,
                std::optional<In<float>> colors, std::optional<In<float>> camera, std::optional<In<float>> weights, Out<float> change) {
    const SplatState state = saved(records, runs, tile_start, pairs);
    const SplatStep step = step_of(geometry, colors, camera);
    nb::gil_scoped_release unlocked;
    chosen.splats->jvp(scene.s, state, step, pointer(weights), change.data());
}

void splats_vjp(const Scene& scene, In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs, In<float> image, In<float> alpha,
                In<float> cotangent, Out<float> to_geometry, Out<float> to_colors, Out<double> to_camera) {
    const SplatState state = saved(records, runs, tile_start, pairs);
    SplatImages out{const_cast<float*>(image.data()), const_cast<float*>(alpha.data()), nullptr};
    SplatGradients g;
    g.image = cotangent.data(), g.geometry = to_geometry.data(), g.colors = to_colors.data(), g.camera = to_camera.data();
    nb::gil_scoped_release unlocked;
    chosen.splats->backward(scene.s, state, out, g);
}

void splats_gauss_newton(const Scene& scene, In<float> records, In<int32_t> runs, In<int32_t> tile_start, In<int32_t> pairs, In<float> image,
                         std::optional<In<float>> geometry, std::optional<In<float>> colors, std::optional<In<float>> camera, In<float> weights,
                         int64_t kept_bytes, Out<float> to_geometry, Out<float> to_colors, Out<double> to_camera) {
    const SplatState state = saved(records, runs, tile_start, pairs);
    SplatImages out{const_cast<float*>(image.data()), nullptr, nullptr};
    const SplatStep step = step_of(geometry, colors, camera);
    SplatGradients g;
    g.geometry = to_geometry.data(), g.colors = to_colors.data(), g.camera = to_camera.data();
    nb::gil_scoped_release unlocked;
    chosen.splats->gauss_newton(scene.s, state, out, step, weights.data(), kept_bytes, g);
}

bool solve_blocks(In<float> blocks, In<float> gradients, Out<float> steps, float damping, int threads) {
    BlockArrays a{int64_t(gradients.shape(0)), int(gradients.shape(1)), blocks.data(), gradients.data(), steps.data(), threads, damping};
    nb::gil_scoped_release unlocked;
    return chosen.images->block_step(a);
}

bool block_step(std::optional<In<float>> blocks, In<float> gradients, Out<float> averages, Out<float> squares, In<float> shares, In<float> square_shares,
                In<float> rates, In<float> limits, Out<float> steps, float overlap, int threads) {
    const int64_t n = int64_t(gradients.shape(1));
    BlockArrays a{int64_t(gradients.shape(0)), int(n), pointer(blocks), gradients.data(), steps.data(), threads};
    a.averages = averages.data(), a.squares = squares.data(), a.shares = shares.data(), a.square_shares = square_shares.data();
    a.rates = rates.data(), a.limits = limits.data(), a.limit_stride = limits.ndim() == 2 ? n : 0, a.overlap = overlap;
    nb::gil_scoped_release unlocked;
    return chosen.images->block_step(a);
}

void move(Out<float> means, Out<float> log_scales, Out<float> quats, Out<float> logits, In<float> steps, int threads) {
    nb::gil_scoped_release unlocked;
    move_splats({means.data(), log_scales.data(), quats.data(), logits.data()}, steps.data(), int64_t(steps.shape(0)), threads);
}

ImageShape image_shape(const In<float>& image, int threads) {
    return {int(image.shape(0)), int(image.shape(1)), int(image.shape(2)), threads};
}

void ssim(In<float> x, In<float> y, Out<float> map, std::optional<Out<float>> partials, int threads) {
    nb::gil_scoped_release unlocked;
    chosen.images->ssim(image_shape(x, threads), x.data(), y.data(), map.data(), pointer(partials));
}

void ssim_backward(In<float> x, In<float> y, In<float> partials, In<float> incoming, Out<float> gradient, int threads) {
    nb::gil_scoped_release unlocked;
    chosen.images->ssim_backward(image_shape(x, threads), x.data(), y.data(), partials.data(), incoming.data(), gradient.data());
}

void adam(Out<float> parameter, In<float> gradient, Out<float> first, Out<float> second, In<float> factors, In<float> rates,
          std::optional<In<float>> limits, float limit, float beta1, float beta2, float eps, int threads) {
    AdamArrays a{int64_t(factors.shape(0)), int(rates.shape(0)), parameter.data(), const_cast<float*>(gradient.data()), first.data(), second.data(),
                 factors.data(), rates.data(), pointer(limits), limit, beta1, beta2, eps, threads};
    nb::gil_scoped_release unlocked;
    chosen.images->adam(a);
}

nb::tuple contour(int nx, int ny, int nz, In<uint8_t> inside, std::optional<In<int32_t>> cells, std::optional<In<int32_t>> corners, In<int8_t> flagged,
                  In<uint8_t> loops, In<uint8_t> counts, int threads) {
    ContourInput in{nx, ny, nz, int64_t(inside.size()), !cells, inside.data()};
    if (cells) in.cells = cells->data(), in.corners = corners.value().data(), in.n_cells = int64_t(cells->shape(0));
    in.threads = threads;
    Contour c;
    {
        nb::gil_scoped_release unlocked;
        c = dual_contour(in, {flagged.data(), loops.data(), counts.data()});
    }
    const size_t n = size_t(c.n_cells), e = size_t(c.n_edges);
    return nb::make_tuple(owned(c.rows, {n}), owned(c.cases, {n}), owned(c.first, {n + 1}), owned(c.samples, {size_t(c.n_samples)}), owned(c.corners, {n, 8}), owned(c.cell_edges, {n, 12}),
                          owned(c.edges, {e, 2}), owned(c.quads, {e, 4}), c.open_edges);
}

int64_t samples_of_cells(int nx, int ny, int nz, In<int32_t> cells, Out<int32_t> samples, Out<int32_t> corners) {
    nb::gil_scoped_release unlocked;
    return cell_samples(nx, ny, nz, cells.data(), int64_t(cells.shape(0)), samples.data(), corners.data());
}

template <class T> FlexiCubesArrays<T> flexicubes_arrays(const In<T>& positions, const In<T>& field, const In<T>& weights, const In<int16_t>& cases,
                                                         const In<int32_t>& first, const In<int32_t>& corners, const In<int32_t>& cell_edges,
                                                         const In<int32_t>& quads, const In<uint8_t>& loops, bool midpoints, const T* vertices,
                                                         const T* deviations, size_t n_vertices, int threads) {
    return {int64_t(field.shape(0)), int64_t(cases.shape(0)), int64_t(quads.shape(0)), int64_t(n_vertices), positions.data(), field.data(), weights.data(),
            cases.data(), first.data(), corners.data(), cell_edges.data(), quads.data(), loops.data(), midpoints, const_cast<T*>(vertices),
            const_cast<T*>(deviations), threads};
}

template <class T> void flexicubes_forward(In<T> positions, In<T> field, In<T> weights, In<int16_t> cases, In<int32_t> first, In<int32_t> corners,
                                           In<int32_t> cell_edges, In<int32_t> quads, In<uint8_t> loops, bool midpoints, Out<T> vertices, Out<T> deviations,
                                           int threads) {
    const auto a = flexicubes_arrays<T>(positions, field, weights, cases, first, corners, cell_edges, quads, loops, midpoints, vertices.data(),
                                        deviations.data(), deviations.shape(0), threads);
    nb::gil_scoped_release unlocked;
    flexicubes(a);
}

template <class T> void flexicubes_gradients(In<T> positions, In<T> field, In<T> weights, In<int16_t> cases, In<int32_t> first, In<int32_t> corners,
                                             In<int32_t> cell_edges, In<int32_t> quads, In<uint8_t> loops, bool midpoints, In<T> vertices, In<T> to_vertices,
                                             In<T> to_deviations, std::optional<Out<T>> to_positions, Out<T> to_field, Out<T> to_weights, int threads) {
    const auto a = flexicubes_arrays<T>(positions, field, weights, cases, first, corners, cell_edges, quads, loops, midpoints, vertices.data(), nullptr,
                                        to_deviations.shape(0), threads);
    const FlexiCubesGradients<T> g{to_vertices.data(), to_deviations.data(), pointer(to_positions), to_field.data(), to_weights.data()};
    nb::gil_scoped_release unlocked;
    flexicubes_backward(a, g);
}

template <class T> void define_flexicubes(nb::module_& m) {
    m.def("flexicubes", &flexicubes_forward<T>);
    m.def("flexicubes_backward", &flexicubes_gradients<T>, "positions"_a, "field"_a, "weights"_a, "cases"_a, "first"_a, "corners"_a, "cell_edges"_a,
          "quads"_a, "loops"_a, "midpoints"_a, "vertices"_a, "to_vertices"_a, "to_deviations"_a, "to_positions"_a.none(), "to_field"_a, "to_weights"_a,
          "threads"_a);
}

}  // namespace

NB_MODULE(_cpu, m) {
    const std::vector<std::string> names = available();
    const char* wanted = std::getenv("EGREGIUM_ISA");
    use(wanted ? wanted : names.back());

    m.def("available_isas", &available, "Instruction sets this machine can run, the best last.");
    m.def("isa", [] { return chosen.name; }, "The instruction set in use.");
    m.def("use_isa", &use, "name"_a, "Switch to another instruction set (for tests and benchmarks).");
    nb::class_<Scene>(m, "Scene", "Inputs of one camera; keeps no reference to the arrays: the caller must.")
        .def(nb::init<In<float>, In<float>, In<float>, In<float>, In<float>, std::optional<In<float>>, In<float>, In<float>, std::optional<In<float>>,
                      std::optional<In<uint8_t>>, int, int, int, float, float, float, bool, int>(),
             "means"_a, "quats"_a, "scales"_a, "opacities"_a, "colors"_a, "features"_a.none(), "viewmat"_a, "K"_a, "background"_a.none(), "mask"_a.none(),
             "width"_a, "height"_a, "sh_degree"_a, "near_plane"_a, "far_plane"_a, "eps2d"_a, "antialiased"_a, "threads"_a);
    m.def("splats_forward", &splats_forward, "scene"_a, "image"_a, "alpha"_a, "median"_a.none());
    m.def("splats_blend", &splats_blend);
    m.def("splats_backward", &splats_backward, "scene"_a, "records"_a, "runs"_a, "tile_start"_a, "pairs"_a, "image"_a, "alpha"_a, "image_gradient"_a,
          "alpha_gradient"_a.none(), "means"_a, "quats"_a, "scales"_a, "opacities"_a, "colors"_a, "features"_a.none(), "camera"_a, "background"_a);
    m.def("splats_curvature", &splats_curvature);
    m.def("splats_jvp", &splats_jvp, "scene"_a, "records"_a, "runs"_a, "tile_start"_a, "pairs"_a, "geometry"_a.none(), "colors"_a.none(), "camera"_a.none(),
          "weights"_a.none(), "change"_a);
    m.def("splats_vjp", &splats_vjp);
    m.def("splats_gauss_newton", &splats_gauss_newton, "scene"_a, "records"_a, "runs"_a, "tile_start"_a, "pairs"_a, "image"_a, "geometry"_a.none(),
          "colors"_a.none(), "camera"_a.none(), "weights"_a, "kept_bytes"_a, "to_geometry"_a, "to_colors"_a, "to_camera"_a);
    m.def("solve_blocks", &solve_blocks);
    m.def("block_step", &block_step, "blocks"_a.none(), "gradients"_a, "averages"_a, "squares"_a, "shares"_a, "square_shares"_a, "rates"_a, "limits"_a,
          "steps"_a, "overlap"_a, "threads"_a);
    m.def("move_splats", &move);
    m.def("ssim", &ssim, "x"_a, "y"_a, "map"_a, "partials"_a.none(), "threads"_a);
    m.def("ssim_backward", &ssim_backward, "x"_a, "y"_a, "partials"_a, "incoming"_a, "gradient"_a, "threads"_a);
    m.def("adam", &adam, "parameter"_a, "gradient"_a, "first"_a, "second"_a, "factors"_a, "rates"_a, "limits"_a.none(), "limit"_a, "beta1"_a, "beta2"_a,
          "eps"_a, "threads"_a);
    m.def("dual_contour", &contour, "nx"_a, "ny"_a, "nz"_a, "inside"_a, "cells"_a.none(), "corners"_a.none(), "flagged"_a, "loops"_a, "counts"_a, "threads"_a);
    m.def("cell_samples", &samples_of_cells, "nx"_a, "ny"_a, "nz"_a, "cells"_a, "samples"_a, "corners"_a);
    define_flexicubes<float>(m);
    define_flexicubes<double>(m);
    define_mesh(m, chosen.mesh);
    define_nearest(m);
}
