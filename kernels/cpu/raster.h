// Which triangle each pixel sees, and where on it.
//
// Triangles are binned into tiles of 16 x 16 pixels. A task takes one tile: for each of its triangles the three edge
// functions and the depth are evaluated along rows of pixels in float; where rounding could decide whether a pixel is
// inside, the exact sign does. Then the visible triangle's barycentrics are computed once a pixel, in double.
//
// Depth is kept as 1 - z/w, larger is nearer: floats are finest near 0, where most of a perspective view lies.
#pragma once

#include "corners.h"
#include "scatter.h"

namespace ISA {
namespace mesh {

constexpr int side_of_tile = 16, pixels_of_tile = side_of_tile * side_of_tile;
constexpr double bound_slack = 1e-6;  // pixels: bounds may be too wide, never too narrow

/// A growing array in kept memory.
template <class T> struct Growing {
    T* data = nullptr;
    size_t size = 0, room = 0;
    ~Growing() {
        if (data) release(data);
    }
    void push(const T& value) {
        if (size == room) {
            room = room ? 2 * room : 4096;
            T* grown = static_cast<T*>(acquire(room * sizeof(T)));
            if (data) {
                std::memcpy(grown, data, size * sizeof(T));
                release(data);
            }
            data = grown;
        }
        data[size++] = value;
    }
};

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

/// A row of a tile's fragments, one array for each quantity, so that the compiler computes several at once.
struct Fragments {
    static constexpr int n = side_of_tile;
    double X[3][n], Y[3][n], z[3][n], w[3][n], A[3][n], B[3][n], C[3][n], total[n];
    bool seen[n];

    /// Of pixels (x0, y) to (x0 + n - 1, y); `triangle(i)` is -1 where none is seen.
    template <class Triangle> void set(const MeshScene& s, const float* positions, int x0, int y, Triangle&& triangle) {
        for (int i = 0; i < n; ++i) {
            const int64_t t = triangle(i);
            seen[i] = t >= 0;
            static constexpr float unit[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 1}};
            for (int k = 0; k < 3; ++k) {
                const float* p = t >= 0 ? positions + 4 * int64_t(s.faces[3 * t + k]) : unit[k];
                const Corner v = corner(p, 0.5 * s.width, 0.5 * s.height);
                X[k][i] = v.X, Y[k][i] = v.Y, z[k][i] = v.z, w[k][i] = v.w;
            }
        }
        // Relative to each pixel, so that its own barycentrics are the last column of M⁻¹.
        const double py = y + 0.5;
        for (int k = 0; k < 3; ++k)
            for (int i = 0; i < n; ++i) X[k][i] -= (x0 + i + 0.5) * w[k][i], Y[k][i] -= py * w[k][i];
        double determinant[n] = {};
        for (int k = 0; k < 3; ++k) {
            const int j = (k + 1) % 3, l = (k + 2) % 3;
            for (int i = 0; i < n; ++i) {
                A[k][i] = Y[j][i] * w[l][i] - w[j][i] * Y[l][i];
                B[k][i] = w[j][i] * X[l][i] - X[j][i] * w[l][i];
                C[k][i] = X[j][i] * Y[l][i] - Y[j][i] * X[l][i];
                determinant[i] += C[k][i] * w[k][i];
            }
        }
        for (int i = 0; i < n; ++i) total[i] = 0;
        for (int k = 0; k < 3; ++k)
            for (int i = 0; i < n; ++i) {
                const double inverse = 1 / determinant[i];
                A[k][i] *= inverse, B[k][i] *= inverse, C[k][i] *= inverse;
                total[i] += C[k][i];
            }
    }
};

/// Write one row of a tile's pixels.
inline void resolve(const MeshScene& s, const float* positions, const Tile& tile, int row, float* rast, float* rast_db) {
    const int y = tile.y0 + row, columns = min(side_of_tile, s.width - tile.x0);
    const int32_t* triangle = tile.triangle + row * side_of_tile;
    float* to = rast + 4 * (size_t(y) * size_t(s.width) + size_t(tile.x0));
    float* to_db = rast_db + 4 * (size_t(y) * size_t(s.width) + size_t(tile.x0));
    std::memset(to, 0, 16 * size_t(columns));
    std::memset(to_db, 0, 16 * size_t(columns));
    bool anything = false;
    for (int i = 0; i < columns; ++i) anything |= triangle[i] >= 0;
    if (!anything) return;
    Fragments f;
    f.set(s, positions, tile.x0, y, [&](int i) { return i < columns ? int64_t(triangle[i]) : -1; });
    float out[7][Fragments::n];
    for (int i = 0; i < Fragments::n; ++i) {
        const double inverse = 1 / f.total[i], u = f.C[0][i] * inverse, v = f.C[1][i] * inverse;
        const double a = f.A[0][i] + f.A[1][i] + f.A[2][i], b = f.B[0][i] + f.B[1][i] + f.B[2][i];
        out[0][i] = float(u), out[1][i] = float(v);
        out[2][i] = float(f.C[0][i] * f.z[0][i] + f.C[1][i] * f.z[1][i] + f.C[2][i] * f.z[2][i]);
        out[3][i] = float((f.A[0][i] - u * a) * inverse), out[4][i] = float((f.B[0][i] - u * b) * inverse);
        out[5][i] = float((f.A[1][i] - v * a) * inverse), out[6][i] = float((f.B[1][i] - v * b) * inverse);
    }
    for (int i = 0; i < columns; ++i) {
        if (!f.seen[i]) continue;
        for (int c = 0; c < 3; ++c) to[4 * i + c] = out[c][i];
        to[4 * i + 3] = float(triangle[i] + 1);
        for (int c = 0; c < 4; ++c) to_db[4 * i + c] = out[3 + c][i];
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
                for (int row = 0; row < min(side_of_tile, s.height - tile.y0); ++row) resolve(s, positions, tile, row, rast + at, rast_db + at);
            }
        });
    }
}

