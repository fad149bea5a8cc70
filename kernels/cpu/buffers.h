// Scratch memory that is kept between calls.
//
// A fit asks for the same tens of megabytes thousands of times; fresh pages cost a fault and a clearing each time,
// which was a fifth of a forward pass. Freed blocks wait in a short list for the next call of about that size.
#pragma once

#include <cstddef>

#include "inlined.h"

namespace egregium {

/// Return at least `bytes` bytes, aligned to 64. Contents are undefined. Throws std::bad_alloc.
void* acquire(std::size_t bytes);
/// Give a block back.
void release(void* block);

/// A block that is given back at the end of the scope.
class Buffer {
  public:
    INLINED explicit Buffer(std::size_t bytes) : block_(acquire(bytes)) {}
    INLINED ~Buffer() { release(block_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    template <class T> INLINED T* as() const { return static_cast<T*>(block_); }

  private:
    void* block_;
};

}  // namespace egregium
