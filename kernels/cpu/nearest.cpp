// The closest point of a set of triangles, by a hierarchy of bounding boxes.
//
// Nodes split at the median of the triangles' centres along the longest side, which keeps the tree balanced for any
// input; a query visits the nearer child first and leaves out every box that is farther than the best triangle yet.
#include "nearest.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "arrays.h"
#include "pool.h"

namespace nb = nanobind;

namespace egregium {
namespace {

constexpr int leaf = 4, chunk = 256;

template <class T> struct Vector {
    T x, y, z;
    Vector operator-(const Vector& o) const { return {x - o.x, y - o.y, z - o.z}; }
    Vector operator+(const Vector& o) const { return {x + o.x, y + o.y, z + o.z}; }
    Vector operator*(T s) const { return {x * s, y * s, z * s}; }
};
template <class T> T dot(const Vector<T>& a, const Vector<T>& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
template <class T> Vector<T> cross(const Vector<T>& a, const Vector<T>& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class T> struct Hit {
    T distance2 = std::numeric_limits<T>::infinity();
    int32_t face = -1;
    T weights[3] = {1, 0, 0};
};

/// The closest point of triangle abc to the origin, where it is closer than `best`.
template <class T> void closest(const Vector<T> (&v)[3], int32_t face, Hit<T>& best) {
    const Vector<T> ab = v[1] - v[0], ac = v[2] - v[0], n = cross(ab, ac);
    const T nn = dot(n, n), w1 = dot(n, cross(ac, v[0])), w2 = dot(n, cross(v[0], ab)), w0 = nn - w1 - w2;
    if (nn > 0 && w0 >= 0 && w1 >= 0 && w2 >= 0) {
        const T height = dot(n, v[0]), d = height * (height / nn);
        if (d < best.distance2) best = {d, face, {w0 / nn, w1 / nn, w2 / nn}};
        return;
    }
    for (int k = 0; k < 3; ++k) {  // outside, or a triangle without area: on one of its edges
        const Vector<T>&a = v[k], edge = v[(k + 1) % 3] - a;
        const T length2 = dot(edge, edge);
        const T t = length2 > 0 ? std::clamp(-dot(a, edge) / length2, T(0), T(1)) : T(0);
        const Vector<T> c = a + edge * t;
        const T d = dot(c, c);
        if (d < best.distance2) {
            best.distance2 = d, best.face = face;
            best.weights[k] = 1 - t, best.weights[(k + 1) % 3] = t, best.weights[(k + 2) % 3] = 0;
        }
    }
}

template <class T> struct Node {
    T low[3], high[3];
    int32_t first;  // of a leaf: its first triangle; else the right child (the left one is next)
    int32_t count;  // triangles of a leaf; 0 for an inner node

    T distance2(const Vector<T>& p) const {
        const T at[3] = {p.x, p.y, p.z};
        T sum = 0;
        for (int i = 0; i < 3; ++i) {
            const T d = std::max(std::max(low[i] - at[i], at[i] - high[i]), T(0));
            sum += d * d;
        }
        return sum;
    }
};

template <class T> class Tree {
  public:
    Tree(const T* vertices, const int32_t* faces, int64_t count) : vertices_(vertices), faces_(faces) {
        order_.resize(size_t(count));
        std::iota(order_.begin(), order_.end(), 0);
        centres_.resize(size_t(count));
        for (int64_t f = 0; f < count; ++f) centres_[size_t(f)] = (corner(f, 0) + corner(f, 1) + corner(f, 2)) * (T(1) / 3);
        nodes_.reserve(size_t(count));
        if (count) build(0, int32_t(count));
        centres_ = {};
    }

    Hit<T> query(const Vector<T>& p) const {
        struct Entry {
            int32_t node;
            T bound;
        };
        Entry stack[64];  // the tree is balanced: its depth is at most 31
        int size = 0;
        Hit<T> best;
        if (!nodes_.empty()) stack[size++] = {0, 0};
        while (size) {
            const Entry entry = stack[--size];
            if (!(entry.bound < best.distance2)) continue;
            const Node<T>& node = nodes_[size_t(entry.node)];
            for (int32_t i = node.first; i < node.first + node.count; ++i) {
                const int32_t f = order_[size_t(i)];
                const Vector<T> v[3] = {corner(f, 0) - p, corner(f, 1) - p, corner(f, 2) - p};
                closest(v, f, best);
            }
            if (node.count) continue;
            Entry near{entry.node + 1, nodes_[size_t(entry.node) + 1].distance2(p)}, far{node.first, nodes_[size_t(node.first)].distance2(p)};
            if (far.bound < near.bound) std::swap(near, far);
            stack[size++] = far;
            stack[size++] = near;
        }
        return best;
    }

  private:
    Vector<T> corner(int64_t face, int k) const {
        const T* v = vertices_ + 3 * int64_t(faces_[3 * face + k]);
        return {v[0], v[1], v[2]};
    }

    int32_t build(int32_t first, int32_t last) {
        const int32_t index = int32_t(nodes_.size());
        Node<T> node;
        T lowest[3], highest[3];  // of the centres
        for (int i = 0; i < 3; ++i) node.low[i] = lowest[i] = std::numeric_limits<T>::infinity(), node.high[i] = highest[i] = -lowest[i];
        for (int32_t k = first; k < last; ++k) {
            const int32_t f = order_[size_t(k)];
            for (int c = 0; c < 3; ++c) {
                const Vector<T> v = corner(f, c);
                const T at[3] = {v.x, v.y, v.z};
                for (int i = 0; i < 3; ++i) node.low[i] = std::min(node.low[i], at[i]), node.high[i] = std::max(node.high[i], at[i]);
            }
            const T at[3] = {centres_[size_t(f)].x, centres_[size_t(f)].y, centres_[size_t(f)].z};
            for (int i = 0; i < 3; ++i) lowest[i] = std::min(lowest[i], at[i]), highest[i] = std::max(highest[i], at[i]);
        }
        node.first = first, node.count = last - first;
        nodes_.push_back(node);
        if (node.count <= leaf) return index;
        int axis = 0;
        for (int i = 1; i < 3; ++i)
            if (highest[i] - lowest[i] > highest[axis] - lowest[axis]) axis = i;
        const int32_t middle = first + (last - first) / 2;
        const auto along = [&](int32_t f) {
            const Vector<T>& c = centres_[size_t(f)];
            return axis == 0 ? c.x : axis == 1 ? c.y : c.z;
        };
        std::nth_element(order_.begin() + first, order_.begin() + middle, order_.begin() + last, [&](int32_t a, int32_t b) {
            const T at_a = along(a), at_b = along(b);
            return at_a < at_b || (at_a == at_b && a < b);
        });
        build(first, middle);
        const int32_t right = build(middle, last);
        nodes_[size_t(index)].first = right, nodes_[size_t(index)].count = 0;
        return index;
    }

    const T* vertices_;
    const int32_t* faces_;
    std::vector<int32_t> order_;
    std::vector<Vector<T>> centres_;
    std::vector<Node<T>> nodes_;
};

template <class T>
void nearest(In<T> points, In<T> vertices, In<int32_t> faces, Out<T> distances, Out<int32_t> found, Out<T> weights, int threads) {
    const int64_t n = int64_t(points.shape(0));
    nb::gil_scoped_release unlocked;
    const Tree<T> tree(vertices.data(), faces.data(), int64_t(faces.shape(0)));
    each(int((n + chunk - 1) / chunk), threads, [&](int task) {
        for (int64_t i = int64_t(task) * chunk; i < std::min(n, int64_t(task + 1) * chunk); ++i) {
            const T* p = points.data() + 3 * i;
            const Hit<T> hit = tree.query({p[0], p[1], p[2]});
            distances.data()[i] = hit.distance2, found.data()[i] = hit.face;
            std::copy_n(hit.weights, 3, weights.data() + 3 * i);
        }
    });
}

}  // namespace

void define_nearest(nb::module_& m) {
    m.def("nearest", &nearest<float>);
    m.def("nearest", &nearest<double>);
}

}  // namespace egregium
