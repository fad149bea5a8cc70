// What passes between Python and the kernels: arrays, taken as they are.
#pragma once

#include <optional>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "buffers.h"

namespace egregium {

/// A contiguous array on the CPU. Of another type or layout it is refused: nanobind would convert it, and what a kernel
/// writes to the copy would be lost.
template <class T> struct Array : nanobind::ndarray<T, nanobind::c_contig, nanobind::device::cpu> {
    using Plain = nanobind::ndarray<T, nanobind::c_contig, nanobind::device::cpu>;
    Array() = default;
    explicit Array(const Plain& plain) : Plain(plain) {}
};
template <class T> using In = Array<const T>;
template <class T> using Out = Array<T>;

template <class T> T* pointer(const std::optional<Array<T>>& array) { return array ? array->data() : nullptr; }

/// A NumPy array over a block of scratch memory, given back when the array dies.
template <class T> nanobind::ndarray<nanobind::numpy, T> owned(T* block, std::initializer_list<size_t> shape) {
    return nanobind::ndarray<nanobind::numpy, T>(block, shape, nanobind::capsule(block, [](void* p) noexcept { release(p); }));
}

}  // namespace egregium

template <class T> struct nanobind::detail::type_caster<egregium::Array<T>> {
    using Plain = make_caster<typename egregium::Array<T>::Plain>;
    NB_TYPE_CASTER(egregium::Array<T>, Plain::Name)

    template <class Flags> bool from_python(handle source, Flags flags, cleanup_list* cleanup) noexcept {
        Plain plain;
        if (!plain.from_python(source, Flags(flags & ~Flags(cast_flags::convert)), cleanup)) return false;
        value = egregium::Array<T>(plain.value);
        return true;
    }
};
