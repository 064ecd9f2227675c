// A tensor as rows (dim 0) of elements in some order of the other dims: what the CPU's and the
// GPU's views of it share.
#pragma once

#include <cstdint>

namespace vaekernels {

constexpr int kMaxEventDims = 8;

enum class Kind : int8_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

// Appends an inner dim to a view, merging it into the last one where the two are contiguous. False
// when the view is full.
template <class Rows>
bool append_dim(Rows& rows, int64_t size, int64_t stride) {
  if (size == 1) return true;
  if (rows.dims > 0 && rows.strides[rows.dims - 1] == size * stride) {
    rows.sizes[rows.dims - 1] *= size;
    rows.strides[rows.dims - 1] = stride;
    return true;
  }
  if (rows.dims == kMaxEventDims) return false;
  rows.sizes[rows.dims] = size;
  rows.strides[rows.dims] = stride;
  ++rows.dims;
  return true;
}

}  // namespace vaekernels
