// The dtypes and dims shared by cpu/row_view.h and cuda/row_view.h, which see a tensor as rows (dim
// 0) of elements in some order of the other dims.
#pragma once

#include <cstdint>

namespace vaekernels {

constexpr int kMaxEventDims = 8;

enum class DType : int8_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

// Appends an inner dim to a view; merges it into the last one where the two are contiguous. Returns
// false if the view already has kMaxEventDims dims.
template <class View>
bool append_dim(View& view, int64_t size, int64_t stride) {
  if (size == 1) return true;
  if (view.dims > 0 && view.strides[view.dims - 1] == size * stride) {
    view.sizes[view.dims - 1] *= size;
    view.strides[view.dims - 1] = stride;
    return true;
  }
  if (view.dims == kMaxEventDims) return false;
  view.sizes[view.dims] = size;
  view.strides[view.dims] = stride;
  ++view.dims;
  return true;
}

}  // namespace vaekernels
