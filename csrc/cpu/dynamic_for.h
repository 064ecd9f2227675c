// A dynamically scheduled parallel loop, for units of unequal cost or cores of unequal speed. The
// result of a unit must not depend on the piece that it is part of.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace vaekernels::cpu {

// Calls body(first, last) until all of [0, units) is done.
template <class Body>
void dynamic_for(int64_t units, const Body& body) {
  // Pieces are small enough to balance the load at the end, and large enough to rarely contend.
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
