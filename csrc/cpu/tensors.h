// Converts tensors to kernel arguments. Included by files that are compiled once only.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

#include "cpu/checks.h"
#include "cpu/kernels.h"

namespace vaekernels::cpu {

inline DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return DType::kFloat64;
    case at::kFloat: return DType::kFloat32;
    case at::kBFloat16: return DType::kBFloat16;
    case at::kHalf: return DType::kFloat16;
    default: TORCH_INTERNAL_ASSERT(false, "check_floating() comes before");
  }
}

// An order of the event dims, outermost first.
using DimOrder = c10::SmallVector<int64_t, 6>;

// The logical order, by which noise is defined.
inline DimOrder row_major(const at::Tensor& tensor) {
  DimOrder order;
  for (int64_t d = 1; d < tensor.dim(); ++d) order.push_back(d);
  return order;
}

// The order of the strides. Sums may use any order; with this one, channels_last tensors are read
// as fast as contiguous ones.
inline DimOrder memory_order(const at::Tensor& tensor) {
  DimOrder order = row_major(tensor);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return tensor.stride(a) > tensor.stride(b); });
  return order;
}

// Views (B, ...) as rows, and a 0-dim tensor as a scalar. The view does not own the memory.
inline RowView row_view_of(const at::Tensor& tensor, const DimOrder& order) {
  RowView rows;
  rows.dtype = dtype_of(tensor);
  // An empty tensor may have a null pointer, which would mean an absent view.
  static char nothing;
  const void* data = tensor.numel() == 0 ? &nothing : tensor.const_data_ptr();
  rows.data = const_cast<char*>(static_cast<const char*>(data));
  if (tensor.dim() == 0) return rows;
  rows.row_stride = tensor.stride(0);
  for (int64_t d : order) {
    TORCH_CHECK_VALUE(append_dim(rows, tensor.size(d), tensor.stride(d)), "expected at most ",
                      kMaxEventDims, " event dims that are not contiguous; got shape ",
                      tensor.sizes());
  }
  return rows;
}

inline RowView row_view_of(const at::Tensor& tensor) {
  return row_view_of(tensor, row_major(tensor));
}

inline RowView row_view_of(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? row_view_of(*tensor) : RowView{};
}

inline WorkPartition partition_of(const Argument& argument) {
  check_floating(argument);
  const at::Tensor& tensor = argument.tensor;
  TORCH_CHECK_VALUE(tensor.dim() >= 1, argument.op, ": ", argument.name,
                    " must have a batch dim, shape (B, ...); got a scalar");
  WorkPartition partition;
  partition.rows = tensor.size(0);
  partition.length = 1;
  for (int64_t d = 1; d < tensor.dim(); ++d) partition.length *= tensor.size(d);
  partition.segments = std::max<int64_t>(1, (partition.length + kSegment - 1) / kSegment);
  return partition;
}

// Runs body(first, last) over the items in parallel. The grain keeps small work on the calling
// thread: waking another one costs as much as about 4,096 elements.
template <class Body>
void parallel_for_items(const WorkPartition& partition, const Body& body) {
  const int64_t length = std::max<int64_t>(1, std::min(partition.length, kSegment));
  at::parallel_for(0, partition.items(), std::max<int64_t>(1, 4096 / length), body);
}

inline bool any_float64(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& t) { return t.scalar_type() == at::kDouble; });
}

// Sums the items of each row in order.
inline at::Tensor sum_items(const WorkPartition& partition, const double* sums,
                            const at::TensorOptions& options) {
  at::Tensor out = at::empty({partition.rows}, options);
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "sum_items", [&] {
    scalar_t* data = out.mutable_data_ptr<scalar_t>();
    for (int64_t row = 0; row < partition.rows; ++row) {
      double sum = 0.0;
      for (int64_t s = 0; s < partition.segments; ++s) sum += sums[row * partition.segments + s];
      data[row] = static_cast<scalar_t>(sum);
    }
  });
  return out;
}

}  // namespace vaekernels::cpu
