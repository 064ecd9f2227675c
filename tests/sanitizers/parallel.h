// at::parallel_for on threads of the standard library, which ThreadSanitizer knows: of OpenMP's it
// would take every barrier for none. Included before all else.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace at::internal {

template <class F>
void invoke_parallel(int64_t begin, int64_t end, int64_t grain_size, const F& f);

}  // namespace at::internal

#define INTRA_OP_PARALLEL
#include <ATen/Parallel.h>

namespace at::internal {

template <class F>
void invoke_parallel(int64_t begin, int64_t end, int64_t grain_size, const F& f) {
  int64_t threads = at::get_num_threads();
  if (grain_size > 0) threads = std::min(threads, divup(end - begin, grain_size));
  const int64_t share = divup(end - begin, threads);
  std::mutex mutex;
  std::exception_ptr error;
  const auto run = [&](int64_t thread) {
    const int64_t first = begin + thread * share;
    if (first >= end) return;
    try {
      ThreadIdGuard guard(thread);
      f(first, std::min(end, first + share));
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      error = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace at::internal
