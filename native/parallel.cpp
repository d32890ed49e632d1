#include "parallel.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>

#include <unistd.h>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace hexad {

namespace {

constexpr auto kSpin = std::chrono::microseconds(40);

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr size_t kLine = 64;
// Fetched between two looks at what the others do.
constexpr size_t kLinesAtOnce = 8;
// Fetched by the caller before it goes on alone: as many as it need not wait for.
constexpr int kCallerTurns = 4;

void pin_to([[maybe_unused]] int cpu) {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
#endif
}

// Moves the calling thread to `cpu` if it is elsewhere, without binding it there: a caller that
// sits on a pinned worker's core would make both wait, and the kernel is slow to notice.
void step_aside_to([[maybe_unused]] int cpu) {
#if defined(__linux__)
    if (sched_getcpu() == cpu) return;
    cpu_set_t allowed, only;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || !CPU_ISSET(cpu, &allowed)) return;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    sched_setaffinity(0, sizeof only, &only);
    sched_setaffinity(0, sizeof allowed, &allowed);
#endif
}

// The lowest CPU that shares a physical core with `cpu`; itself where the kernel does not say.
int core_of(int cpu) {
    char path[96];
    std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    int first = cpu;
    if (FILE* file = std::fopen(path, "r")) {
        if (std::fscanf(file, "%d", &first) != 1) first = cpu;
        std::fclose(file);
    }
    return first;
}

// One word says everything a worker must know to join: bit 0 whether a job is open, 15 bits
// how many workers are in it, and above them a number that grows with each job.
constexpr uint32_t kOpen = 1;
constexpr uint32_t kWorker = 2;
constexpr uint32_t kWorkers = 0xfffe;
constexpr uint32_t kJob = 0x10000;

// Items [first, end) of one thread, in one word: it takes from the front, others from the back.
class alignas(64) Range {
  public:
    void set(uint32_t first, uint32_t end) { word_.store(uint64_t(end) << 32 | first, std::memory_order_relaxed); }
    uint32_t size() const {
        uint64_t word = word_.load(std::memory_order_relaxed);
        return uint32_t(word >> 32) - uint32_t(word);
    }
    int64_t take_first() {
        uint64_t word = word_.load(std::memory_order_relaxed);
        while (uint32_t(word) != word >> 32)
            if (word_.compare_exchange_weak(word, word + 1, std::memory_order_relaxed)) return int64_t(uint32_t(word));
        return -1;
    }
    int64_t take_last() {
        uint64_t word = word_.load(std::memory_order_relaxed);
        while (uint32_t(word) != word >> 32)
            if (word_.compare_exchange_weak(word, word - (uint64_t(1) << 32), std::memory_order_relaxed))
                return int64_t(word >> 32) - 1;
        return -1;
    }

  private:
    std::atomic<uint64_t> word_{0};
};

}  // namespace

PlainFloats::PlainFloats() : before_(0) {
#if defined(__x86_64__)
    before_ = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1f80);
#elif defined(__aarch64__)
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
#endif
}

PlainFloats::~PlainFloats() {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(unsigned(before_));
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" : : "r"(before_));
#endif
}

bool Ahead::fetch() {
    if (done == count) return false;
    Span& span = spans[done];
    size_t bytes = span.bytes < kLinesAtOnce * kLine ? span.bytes : kLinesAtOnce * kLine;
    for (size_t at = 0; at < bytes; at += kLine) __builtin_prefetch(span.at + at, 0, 2);
    span.at += bytes;
    span.bytes -= bytes;
    if (span.bytes == 0) ++done;
    return true;
}

std::vector<int> physical_cores() {
    std::vector<int> cores;
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    std::vector<int> seen;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &set)) continue;
        int core = core_of(cpu);
        bool known = false;
        for (int other : seen) known = known || other == core;
        if (known) continue;
        seen.push_back(core);
        cores.push_back(cpu);
    }
#endif
    if (cores.empty())
        for (unsigned cpu = 0; cpu < std::thread::hardware_concurrency(); ++cpu) cores.push_back(int(cpu));
    return cores;
}

struct Pool::Shared {
    alignas(64) std::atomic<uint32_t> state{0};
    alignas(64) std::atomic<bool> stop{false};
    std::vector<Range> ranges;  // what is left of each thread's items; the caller's first
    Body body = nullptr;
    const void* context = nullptr;
    const Ahead* aheads = nullptr;
    std::mutex callers;
    std::vector<std::thread> workers;
    int caller_cpu = -1;  // where workers are pinned: the core left for the caller
    pid_t owner = getpid();

