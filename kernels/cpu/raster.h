// Which triangle each pixel sees.
//
// A task takes one tile: for each of its triangles the three edge functions and the depth are evaluated along rows of
// pixels in float; where rounding could decide whether a pixel is inside, the exact sign does.
//
// Depth is kept as 1 - z/w, larger is nearer: floats are finest near 0, where most of a perspective view lies.
#pragma once

#include "bins.h"
#include "fragments.h"

namespace ISA {
namespace mesh {

static_assert(Fragments::n == side_of_tile);

/// What the pixels of a tile see.
struct Tile {
    float depth[pixels_of_tile];      // 1 - z/w, -1 where nothing is seen
    int32_t triangle[pixels_of_tile]; // -1 where nothing is seen
    int x0, y0;
};

/// Draw one triangle into the tile. With `before`, only what lies behind that layer: deeper, or as deep and later.
inline void draw(const Corner v[3], const Bin& bin, Tile& tile, const Tile* before) {
    Barycentrics b;
    const double left = tile.x0 + 0.5, top = tile.y0 + 0.5;
    b.set(v, left, top);
    if (!(b.determinant != 0)) return;
    float A[4], B[4], C[4], doubt[3];
    double dA = 0, dB = 0, dC = 1;
    for (int i = 0; i < 3; ++i) {
        A[i] = float(b.A[i]), B[i] = float(b.B[i]), C[i] = float(b.C[i]);
        dA -= b.A[i] * v[i].z, dB -= b.B[i] * v[i].z, dC -= b.C[i] * v[i].z;
        // Three roundings of coefficients, two products, two sums: each within 2^-24 of at most this.
        doubt[i] = 4e-7f * (float(side_of_tile) * (__builtin_fabsf(A[i]) + __builtin_fabsf(B[i])) + __builtin_fabsf(C[i]));
    }
    A[3] = float(dA), B[3] = float(dB), C[3] = float(dC);
    const int number = int(bin.triangle);
    const int x0 = int(bin.packed & 15) / W * W, x1 = int(bin.packed >> 4 & 15), y0 = int(bin.packed >> 8 & 15), y1 = int(bin.packed >> 12 & 15);
    for (int y = y0; y <= y1; ++y)
        for (int x = x0; x <= x1; x += W) {
            const Vf X = iota() + float(x);
            Vf value[4];
            for (int i = 0; i < 4; ++i) value[i] = A[i] * X + (B[i] * float(y) + C[i]);
            float* depth = tile.depth + y * side_of_tile + x;
            int32_t* triangle = tile.triangle + y * side_of_tile + x;
            // Unknown is what is not surely outside; a NaN is unknown.
            Mask unknown = both(both(Mask(~lt(value[0], splat(-doubt[0]))), Mask(~lt(value[1], splat(-doubt[1])))), Mask(~lt(value[2], splat(-doubt[2]))));
            unknown = both(unknown, both(lt(load(depth), value[3]), both(ge(value[3], splat(0.0f)), ge(splat(2.0f), value[3]))));
            if (!any(unknown)) continue;
            if (before) {
                const Vf nearer = load(before->depth + y * side_of_tile + x);
                Vi first;
                std::memcpy(&first, before->triangle + y * side_of_tile + x, sizeof first);
                const Mask behind = lt(value[3], nearer);
                const Mask level = both(Mask(~lt(value[3], nearer)), both(ge(nearer, value[3]), lt(__builtin_convertvector(first, Vf), splat(float(number)))));
                unknown = both(unknown, Mask(behind | level));
            }
            const Mask sure = both(both(lt(splat(doubt[0]), value[0]), lt(splat(doubt[1]), value[1])), lt(splat(doubt[2]), value[2]));
            const Mask visible = both(unknown, sure);
            const Mask left_over = both(unknown, Mask(~sure));
            if (any(visible)) {
                store(depth, select(visible, value[3], load(depth)));
                Vi old;
                std::memcpy(&old, triangle, sizeof old);
                old = select(visible, Vi{} + number, old);
                std::memcpy(triangle, &old, sizeof old);
            }
            if (any(left_over)) {
                const int inside = b.determinant > 0 ? 1 : -1;
                for (int l = 0; l < W; ++l) {
                    if (!lane(left_over, l)) continue;
                    const double px = left + x + l, py = top + y;
                    if (side(v[1], v[2], px, py) != inside || side(v[2], v[0], px, py) != inside || side(v[0], v[1], px, py) != inside) continue;
                    depth[l] = value[3][l];
                    triangle[l] = number;
                }
            }
        }
}

/// rast and rast_db: (layers, batch, height, width, 4).
void rasterize(const MeshScene& s, int layers, float* rast, float* rast_db) {
    for (int64_t image = 0; image < s.batch; ++image) {
        const float* positions = s.positions + 4 * image * s.vertices;
        const Bins bins(s, positions);
        each(bins.tiles_x * bins.tiles_y, s.threads, [&](int index) {
            Tile tiles[2];
            for (int layer = 0; layer < layers; ++layer) {
                Tile& tile = tiles[layer & 1];
                const Tile* before = layer ? &tiles[~layer & 1] : nullptr;
                tile.x0 = index % bins.tiles_x * side_of_tile, tile.y0 = index / bins.tiles_x * side_of_tile;
                for (int i = 0; i < pixels_of_tile; ++i) tile.depth[i] = -1, tile.triangle[i] = -1;
                for (const Bin* bin = bins.begin(index); bin < bins.end(index); ++bin) {
                    Corner v[3];
                    corners(s, positions, bin->triangle, v);
                    draw(v, *bin, tile, before);
                }
                const size_t at = 4 * s.pixels() * size_t(layer * s.batch + image);
                for (int row = 0; row < min(side_of_tile, s.height - tile.y0); ++row)
                    resolve(s, positions, tile.triangle + row * side_of_tile, tile.x0, tile.y0 + row, rast + at, rast_db + at);
            }
        });
    }
}

}  // namespace mesh
}  // namespace ISA
