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

}  // namespace hexad
