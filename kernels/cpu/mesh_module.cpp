// The mesh kernels' part of the Python module: passes arrays through, as module.cpp does for the others.
#include "mesh_module.h"

#include <algorithm>
#include <string>

#include <nanobind/stl/optional.h>

#include "arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace egregium {
namespace {

/// Every kernel trusts the numbers it reads, so they are looked at first: all must be `least` or more and below `end`.
void check_numbers(const In<int32_t>& array, int32_t least, int64_t end, const std::string& message) {
    const int32_t* number = array.data();
    const size_t n = array.size();
    uint32_t highest = 0;  // above `least`: numbers below it are high ones
    for (size_t i = 0; i < n; ++i) highest = std::max(highest, uint32_t(number[i]) - uint32_t(least));
    if (n && int64_t(highest) >= end - least)
        throw nb::value_error((message + " " + std::to_string(int32_t(highest + uint32_t(least))) + ", but they are " + std::to_string(least) + " to " + std::to_string(end - 1)).c_str());
}

void check_faces(const In<int32_t>& faces, int64_t vertices) { check_numbers(faces, 0, vertices, "faces names vertex"); }

MeshScene scene(const In<float>& positions, const In<int32_t>& faces, int width, int height, int threads) {
    MeshScene s;
    s.batch = int64_t(positions.shape(0)), s.vertices = int64_t(positions.shape(1)), s.triangles = int64_t(faces.shape(0));
    s.positions = positions.data(), s.faces = faces.data();
    s.width = width, s.height = height, s.threads = threads;
    check_faces(faces, s.vertices);
    return s;
}

AttributeScene attribute_scene(const In<float>& attributes, const In<float>& rast, const In<int32_t>& faces, const std::optional<In<float>>& rast_db,
                               const In<int32_t>& which, int threads) {
    AttributeScene s;
    s.attribute_batch = int64_t(attributes.shape(0)), s.vertices = int64_t(attributes.shape(1)), s.channels = int(attributes.shape(2));
    s.triangles = int64_t(faces.shape(0)), s.batch = int64_t(rast.shape(0)), s.height = int(rast.shape(1)), s.width = int(rast.shape(2));
    s.attributes = attributes.data(), s.faces = faces.data(), s.rast = rast.data(), s.rast_db = pointer(rast_db);
    s.which = which.data(), s.derivatives = int(which.shape(0));
    s.threads = threads;
    check_faces(faces, s.vertices);
    return s;
}

TextureScene texture_scene(const In<float>& pyramid, const In<float>& uv, const std::optional<In<float>>& uv_da, int height, int width, int levels, int filter,
                           int boundary, int threads) {
    TextureScene s;
    s.texture_batch = int64_t(pyramid.shape(0)), s.texels = int64_t(pyramid.shape(1)), s.channels = int(pyramid.shape(2));
    s.batch = int64_t(uv.shape(0)), s.pixels = int64_t(uv.shape(1)) * int64_t(uv.shape(2));
    s.height = height, s.width = width, s.levels = levels;
    s.pyramid = pyramid.data(), s.uv = uv.data(), s.uv_da = pointer(uv_da);
    s.filter = Filter(filter), s.boundary = Boundary(boundary);
    s.threads = threads;
    return s;
}

}  // namespace

