// A view of a tensor of any strides and dtype as rows (dim 0) of elements. Includes no torch
// header: nvcc compiles the device files, per architecture, without torch.
#pragma once

#include "common/half.h"
#include "common/row_layout.h"

namespace vaekernels::cuda {

enum class ViewKind : int8_t {
  kAbsent,
  kHostScalar,    // a value that the host has read
  kDeviceScalar,  // in device memory
  kDense,         // rows of consecutive elements, any distance between rows
  kStrided,       // anything else
};

struct RowView {
  ViewKind kind = ViewKind::kAbsent;
  DType dtype = DType::kFloat32;
  int16_t alignment = 0;   // of the start of each row, in bytes: 16, 8 or 1
  int32_t dims = 0;        // event dims, after merging contiguous ones
  char* data = nullptr;    // first element, in device memory
  double value = 0.0;      // of a kHostScalar
  int64_t row_stride = 0;  // in elements, as all strides
  int64_t sizes[kMaxEventDims] = {};
  int64_t strides[kMaxEventDims] = {};

  VK_INLINE bool present() const { return kind != ViewKind::kAbsent; }
  VK_INLINE bool is_scalar() const {
    return kind == ViewKind::kHostScalar || kind == ViewKind::kDeviceScalar;
  }
};

}  // namespace vaekernels::cuda
