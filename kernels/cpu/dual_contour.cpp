// Connectivity of dual marching cubes. Sources and tables: kernels/contour_tables.py.
//
// The volume is looked at once, a byte a sample, to list the cells that the surface meets, in the order of their
// numbers. All else goes along that list. A cell's neighbour lies at a fixed distance in number, so that walking the
// list the neighbours come sorted, too: a second finger on the same list finds them, without any hash or sort. Each
// crossed edge belongs to the cell at whose lowest corner it starts, so edges need no search either.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "buffers.h"
#include "contour.h"
#include "pool.h"

namespace egregium {
namespace {

constexpr int64_t most_cells = (int64_t(1) << 29) - 1;  // at most 4 vertices each, which are numbered in 31 bits
constexpr int chunk = 4096, looked_at = 1 << 15;  // cells and, looking for them, samples a task

/// The edge at a corner along an axis.
int edge_at(int corner, int axis) {
    const int low = corner & ~(1 << axis);  // bit `axis` is clear: close the gap that it leaves
    return 4 * axis + ((low >> (axis + 1)) << axis | (low & ((1 << axis) - 1)));
}

template <class T> T* block(int64_t count) { return static_cast<T*>(acquire(sizeof(T) * size_t(count + 1))); }

struct Active {
    int32_t number;
    int64_t row;
    uint8_t occupancy;
};

/// The four samples of a column of cells at each height, as the lower half of a case.
void read_columns(const ContourInput& in, int i, int j, uint8_t* column) {
    const size_t length = size_t(in.nz + 1);
    std::memset(column, 0, length + 8);
    for (int c = 0; c < 4; ++c) {
        const int x = i + (c & 1), y = j + (c >> 1);
        if (x == 0 || y == 0 || x == in.nx || y == in.ny) continue;
        const uint8_t* from = in.inside + (size_t(x) * size_t(in.ny + 1) + size_t(y)) * length;
        for (size_t k = 0; k < length; ++k) column[k] |= uint8_t((from[k] != 0) << c);
    }
    column[0] = column[in.nz] = 0;
}

void scan_dense(const ContourInput& in, int i, std::vector<Active>& found) {
    std::vector<uint8_t> columns(size_t(in.nz) + 16);
    uint8_t* column = columns.data();
    for (int j = 0; j < in.ny; ++j) {
        read_columns(in, i, j, column);
        const int32_t number = (i * (in.ny + 1) + j) * (in.nz + 1);
        const int64_t row = (int64_t(i) * in.ny + j) * in.nz;
        for (int k = 0; k < in.nz; ++k) {
            // Far from the surface eight heights are alike.
            uint64_t here, above;
            if (k + 9 <= in.nz) {
                std::memcpy(&here, column + k, 8), std::memcpy(&above, column + k + 1, 8);
                if (here == above && (column[k] == 0 || column[k] == 15)) {
                    k += 7;
                    continue;
                }
            }
            const uint8_t occupancy = uint8_t(column[k] | column[k + 1] << 4);
            if (occupancy != 0 && occupancy != 255) found.push_back({number + k, row + k, occupancy});
        }
    }
}

/// Looks at a list's numbers, one after the other.
struct Ascending {
    int nx, ny, nz;
    int32_t previous, end = 0;  // below `end` all are cells of the column that was found last

