// A parallel loop whose threads take the next piece when they are done with one: for units that
// differ in cost, or cores that differ in speed. What a unit computes must not depend on its piece.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace vaekernels::cpu {

// Calls body(first, last) until all of [0, units) is done.
template <class Body>
void dynamic_for(int64_t units, const Body& body) {
  // Small enough that the last piece of a thread is little, large enough to be rare.
  constexpr int64_t kPieces = 16;
  const int64_t threads = at::get_num_threads();
  const int64_t piece = std::max<int64_t>(1, units / (threads * kPieces));
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min(threads, units), 1, [&](int64_t, int64_t) {
    for (int64_t first; (first = next.fetch_add(piece)) < units;) {
      body(first, std::min(first + piece, units));
    }
  });
}

}  // namespace vaekernels::cpu