    ~Shared() {
        // In a forked child the workers do not exist; there is nobody to wake or wait for.
        bool forked = owner != getpid();
        stop.store(true);
        state.fetch_add(kJob);
        if (!forked) state.notify_all();
        for (std::thread& worker : workers) {
            if (forked)
                worker.detach();
            else
                worker.join();
        }
    }

    // Its own items in order, then the last ones of whoever has most left.
    void take_items(size_t self) {
        for (int64_t item = ranges[self].take_first(); item >= 0; item = ranges[self].take_first()) body(context, item);
        for (;;) {
            Range* longest = &ranges[0];
            for (Range& range : ranges)
                if (range.size() > longest->size()) longest = &range;
            if (longest->size() == 0) return;
            if (int64_t item = longest->take_last(); item >= 0) body(context, item);
        }
    }

    // Spins, then sleeps, until a job other than `last` is open and this worker is in it.
    uint32_t join_job(uint32_t last, Ahead& ahead) {
        for (;;) {
            auto give_up = std::chrono::steady_clock::now() + kSpin;
            uint32_t seen = state.load(std::memory_order_acquire);
            for (int turn = 1;; ++turn) {
                if (stop.load(std::memory_order_relaxed)) return seen;
                bool fresh = (seen & kOpen) && (seen & ~(kOpen | kWorkers)) != last;
                if (fresh && state.compare_exchange_weak(seen, seen + kWorker, std::memory_order_acq_rel)) return seen;
                if (!fresh && turn % 16 == 0 && std::chrono::steady_clock::now() > give_up) break;
                if (!ahead.fetch()) relax();
                seen = state.load(std::memory_order_acquire);
            }
            state.wait(seen, std::memory_order_acquire);
        }
    }

    void work(size_t self, int cpu) {
        if (cpu >= 0) pin_to(cpu);
        PlainFloats floats;
        uint32_t last = 0;
        Ahead ahead;
        for (;;) {
            uint32_t joined = join_job(last, ahead);
            if (stop.load(std::memory_order_relaxed)) return;
            last = joined & ~(kOpen | kWorkers);
            ahead = aheads ? aheads[self] : Ahead();
            take_items(self);
            state.fetch_sub(kWorker, std::memory_order_acq_rel);
        }
    }

    void run_with_workers(int64_t count, Body fn, const void* what, const Ahead* ahead) {
        if (caller_cpu >= 0) step_aside_to(caller_cpu);
        auto threads = int64_t(ranges.size());
        for (int64_t i = 0; i < threads; ++i)
            ranges[size_t(i)].set(uint32_t(count * i / threads), uint32_t(count * (i + 1) / threads));
        body = fn;
        context = what;
        aheads = ahead;
        state.fetch_add(kJob + kOpen, std::memory_order_acq_rel);
        state.notify_all();
        take_items(0);
        Ahead own = ahead ? ahead[0] : Ahead();
        uint32_t now = state.fetch_sub(kOpen, std::memory_order_acq_rel) - kOpen;
        for (int turn = 0; now & kWorkers; ++turn) {
            if (turn >= 2000)
                std::this_thread::yield();
            else if (!own.fetch())
                relax();
            now = state.load(std::memory_order_acquire);
        }
        for (int turn = 0; turn < kCallerTurns && own.fetch(); ++turn) {
        }
    }
};

Pool::Pool(int threads) : shared_(std::make_unique<Shared>()), threads_(threads) {
    shared_->ranges = std::vector<Range>(size_t(threads));
    std::vector<int> cores = physical_cores();
    bool takes_all = threads > 1 && size_t(threads) == cores.size();
    if (takes_all) shared_->caller_cpu = cores[0];
    for (int i = 1; i < threads; ++i) {
        int cpu = takes_all ? cores[size_t(i)] : -1;
        shared_->workers.emplace_back([shared = shared_.get(), i, cpu] { shared->work(size_t(i), cpu); });
    }
}

Pool::~Pool() = default;

void Pool::run_raw(int64_t items, Body body, const void* context, const Ahead* ahead) {
    // A second Python thread that calls while an op runs does its own op alone.
    std::unique_lock<std::mutex> lock(shared_->callers, std::defer_lock);
    if (items <= 1 || threads_ == 1 || !lock.try_lock()) {
        for (int64_t item = 0; item < items; ++item) body(context, item);
        return;
    }
    shared_->run_with_workers(items, body, context, ahead);
}

}  // namespace hexad
