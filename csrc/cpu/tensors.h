// From tensors to what the kernels take. Included by the op files, which are compiled once.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

#include "cpu/checks.h"
#include "cpu/kernels.h"

namespace vaekernels::cpu {

inline Kind kind_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return Kind::kFloat64;
    case at::kFloat: return Kind::kFloat32;
    case at::kBFloat16: return Kind::kBFloat16;
    case at::kHalf: return Kind::kFloat16;
    default: TORCH_INTERNAL_ASSERT(false, "check_floating() comes before");
  }
}

// Event dims, outermost first.
using DimOrder = c10::SmallVector<int64_t, 6>;

// The order that says which element of a row is which: needed where there is noise.
inline DimOrder row_major(const at::Tensor& tensor) {
  DimOrder order;
  for (int64_t d = 1; d < tensor.dim(); ++d) order.push_back(d);
  return order;
}

// The order in which the elements lie: for sums, which may take them in any. A channels_last tensor
// is then read as fast as a contiguous one.
inline DimOrder memory_order(const at::Tensor& tensor) {
  DimOrder order = row_major(tensor);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return tensor.stride(a) > tensor.stride(b); });
  return order;
}

// (B, ...) as rows; a tensor with one element as that number in every row. The view borrows the
// tensor's memory.
inline Rows rows_of(const at::Tensor& tensor, const DimOrder& order) {
  Rows rows;
  rows.kind = kind_of(tensor);
  // An empty tensor may have no memory; nothing of it is read, but it is there.
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

inline Rows rows_of(const at::Tensor& tensor) { return rows_of(tensor, row_major(tensor)); }

inline Rows rows_of(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? rows_of(*tensor) : Rows{};
}

inline Partition partition_of(const Argument& argument) {
  check_floating(argument);
  const at::Tensor& tensor = argument.tensor;
  TORCH_CHECK_VALUE(tensor.dim() >= 1, argument.op, ": ", argument.name,
                    " must have a batch dim, shape (B, ...); got a scalar");
  Partition partition;
  partition.rows = tensor.size(0);
  partition.length = 1;
  for (int64_t d = 1; d < tensor.dim(); ++d) partition.length *= tensor.size(d);
  partition.segments = std::max<int64_t>(1, (partition.length + kSegment - 1) / kSegment);
  return partition;
}

// Runs body(first, last) over the items in ATen's thread pool. The grain keeps small work on the
// calling thread: waking another costs about what 4,096 elements do.
template <class Body>
void parallel_items(const Partition& partition, const Body& body) {
  const int64_t length = std::max<int64_t>(1, std::min(partition.length, kSegment));
  at::parallel_for(0, partition.items(), std::max<int64_t>(1, 4096 / length), body);
}

inline bool any_float64(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& t) { return t.scalar_type() == at::kDouble; });
}

// Sums the items of each row in order.
inline at::Tensor sum_items(const Partition& partition, const double* sums,
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
