// Loops over the items of a partition, the chunks of an item, and tiles.
#pragma once

#include <initializer_list>

#include "cpu/kernels.h"

namespace vaekernels::cpu {
namespace {

// Calls body(row, begin, end, item) for the items [first, last).
template <class Body>
VK_INLINE void for_each_item(const WorkPartition& partition, int64_t first, int64_t last,
                             Body body) {
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

// The elements that a kernel with noise computes at once: a chunk of one row, or several short rows
// that are adjacent in memory.
struct Tile {
  int64_t item;  // of the first row
  int64_t row;
  int64_t rows;
  int64_t begin;   // within the row
  int64_t length;  // elements of each row

  int64_t size() const { return rows * length; }
};

// Several rows form a tile if they are whole Philox blocks and adjacent in every view: with short
// rows, the loop overhead would exceed the cost of the elements.
inline int64_t rows_per_tile(const WorkPartition& partition,
                             std::initializer_list<const RowView*> views) {
  if (partition.length == 0 || partition.length % 4 != 0) return 1;
  for (const RowView* view : views) {
    if (view->present() && !(view->dense() && view->row_stride == partition.length)) return 1;
  }
  return partition.length < kChunk ? kChunk / partition.length : 1;
}

// Calls body(tile) for the items [first, last), at most rows_per_tile rows at a time.
template <class Body>
VK_INLINE void for_each_tile(const WorkPartition& partition, int64_t rows_per_tile, int64_t first,
                             int64_t last, Body body) {
  if (rows_per_tile > 1) {
    for (int64_t row = first; row < last; row += rows_per_tile) {
      const int64_t rows = last - row < rows_per_tile ? last - row : rows_per_tile;
      body(Tile{row, row, rows, 0, partition.length});
    }
    return;
  }
  for_each_item(partition, first, last, [&](int64_t row, int64_t begin, int64_t end, int64_t item) {
    for_each_chunk(begin, end,
                   [&](int64_t chunk, int64_t n) { body(Tile{item, row, 1, chunk, n}); });
  });
}

}  // namespace
}  // namespace vaekernels::cpu
