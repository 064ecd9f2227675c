// A tensor as the kernels see it: rows (dim 0) of elements in row-major logical order, whatever
// its strides and dtype. No torch header here: nvcc compiles the kernels, per architecture,
// without torch.
#pragma once

#include "common/half.h"
#include "common/rows.h"

namespace vaekernels::cuda {

enum class Form : int8_t {
  kAbsent,
  kValue,    // one number, known on the host
  kNumber,   // one number, in device memory
  kDense,    // rows of consecutive elements, any distance between rows
  kStrided,  // anything else
};

struct Rows {
  Form form = Form::kAbsent;
  Kind kind = Kind::kFloat32;
  int16_t alignment = 0;   // bytes that the start of every row is a multiple of, at most 16
  int32_t dims = 0;        // event dims after merging those that are contiguous
  char* data = nullptr;    // first element, in device memory
  double value = 0.0;      // where form is kValue
  int64_t row_stride = 0;  // in elements, as all strides
  int64_t sizes[kMaxEventDims] = {};
  int64_t strides[kMaxEventDims] = {};

  VK_INLINE bool present() const { return form != Form::kAbsent; }
  VK_INLINE bool is_number() const { return form == Form::kValue || form == Form::kNumber; }
};

}  // namespace vaekernels::cuda
