// Scratch memory that is kept between calls.
//
// A fit asks for the same tens of megabytes thousands of times; fresh pages cost a fault and a clearing each time,
// which was a fifth of a forward pass. Freed blocks wait in a short list for the next call of about that size.
#pragma once

#include <cstddef>
#include <cstring>

namespace egregium {

/// Return at least `bytes` bytes, aligned to 64. Contents are undefined. Throws std::bad_alloc.
void* acquire(std::size_t bytes);
/// Give a block back.
void release(void* block);

/// A block that is given back at the end of the scope.
class Buffer {
  public:
    explicit Buffer(std::size_t bytes) : block_(acquire(bytes)) {}
    ~Buffer() { release(block_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    template <class T> T* as() const { return static_cast<T*>(block_); }

  private:
    void* block_;
};

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

}  // namespace egregium
