// Checks of the ops' arguments, before any memory is read. The functions in vaekernels/ops/ make
// the same checks, but torch.ops.vaekernels.* and exported programs bypass them. An error names the
// op, the argument, what was expected and what was passed; its text is formatted only on failure.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <initializer_list>

namespace vaekernels::cpu {

// An argument of an op, by its name in the schema.
struct Argument {
  const char* op;
  const char* name;
  const at::Tensor& tensor;
};

inline void check_dtype(const Argument& a, std::initializer_list<at::ScalarType> allowed) {
  TORCH_CHECK_VALUE(a.tensor.defined(), a.op, ": ", a.name, " must be a tensor; got None");
  TORCH_CHECK_VALUE(a.tensor.layout() == at::kStrided, a.op, ": ", a.name,
                    " must be a dense tensor; got the layout ", a.tensor.layout());
  TORCH_CHECK_VALUE(a.tensor.is_cpu() || a.tensor.is_meta(), a.op, ": ", a.name,
                    " must be on cpu; got ", a.tensor.device());
  const bool is_allowed =
      std::find(allowed.begin(), allowed.end(), a.tensor.scalar_type()) != allowed.end();
  TORCH_CHECK_TYPE(is_allowed, a.op, ": ", a.name, " must be ",
                   at::ArrayRef<at::ScalarType>(allowed), "; got ", a.tensor.scalar_type());
}

inline void check_floating(const Argument& a) {
  check_dtype(a, {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf});
}

inline void check_float32(const Argument& a) { check_dtype(a, {at::kFloat}); }

inline void check_shape(const Argument& a, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(a.tensor.sizes() == shape, a.op, ": ", a.name, " must have shape ", shape,
                    "; got ", a.tensor.sizes());
}

}  // namespace vaekernels::cpu
