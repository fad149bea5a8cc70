// A growing array in kept memory.
#pragma once

#include <cstring>

#include "buffers.h"

namespace ISA {

template <class T> struct Growing {
    T* data = nullptr;
    size_t size = 0, room = 0;
    ~Growing() {
        if (data) egregium::release(data);
    }
    void push(const T& value) {
        if (size == room) {
            room = room ? 2 * room : 4096;
            T* grown = static_cast<T*>(egregium::acquire(room * sizeof(T)));
            if (data) {
                std::memcpy(grown, data, size * sizeof(T));
                egregium::release(data);
            }
            data = grown;
        }
        data[size++] = value;
    }
};

}  // namespace ISA
