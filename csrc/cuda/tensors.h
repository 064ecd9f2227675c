// Converts tensors to kernel arguments. Host code on PyTorch's stable ABI: one binary serves torch
// 2.10 and newer, and it can be built with a torch without CUDA.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/kernels.h"

namespace vaekernels::cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// "op: argument: expected ...; got ..."; the stable ABI has one kind of error, RuntimeError. The
// public functions in vaekernels/ops/ raise the finer ones before.
template <class... Parts>
void require(bool condition, const char* op, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  message << op << ": ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

bool same_shape(const Tensor& a, const Tensor& b);

// Formats the shape or the device of a tensor, in a message that is not built unless it is needed.
struct ShapeOf {
  const Tensor& tensor;
};
struct DeviceOf {
  const Tensor& tensor;
};
std::ostream& operator<<(std::ostream& out, ShapeOf shape);
std::ostream& operator<<(std::ostream& out, DeviceOf device);
inline ShapeOf shape_of(const Tensor& tensor) { return {tensor}; }

// The order in which a kernel iterates over the event dims. Noise is defined by row-major order;
// sums may use the memory order of their first input.
using DimOrder = std::vector<int64_t>;
DimOrder row_major(const Tensor& tensor);
DimOrder memory_order(const Tensor& tensor);

// Views (B, ...) as rows, and a 0-dim tensor as a scalar. Checks dtype and device. The view does
// not own the memory.
RowView row_view_of(const char* op, const char* name, const Tensor& tensor, const DimOrder& order,
                    int32_t device);

// Views (B,) as one number per row, as the gradients of row sums are.
RowView per_row_view(const char* op, const char* name, const Tensor& tensor, int64_t rows,
                     int32_t device);

WorkPartition partition_of(const char* op, const char* name, const Tensor& tensor);

bool any_float64(std::initializer_list<RowView> rows);

// The fastest access that all present views allow.
Access choose_access(bool in_float64, const std::vector<RowView>& rows);

NoiseStream noise_stream(const char* op, const Tensor& seed, int64_t step,
                         const std::optional<Tensor>& sample_ids, const WorkPartition& partition,
                         int32_t device);

// The tensor of the sums, and the workspace of partial sums that merged() adds up.
class SumBuffers {
 public:
  // shape: (groups,), or () for one group.
  SumBuffers(const Tensor& like, ScalarType type, const std::vector<int64_t>& shape, int64_t items);

  const Sums& view() const { return view_; }
  Tensor merged(Stream stream) const;

 private:
  Tensor totals_;
  std::optional<Tensor> partials_;
  Sums view_;
  int64_t groups_;
  int64_t items_;
};

// Makes the device of a tensor current in a scope, and provides its current stream.
class DeviceScope {
 public:
  explicit DeviceScope(const char* op, const Tensor& tensor);

  int32_t index() const { return index_; }
  Stream stream() const { return stream_; }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  Stream stream_;
};

inline Tensor no_gradient(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

inline ScalarType sum_type(bool in_float64) {
  return in_float64 ? ScalarType::Double : ScalarType::Float;
}

}  // namespace vaekernels::cuda
