// A small pool of pinned threads. The only file that knows of threads.
//
// An op is cut into independent items, and each thread has a run of them, so that neighbouring
// weights are streamed by one core; who is done takes from the ends of the others' runs. A
// worker that is late is not waited for: an op ends when every item that was taken is done.
// Workers spin for some microseconds between ops, because the next one is near, then sleep; while
// they spin they fetch what they will read first, if they were told.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace hexad {

// Some memory that a thread is about to read.
struct Ahead {
    static constexpr int kSpans = 16;
    struct Span {
        const char* at;
        size_t bytes;
    };
    Span spans[kSpans];
    int count = 0, done = 0;

    void add(const char* at, size_t bytes) {
        if (count < kSpans) spans[count++] = {at, bytes};
    }
    // Fetches a few lines more; false when all have been.
    bool fetch();
};

class Pool {
  public:
    // `threads` counts the caller. Workers are pinned, one a physical core, where the pool
    // takes all the physical cores that this process may run on.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;

    int threads() const { return threads_; }

    // fn(item) for each item of [0, items), in any order, on any thread. `ahead` says of each
    // thread, the caller first, what it reads first in the op after this, or is null.
    template <typename Fn>
    void run(int64_t items, const Fn& fn, const Ahead* ahead = nullptr) {
        run_raw(items, [](const void* context, int64_t item) { (*static_cast<const Fn*>(context))(item); }, &fn, ahead);
    }

  private:
    using Body = void (*)(const void* context, int64_t item);
    void run_raw(int64_t items, Body body, const void* context, const Ahead* ahead);

    struct Shared;
    std::unique_ptr<Shared> shared_;
    int threads_;
};

// The default float mode while it lives: round to nearest, subnormals kept. Another library
// may have set flush-to-zero on the calling thread, and the bits must not depend on that.
class PlainFloats {
  public:
    PlainFloats();
    ~PlainFloats();
    PlainFloats(const PlainFloats&) = delete;

  private:
    uint64_t before_;
};

// The first CPU of each physical core in this process's affinity mask, ascending.
std::vector<int> physical_cores();

}  // namespace hexad
