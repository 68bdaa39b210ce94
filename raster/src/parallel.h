// Work shared out to threads. They live for one call: no pool to configure, to fork wrongly or to shut down.
#pragma once

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace m4d {

inline int usable_cpus() {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
#endif
    const unsigned count = std::thread::hardware_concurrency();
    return count ? static_cast<int>(count) : 1;
}

// Calls job(item, worker) for every item in [0, count), each once, in any order.
template <class Job>
void parallel_for(int64_t count, int threads, const Job &job) {
    std::atomic<int64_t> next{0};
    auto work = [&](int worker) {
        for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < count;) job(item, worker);
    };
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(threads));
    for (int i = 1; i < threads && i < count; ++i) {
        try {
            helpers.emplace_back(work, i);
        } catch (const std::system_error &) {  // no more threads to be had: the others do the work
            break;
        }
    }
    work(0);
    for (std::thread &helper : helpers) helper.join();
}

}  // namespace m4d
