#include "buffers.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace egregium {
namespace {

constexpr std::size_t header = 64;
constexpr std::size_t huge_page = std::size_t(2) << 20;
constexpr std::size_t most_kept_blocks = 32;  // a forward and a backward pass hold some twenty at once
constexpr std::size_t most_kept_bytes = std::size_t(1) << 30;
constexpr std::size_t most_idle = 64;  // calls of acquire, some passes: what waits longer is of a size that is over

std::mutex mutex;
std::vector<void*>& kept() {
    static auto* list = new std::vector<void*>;  // outlives every tensor that may still be freed at exit
    return *list;
}
std::size_t calls = 0;
std::size_t& size_of(void* raw) { return *static_cast<std::size_t*>(raw); }
std::size_t& freed_at(void* raw) { return static_cast<std::size_t*>(raw)[1]; }

}  // namespace

void* acquire(std::size_t bytes) {
    const std::size_t need = bytes + header;
    {
        std::lock_guard lock(mutex);
        ++calls;
        auto& list = kept();
        auto best = list.end();
        for (auto it = list.begin(); it != list.end(); ++it)
            if (size_of(*it) >= need && size_of(*it) <= 2 * need + huge_page && (best == list.end() || size_of(*it) < size_of(*best))) best = it;
        if (best != list.end()) {
            void* raw = *best;
            list.erase(best);
            return static_cast<char*>(raw) + header;
        }
    }
    const bool large = need >= huge_page;
    const std::size_t unit = large ? huge_page : 4096;
    // An eighth to spare: a scene that grows a little finds its old block large enough.
    const std::size_t size = (need + need / 8 + unit - 1) / unit * unit;
    void* raw = std::aligned_alloc(unit, size);
    if (!raw) throw std::bad_alloc();
#if defined(__linux__)
    if (large) madvise(raw, size, MADV_HUGEPAGE);
#endif
    size_of(raw) = size;
    return static_cast<char*>(raw) + header;
}

void release(void* block) {
    void* raw = static_cast<char*>(block) - header;
    std::lock_guard lock(mutex);
    auto& list = kept();
    freed_at(raw) = calls;
    list.push_back(raw);
    std::size_t total = 0;
    for (void* each : list) total += size_of(each);
    const auto over = [&] { return list.size() > most_kept_blocks || total > most_kept_bytes || calls - freed_at(list.front()) > most_idle; };
    while (!list.empty() && over()) {
        total -= size_of(list.front());
        std::free(list.front());
        list.erase(list.begin());
    }
}

}  // namespace egregium
