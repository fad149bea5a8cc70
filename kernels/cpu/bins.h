// The triangles that each tile of 16 x 16 pixels may see.
//
// A triangle is cut to -w <= z <= w, its bounds on the image are found in double, and of a large one only the tiles are
// kept that no edge function excludes. Chunks of triangles are binned in parallel, counted first and then placed, so that
// each tile has its triangles in ascending order for any number of threads.
#pragma once

#include "corners.h"
#include "growing.h"
#include "scatter.h"

namespace ISA {
namespace mesh {

constexpr int side_of_tile = 16, pixels_of_tile = side_of_tile * side_of_tile;
constexpr double bound_slack = 1e-6;  // pixels: bounds may be too wide, never too narrow

/// A triangle on a tile, with the box of pixels there that it may cover.
struct Bin {
    uint32_t triangle;
    uint32_t packed;  // x0 | x1 << 4 | y0 << 8 | y1 << 12
};

struct Box {
    int x0, x1, y0, y1;  // first and last pixel; empty if x0 > x1 or y0 > y1
};

/// Bounds of what is visible of a triangle, on the image and in double: low and high x, low and high y.
struct Extent {
    double x0 = 1e300, x1 = -1e300, y0 = 1e300, y1 = -1e300;
    void add(double x, double y) {
        x0 = x < x0 ? x : x0, x1 = x > x1 ? x : x1, y0 = y < y0 ? y : y0, y1 = y > y1 ? y : y1;
    }
};

/// The triangle cut to -w <= z <= w, where w >= 0, as only that part is seen.
inline Extent clipped_extent(const Corner v[3]) {
    Corner polygon[2][8];
    int n = 3;
    for (int i = 0; i < 3; ++i) polygon[0][i] = v[i];
    for (int plane = 0; plane < 2; ++plane) {
        const Corner* from = polygon[plane];
        Corner* to = polygon[1 - plane];
        int m = 0;
        for (int i = 0; i < n; ++i) {
            const Corner &a = from[i], &b = from[(i + 1) % n];
            const double da = plane ? a.w - a.z : a.w + a.z, db = plane ? b.w - b.z : b.w + b.z;
            if (da >= 0) to[m++] = a;
            if ((da >= 0) != (db >= 0)) {
                const double t = da / (da - db);
                to[m++] = {a.X + t * (b.X - a.X), a.Y + t * (b.Y - a.Y), a.z + t * (b.z - a.z), a.w + t * (b.w - a.w)};
            }
        }
        n = m;
    }
    Extent e;
    for (int i = 0; i < n; ++i) {
        const Corner& a = polygon[0][i];
        // A point in the camera's plane is at infinity, in its direction; at the camera itself, in any.
        const double w = a.w > 1e-200 ? a.w : 1e-200;
        e.add(a.X / w, a.Y / w);
        if (a.w <= 1e-200 && (a.X == 0 || a.Y == 0)) e.add(-1e300, -1e300), e.add(1e300, 1e300);
    }
    return e;
}

inline int pixel_at(double x, int last) { return x <= 0 ? 0 : x >= double(last) ? last : int(x); }

/// The pixels whose centres a triangle may cover.
inline Box bounds(const MeshScene& s, const Corner v[3]) {
    Extent e;
    if (v[0].w > 0 && v[1].w > 0 && v[2].w > 0 && v[0].z >= -v[0].w && v[1].z >= -v[1].w && v[2].z >= -v[2].w)
        for (int i = 0; i < 3; ++i) {
            const double inverse = 1 / v[i].w;
            e.add(v[i].X * inverse, v[i].Y * inverse);
        }
    else
        e = clipped_extent(v);
    e.x0 -= 0.5 + bound_slack, e.x1 -= 0.5 - bound_slack, e.y0 -= 0.5 + bound_slack, e.y1 -= 0.5 - bound_slack;
    // Negated, so that bounds that are no numbers exclude nothing.
    if (e.x1 < 0 || e.y1 < 0 || e.x0 > s.width - 1 || e.y0 > s.height - 1) return {1, 0, 1, 0};
    Box box{pixel_at(e.x0, s.width), pixel_at(e.x1, s.width - 1), pixel_at(e.y0, s.height), pixel_at(e.y1, s.height - 1)};
    box.x0 += box.x0 < e.x0;
    box.y0 += box.y0 < e.y0;
    return box;
}

/// True if all centres in the box are outside one edge.
inline bool outside(const Barycentrics& b, double x0, double x1, double y0, double y1) {
    for (int i = 0; i < 3; ++i) {
        const double x = b.A[i] * (b.A[i] > 0 ? x1 : x0), y = b.B[i] * (b.B[i] > 0 ? y1 : y0);
        if (x + y + b.C[i] < -1e-9 * (__builtin_fabs(x) + __builtin_fabs(y) + __builtin_fabs(b.C[i]))) return true;
    }
    return false;
}

/// Each tile's triangles, in ascending order.
class Bins {
  public:
    Bins(const MeshScene& s, const float* positions)
        : tiles_x((s.width + side_of_tile - 1) / side_of_tile), tiles_y((s.height + side_of_tile - 1) / side_of_tile),
          starts_(sizeof(int64_t) * size_t(tiles_x * tiles_y + 1)) {
        const int tiles = tiles_x * tiles_y;
        int chunks = int((s.triangles + 4095) / 4096);
        chunks = max(1, min(min(chunks, most_chunks), (1 << 23) / tiles));
        Buffer places_block(sizeof(uint32_t) * size_t(tiles) * size_t(chunks));
        uint32_t* places = places_block.as<uint32_t>();
        Growing<Bin> found[most_chunks];
        Growing<uint32_t> tile_of[most_chunks];
        each(chunks, s.threads, [&](int chunk) {
            uint32_t* count = places + size_t(chunk) * size_t(tiles);
            std::memset(count, 0, sizeof(uint32_t) * size_t(tiles));
            const int64_t last = s.triangles * (chunk + 1) / chunks;
            for (int64_t t = s.triangles * chunk / chunks; t < last; ++t) {
                Corner v[3];
                if (!corners(s, positions, t, v)) continue;
                const Box box = bounds(s, v);
                if (box.x0 > box.x1 || box.y0 > box.y1) continue;
                const int left = box.x0 / side_of_tile, right = box.x1 / side_of_tile, top = box.y0 / side_of_tile, bottom = box.y1 / side_of_tile;
                const bool several = (right - left + 1) * (bottom - top + 1) > 2;
                Barycentrics b;
                if (several) {
                    b.set(v, 0, 0);
                    if (!(b.determinant != 0)) continue;
                }
                for (int y = top; y <= bottom; ++y)
                    for (int x = left; x <= right; ++x) {
                        const int x0 = x * side_of_tile, y0 = y * side_of_tile;
                        const Box part{max(box.x0 - x0, 0), min(box.x1 - x0, 15), max(box.y0 - y0, 0), min(box.y1 - y0, 15)};
                        if (several && outside(b, x0 + part.x0 + 0.5, x0 + part.x1 + 0.5, y0 + part.y0 + 0.5, y0 + part.y1 + 0.5)) continue;
                        const uint32_t tile = uint32_t(y * tiles_x + x);
                        found[chunk].push({uint32_t(t), uint32_t(part.x0 | part.x1 << 4 | part.y0 << 8 | part.y1 << 12)});
                        tile_of[chunk].push(tile);
                        ++count[tile];
                    }
            }
        });
        int64_t total = 0;
        int64_t* starts = starts_.as<int64_t>();
        for (int tile = 0; tile < tiles; ++tile) {
            starts[tile] = total;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                uint32_t& place = places[size_t(chunk) * size_t(tiles) + size_t(tile)];
                const uint32_t n = place;
                place = uint32_t(total - starts[tile]);
                total += n;
            }
        }
        starts[tiles] = total;
        bins_ = static_cast<Bin*>(acquire(sizeof(Bin) * size_t(total + 1)));
        each(chunks, s.threads, [&](int chunk) {
            uint32_t* place = places + size_t(chunk) * size_t(tiles);
            for (size_t i = 0; i < found[chunk].size; ++i) {
                const uint32_t tile = tile_of[chunk].data[i];
                bins_[size_t(starts[tile]) + place[tile]++] = found[chunk].data[i];
            }
        });
    }
    ~Bins() { release(bins_); }
    Bins(const Bins&) = delete;
    Bins& operator=(const Bins&) = delete;

    const Bin* begin(int tile) const { return bins_ + starts_.as<int64_t>()[tile]; }
    const Bin* end(int tile) const { return bins_ + starts_.as<int64_t>()[tile + 1]; }

    const int tiles_x, tiles_y;

  private:
    static constexpr int most_chunks = 64;
    Buffer starts_;
    Bin* bins_ = nullptr;
};

}  // namespace mesh
}  // namespace ISA
