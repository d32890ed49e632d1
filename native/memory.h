// Large arrays that kernels stream: aligned, on huge pages where the system has them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hexad {

class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes) : bytes_(bytes) {
        constexpr size_t kHuge = size_t(2) << 20;
        size_t alignment = bytes >= 2 * kHuge ? kHuge : 64;
        size_t rounded = (bytes + alignment - 1) / alignment * alignment;
        data_ = std::aligned_alloc(alignment, rounded ? rounded : alignment);
        if (!data_) throw std::bad_alloc();
#if defined(__linux__)
        if (alignment == kHuge) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
    }
    ~Buffer() { std::free(data_); }
    Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
        other.data_ = nullptr, other.bytes_ = 0;
    }
    Buffer& operator=(Buffer&& other) noexcept {
        void* data = data_;
        data_ = other.data_, bytes_ = other.bytes_;
        other.data_ = data;
        return *this;
    }

    char* data() const { return static_cast<char*>(data_); }
    size_t size() const { return bytes_; }

  private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

// Has the system hand out the whole pages of [data, data + bytes) now, not at their first touch;
// what lies in them stays. Does nothing where the system cannot (Linux 5.14 can).
inline void populate([[maybe_unused]] char* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
    constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which older headers lack
    constexpr size_t kPage = 4096;
    auto begin = (reinterpret_cast<size_t>(data) + kPage - 1) / kPage * kPage;
    auto end = (reinterpret_cast<size_t>(data) + bytes) / kPage * kPage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, kPopulateWrite);
#endif
}

}  // namespace hexad