/// positions = d(Σ gradient · rast + Σ db_gradient · rast_db) by the vertices, (batch, vertices, 4). Which triangle is
/// seen counts as fixed. db_gradient may be null.
void rasterize_backward(const MeshScene& s, int layers, const float* rast, const float* gradient, const float* db_gradient, float* positions) {
    const int64_t images = int64_t(layers) * s.batch;
    const int rows_a_chunk = max(1, 16384 / s.width), chunks_an_image = (s.height + rows_a_chunk - 1) / rows_a_chunk;
    const size_t pixels = s.pixels();
    // An image at a time: three rows of four for each pixel.
    Buffer rows_block(sizeof(float) * 12 * pixels);
    float* rows = rows_block.as<float>();
    for (int64_t image = 0; image < images; ++image) {
        const int64_t b = image % s.batch;
        const float *seen = rast + 4 * pixels * size_t(image), *g = gradient + 4 * pixels * size_t(image);
        const float *db = db_gradient ? db_gradient + 4 * pixels * size_t(image) : nullptr, *points = s.positions + 4 * b * s.vertices;
        each(chunks_an_image, s.threads, [&](int chunk) {
            const int first = chunk * rows_a_chunk, last = min(s.height, first + rows_a_chunk);
            for (int y = first; y < last; ++y)
                for (int x0 = 0; x0 < s.width; x0 += Fragments::n) {
                    const int columns = min(Fragments::n, s.width - x0);
                    const size_t at = size_t(y) * size_t(s.width) + size_t(x0);
                    Fragments f;
                    f.set(s, points, x0, y, [&](int i) { return i < columns ? triangle_of(seen[4 * (at + size_t(i)) + 3], s.triangles) : -1; });
                    double incoming[3][Fragments::n] = {}, by_db[4][Fragments::n] = {};
                    for (int i = 0; i < columns; ++i) {
                        for (int c = 0; c < 3; ++c) incoming[c][i] = double(g[4 * (at + size_t(i)) + size_t(c)]);
                        if (db)
                            for (int c = 0; c < 4; ++c) by_db[c][i] = double(db[4 * (at + size_t(i)) + size_t(c)]);
                    }
                    float out[12][Fragments::n];
                    for (int i = 0; i < Fragments::n; ++i) {
                        // N = M⁻¹ has the rows (A, B, C), and p = (0, 0, 1). From u, v, z/w and the slopes back to N.
                        const double inverse = 1 / f.total[i], u = f.C[0][i] * inverse, v = f.C[1][i] * inverse;
                        const double a = f.A[0][i] + f.A[1][i] + f.A[2][i], bb = f.B[0][i] + f.B[1][i] + f.B[2][i];
                        const double uX = by_db[0][i] * inverse, uY = by_db[1][i] * inverse, vX = by_db[2][i] * inverse, vY = by_db[3][i] * inverse;
                        const double to_u = incoming[0][i] - uX * a - uY * bb, to_v = incoming[1][i] - vX * a - vY * bb;
                        const double to_total = -inverse * (to_u * u + to_v * v) - inverse * (uX * (f.A[0][i] - u * a) + uY * (f.B[0][i] - u * bb) + vX * (f.A[1][i] - v * a) + vY * (f.B[1][i] - v * bb));
                        const double to_a = -uX * u - vX * v, to_b = -uY * u - vY * v, q = incoming[2][i];
                        double N[3][3];  // its gradient
                        for (int k = 0; k < 3; ++k) N[k][0] = to_a, N[k][1] = to_b, N[k][2] = to_total + q * f.z[k][i];
                        N[0][0] += uX, N[0][1] += uY, N[0][2] += to_u * inverse;
                        N[1][0] += vX, N[1][1] += vY, N[1][2] += to_v * inverse;
                        // M's gradient is -Nᵀ N̄ Nᵀ, of which column k belongs to corner k.
                        for (int k = 0; k < 3; ++k) {
                            double t[3];
                            for (int r = 0; r < 3; ++r) t[r] = N[r][0] * f.A[k][i] + N[r][1] * f.B[k][i] + N[r][2] * f.C[k][i];
                            double X = 0, Y = 0, w = 0;
                            for (int r = 0; r < 3; ++r) X -= f.A[r][i] * t[r], Y -= f.B[r][i] * t[r], w -= f.C[r][i] * t[r];
                            // The corners were relative to the pixel, then scaled to the image.
                            w -= X * (x0 + i + 0.5) + Y * (y + 0.5);
                            X *= 0.5 * s.width, Y *= 0.5 * s.height;
                            out[4 * k][i] = float(X), out[4 * k + 1][i] = float(Y), out[4 * k + 2][i] = float(q * f.C[k][i]), out[4 * k + 3][i] = float(w + X + Y);
                        }
                    }
                    for (int i = 0; i < columns; ++i)
                        for (int c = 0; c < 12; ++c) rows[12 * (at + size_t(i)) + size_t(c)] = out[c][i];
                }
        });
        Buffer sums_block(sizeof(float) * 4 * size_t(s.vertices + 1));
        float *to = positions + 4 * b * s.vertices, *sums = image < s.batch ? to : sums_block.as<float>();
        scatter_add(s.vertices, 4, chunks_an_image, s.threads, rows, sums, [&](int chunk, auto&& put) {
            const size_t end = size_t(chunk + 1) * size_t(rows_a_chunk) * size_t(s.width), last = end < pixels ? end : pixels;
            for (size_t i = size_t(chunk) * size_t(rows_a_chunk) * size_t(s.width); i < last; ++i) {
                const int64_t t = triangle_of(seen[4 * i + 3], s.triangles);
                if (t < 0) continue;
                for (int k = 0; k < 3; ++k) put(uint32_t(s.faces[3 * t + k]), uint32_t(3 * i + size_t(k)), 1.0f);
            }
        });
        if (sums != to)
            for (int64_t i = 0; i < 4 * s.vertices; ++i) to[i] += sums[i];
    }
}

}  // namespace mesh
}  // namespace ISA
