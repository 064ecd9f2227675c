// Iteration shared by the kernels: items, and the chunks of an item.
#pragma once

#include "cpu/kernels.h"

namespace vaekernels::cpu {
namespace {

// Calls body(row, begin, end, item) for the items [first, last).
template <class Body>
VK_INLINE void for_each_item(const Partition& partition, int64_t first, int64_t last, Body body) {
  for (int64_t item = first; item < last; ++item) {
    const int64_t row = item / partition.segments;
    const int64_t begin = item % partition.segments * kSegment;
    const int64_t end = begin + kSegment < partition.length ? begin + kSegment : partition.length;
    body(row, begin, end, item);
  }
}

// Calls body(begin, n) for the chunks of [begin, end).
template <class Body>
VK_INLINE void for_each_chunk(int64_t begin, int64_t end, Body body) {
  for (int64_t chunk = begin; chunk < end; chunk += kChunk) {
    body(chunk, end - chunk < kChunk ? end - chunk : int64_t(kChunk));
  }
}

}  // namespace
}  // namespace vaekernels::cpu