void define_mesh(nb::module_& m, const MeshKernels* const& kernels) {
    m.def("mesh_rasterize", [&kernels](In<float> positions, In<int32_t> faces, int width, int height, int layers, Out<float> rast, Out<float> rast_db, int threads) {
        const MeshScene s = scene(positions, faces, width, height, threads);
        nb::gil_scoped_release unlocked;
        kernels->rasterize(s, layers, rast.data(), rast_db.data());
    });
    m.def("mesh_rasterize_backward", [&kernels](In<float> positions, In<int32_t> faces, int width, int height, int layers, In<float> rast, In<float> gradient,
                                                std::optional<In<float>> db_gradient, Out<float> out, int threads) {
        const MeshScene s = scene(positions, faces, width, height, threads);
        nb::gil_scoped_release unlocked;
        kernels->rasterize_backward(s, layers, rast.data(), gradient.data(), pointer(db_gradient), out.data());
    }, "positions"_a, "faces"_a, "width"_a, "height"_a, "layers"_a, "rast"_a, "gradient"_a, "db_gradient"_a.none(), "out"_a, "threads"_a);
    m.def("mesh_interpolate", [&kernels](In<float> attributes, In<float> rast, In<int32_t> faces, std::optional<In<float>> rast_db, In<int32_t> which,
                                         Out<float> out, Out<float> out_da, int threads) {
        const AttributeScene s = attribute_scene(attributes, rast, faces, rast_db, which, threads);
        nb::gil_scoped_release unlocked;
        kernels->interpolate(s, out.data(), out_da.data());
    }, "attributes"_a, "rast"_a, "faces"_a, "rast_db"_a.none(), "which"_a, "out"_a, "out_da"_a, "threads"_a);
    m.def("mesh_interpolate_backward", [&kernels](In<float> attributes, In<float> rast, In<int32_t> faces, std::optional<In<float>> rast_db, In<int32_t> which,
                                                  In<float> gradient, std::optional<In<float>> da_gradient, std::optional<Out<float>> to_attributes,
                                                  std::optional<Out<float>> to_rast, std::optional<Out<float>> to_rast_db, int threads) {
        const AttributeScene s = attribute_scene(attributes, rast, faces, rast_db, which, threads);
        nb::gil_scoped_release unlocked;
        kernels->interpolate_backward(s, gradient.data(), pointer(da_gradient), pointer(to_attributes), pointer(to_rast), pointer(to_rast_db));
    }, "attributes"_a, "rast"_a, "faces"_a, "rast_db"_a.none(), "which"_a, "gradient"_a, "da_gradient"_a.none(), "to_attributes"_a.none(), "to_rast"_a.none(),
          "to_rast_db"_a.none(), "threads"_a);
    m.def("mesh_texture", [&kernels](In<float> pyramid, In<float> uv, std::optional<In<float>> uv_da, int height, int width, int levels, int filter, int boundary,
                                     Out<float> out, int threads) {
        const TextureScene s = texture_scene(pyramid, uv, uv_da, height, width, levels, filter, boundary, threads);
        nb::gil_scoped_release unlocked;
        kernels->texture(s, out.data());
    }, "pyramid"_a, "uv"_a, "uv_da"_a.none(), "height"_a, "width"_a, "levels"_a, "filter"_a, "boundary"_a, "out"_a, "threads"_a);
    m.def("mesh_texture_backward", [&kernels](In<float> pyramid, In<float> uv, std::optional<In<float>> uv_da, int height, int width, int levels, int filter,
                                              int boundary, In<float> gradient, std::optional<Out<float>> to_pyramid, std::optional<Out<float>> to_uv,
                                              std::optional<Out<float>> to_uv_da, int threads) {
        const TextureScene s = texture_scene(pyramid, uv, uv_da, height, width, levels, filter, boundary, threads);
        nb::gil_scoped_release unlocked;
        kernels->texture_backward(s, gradient.data(), pointer(to_pyramid), pointer(to_uv), pointer(to_uv_da));
    }, "pyramid"_a, "uv"_a, "uv_da"_a.none(), "height"_a, "width"_a, "levels"_a, "filter"_a, "boundary"_a, "gradient"_a, "to_pyramid"_a.none(), "to_uv"_a.none(),
          "to_uv_da"_a.none(), "threads"_a);
    m.def("mesh_face_neighbors", [](In<int32_t> faces, int64_t vertices, Out<int32_t> neighbors, int threads) {
        check_faces(faces, vertices);
        nb::gil_scoped_release unlocked;
        face_neighbors(faces.data(), int64_t(faces.shape(0)), vertices, neighbors.data(), threads);
    });
    m.def("mesh_crossings", [&kernels](In<float> positions, In<int32_t> faces, In<int32_t> neighbors, In<float> rast, int threads) {
        const MeshScene s = scene(positions, faces, int(rast.shape(2)), int(rast.shape(1)), threads);
        check_numbers(neighbors, -1, s.triangles, "neighbors names triangle");
        int64_t count = 0;
        Crossing* found = nullptr;
        {
            nb::gil_scoped_release unlocked;
            found = kernels->find_crossings(s, neighbors.data(), rast.data(), &count);
        }
        static_assert(sizeof(Crossing) == 5 * sizeof(int32_t));
        return owned(reinterpret_cast<int32_t*>(found), {size_t(count), 5});
    });
    m.def("mesh_antialias", [](In<int32_t> crossings, In<float> color, Out<float> out) {
        const auto* c = reinterpret_cast<const Crossing*>(crossings.data());
        nb::gil_scoped_release unlocked;
        antialias(c, int64_t(crossings.shape(0)), int(color.shape(2)), int(color.shape(3)), color.data(), out.data());
    });
    m.def("mesh_antialias_backward", [](In<float> positions, In<int32_t> faces, In<int32_t> crossings, In<float> color, In<float> gradient,
                                        std::optional<Out<float>> to_color, std::optional<Out<float>> to_positions) {
        const MeshScene s = scene(positions, faces, int(color.shape(2)), int(color.shape(1)), 1);
        const auto* c = reinterpret_cast<const Crossing*>(crossings.data());
        nb::gil_scoped_release unlocked;
        antialias_backward(s, c, int64_t(crossings.shape(0)), int(color.shape(3)), color.data(), gradient.data(), pointer(to_color), pointer(to_positions));
    }, "positions"_a, "faces"_a, "crossings"_a, "color"_a, "gradient"_a, "to_color"_a.none(), "to_positions"_a.none());
}

}  // namespace egregium