    /// Whether a number is that of a cell, and higher than the one before it.
    bool is_next(int32_t number) {
        if (number <= previous) return false;
        previous = number;
        if (number < end) return true;
        const int32_t column = number / (nz + 1);
        end = column * (nz + 1) + nz;
        return number < end && column % (ny + 1) < ny && column / (ny + 1) < nx;
    }
};
constexpr const char* no_cells = "cells must be numbers of the grid's cells, ascending, each once";

/// Returns whether cells and corners are what they should be.
bool scan_sparse(const ContourInput& in, int task, std::vector<Active>& found) {
    const int64_t first = int64_t(task) * chunk, end = std::min(in.n_cells, first + chunk);
    Ascending cells{in.nx, in.ny, in.nz, first ? in.cells[first - 1] : -1};
    for (int64_t row = first; row < end; ++row) {
        if (!cells.is_next(in.cells[row])) return false;
        int occupancy = 0;
        for (int c = 0; c < 8; ++c) {
            const int32_t sample = in.corners[8 * row + c];
            if (sample < 0 || sample >= in.n_samples) return false;
            occupancy |= (in.inside[sample] != 0) << c;
        }
        if (occupancy != 0 && occupancy != 255) found.push_back({in.cells[row], row, uint8_t(occupancy)});
    }
    return true;
}

/// Lists the samples of the active cells, and the cells' corners among them.
void number_samples(const ContourInput& in, const int32_t* numbers, Contour& out) {
    const int stride[3] = {(in.ny + 1) * (in.nz + 1), in.nz + 1, 1};
    Buffer used_block(size_t(in.n_samples) + 8), places_block(sizeof(int32_t) * size_t(in.n_samples + 1));
    uint8_t* used = used_block.as<uint8_t>();
    int32_t* place = places_block.as<int32_t>();  // of used samples only
    std::memset(used, 0, size_t(in.n_samples) + 8);
    for (int64_t a = 0; a < out.n_cells; ++a) {
        int32_t* corners = out.corners + 8 * a;
        if (!in.dense) std::memcpy(corners, in.corners + 8 * out.rows[a], 8 * sizeof(int32_t));
        else
            for (int c = 0; c < 8; ++c) corners[c] = numbers[a] + (c & 1) * stride[0] + (c >> 1 & 1) * stride[1] + (c >> 2) * stride[2];
        for (int c = 0; c < 8; ++c) used[corners[c]] = 1;
    }
    out.samples = block<int64_t>(std::min(in.n_samples, 8 * out.n_cells));
    for (int64_t s = 0; s < in.n_samples; s += 8) {
        uint64_t eight;
        std::memcpy(&eight, used + s, 8);
        if (eight == 0) continue;
        for (int64_t t = s; t < s + 8; ++t)
            if (used[t]) place[t] = int32_t(out.n_samples), out.samples[out.n_samples++] = t;
    }
    each(int((out.n_cells + chunk - 1) / chunk), in.threads, [&](int task) {
        for (int64_t k = 8 * int64_t(task) * chunk, end = std::min(8 * out.n_cells, k + 8 * chunk); k < end; ++k) out.corners[k] = place[out.corners[k]];
    });
}

bool owned(uint8_t occupancy, int axis) { return (occupancy & 1) != (occupancy >> (1 << axis) & 1); }

}  // namespace

Contour dual_contour(const ContourInput& in, const ContourTables& tables) {
    const int stride[3] = {(in.ny + 1) * (in.nz + 1), in.nz + 1, 1};
    const int slab = std::max(1, looked_at / stride[0]);  // layers a task
    const int scans = in.dense ? (in.nx + slab - 1) / slab : int((in.n_cells + chunk - 1) / chunk);
    std::vector<std::vector<Active>> parts{size_t(scans)};
    std::vector<uint8_t> wrong(size_t(scans), false);
    each(scans, in.threads, [&](int task) {
        std::vector<Active>& found = parts[size_t(task)];
        if (!in.dense) wrong[size_t(task)] = !scan_sparse(in, task, found);
        else
            for (int i = task * slab; i < std::min(in.nx, (task + 1) * slab); ++i) scan_dense(in, i, found);
    });
    if (std::find(wrong.begin(), wrong.end(), true) != wrong.end())
        throw std::invalid_argument(std::string(no_cells) + ", and corners places among the " + std::to_string(in.n_samples) + " samples");
    std::vector<int64_t> begin(size_t(scans) + 1, 0);
    for (int t = 0; t < scans; ++t) begin[size_t(t) + 1] = begin[size_t(t)] + int64_t(parts[size_t(t)].size());

    Contour out;
    const int64_t n = out.n_cells = begin.back();
    if (n > most_cells) throw std::length_error("the surface meets more than 2^29 cells");
    const int chunks = int((n + chunk - 1) / chunk);
    Buffer numbers_block(sizeof(int32_t) * size_t(n + 1)), occupancies_block(size_t(n + 1)), owned_block(sizeof(int32_t) * size_t(n + 1));
    int32_t *numbers = numbers_block.as<int32_t>(), *first_edge = owned_block.as<int32_t>();
    uint8_t* occupancies = occupancies_block.as<uint8_t>();
    out.rows = block<int64_t>(n), out.cases = block<int16_t>(n), out.first = block<int32_t>(n + 1);
    each(scans, in.threads, [&](int task) {
        int64_t a = begin[size_t(task)];
        for (const Active& cell : parts[size_t(task)]) numbers[a] = cell.number, out.rows[a] = cell.row, occupancies[a++] = cell.occupancy;
    });

    // Cases, with the outside apart where two flagged cells meet, and how many edges each cell owns.
    each(chunks, in.threads, [&](int task) {
        for (int64_t a = int64_t(task) * chunk; a < std::min(n, int64_t(task + 1) * chunk); ++a) {
            int row = occupancies[a];
            if (const int face = tables.flagged[row]; face >= 0) {
                const int32_t other = numbers[a] + (face & 1 ? 1 : -1) * stride[face >> 1];
                const int32_t* found = std::lower_bound(numbers, numbers + n, other);
                if (found < numbers + n && *found == other && tables.flagged[occupancies[found - numbers]] == (face ^ 1)) row += 256;
            }
            out.cases[a] = int16_t(row);
            first_edge[a] = owned(uint8_t(row), 0) + owned(uint8_t(row), 1) + owned(uint8_t(row), 2);
        }
    });
    int64_t crossings = 0;
    for (int64_t a = 0; a < n; ++a) {
        out.first[a] = int32_t(out.n_vertices), out.n_vertices += tables.counts[out.cases[a]];
        const int32_t count = first_edge[a];
        first_edge[a] = int32_t(out.n_edges), out.n_edges += count;
        for (int e = 0; e < 12; ++e) crossings += tables.loops[12 * out.cases[a] + e] != no_loop;
    }

    out.first[n] = int32_t(out.n_vertices);

    out.corners = block<int32_t>(8 * n), out.cell_edges = block<int32_t>(12 * n);
    out.edges = block<int32_t>(2 * out.n_edges), out.quads = block<int32_t>(4 * out.n_edges);
    std::memset(out.cell_edges, 0xff, sizeof(int32_t) * size_t(12 * n));
    std::vector<int64_t> complete(size_t(chunks), 0);
    number_samples(in, numbers, out);
    each(chunks, in.threads, [&](int task) {
        const int64_t a0 = int64_t(task) * chunk, a1 = std::min(n, a0 + chunk);
        // finger[b] walks the neighbours below along the axes of the bits of b.
        int32_t below[8];
        int64_t finger[8];
        for (int b = 1; b < 7; ++b) {
            below[b] = (b & 1) * stride[0] + (b >> 1 & 1) * stride[1] + (b >> 2) * stride[2];
            finger[b] = std::lower_bound(numbers, numbers + n, numbers[a0] - below[b]) - numbers;
        }
        for (int64_t a = a0; a < a1; ++a) {
            const int32_t* corners = out.corners + 8 * a;
            const uint8_t occupancy = uint8_t(out.cases[a]);
            int64_t edge = first_edge[a];
            for (int axis = 0; axis < 3; ++axis) {
                if (!owned(occupancy, axis)) continue;
                const int next = 1 << (axis + 1) % 3, after = 1 << (axis + 2) % 3;
                const int around[4] = {0, next, next | after, after};  // counter-clockwise about the axis
                const bool start_inside = occupancy & 1;
                int32_t* quad = out.quads + 4 * edge;
                int found = 0;
                for (int q = 0; q < 4; ++q) {
                    int64_t cell = a;
                    if (const int b = around[q]) {
                        const int32_t number = numbers[a] - below[b];
                        while (finger[b] < n && numbers[finger[b]] < number) ++finger[b];
                        cell = finger[b];
                        if (cell == n || numbers[cell] != number) continue;
                    }
                    ++found;
                    const int local = edge_at(around[q], axis);  // the edge starts at that cell's corner of the same bits
                    out.cell_edges[12 * cell + local] = int32_t(edge);
                    quad[start_inside ? q : (4 - q) & 3] = out.first[cell] + tables.loops[12 * out.cases[cell] + local];
                }
                complete[size_t(task)] += found == 4;
                const int32_t low = corners[0], high = corners[1 << axis];
                out.edges[2 * edge] = start_inside ? low : high, out.edges[2 * edge + 1] = start_inside ? high : low;
                ++edge;
            }
        }
    });
    int64_t whole = 0;
    for (int64_t count : complete) whole += count;
    out.open_edges = crossings - 4 * whole;
    return out;
}

int64_t cell_samples(int nx, int ny, int nz, const int32_t* cells, int64_t n_cells, int32_t* samples, int32_t* corners) {
    Ascending list{nx, ny, nz, -1};
    for (int64_t row = 0; row < n_cells; ++row)
        if (!list.is_next(cells[row])) throw std::invalid_argument(no_cells);
    // Eight sorted lists, the cells' numbers shifted by each corner: merge them.
    const int32_t stride[3] = {(ny + 1) * (nz + 1), nz + 1, 1};
    int64_t at[8] = {}, count = 0;
    int32_t shift[8];
    for (int c = 0; c < 8; ++c) shift[c] = (c & 1) * stride[0] + (c >> 1 & 1) * stride[1] + (c >> 2) * stride[2];
    while (at[7] < n_cells) {  // the highest corner of the last cell comes last
        int32_t least = cells[at[7]] + shift[7];
        for (int c = 0; c < 7; ++c)
            if (at[c] < n_cells) least = std::min(least, cells[at[c]] + shift[c]);
        for (int c = 0; c < 8; ++c)
            if (at[c] < n_cells && cells[at[c]] + shift[c] == least) corners[8 * at[c]++ + c] = int32_t(count);
        samples[count++] = least;
    }
    return count;
}

}  // namespace egregium
