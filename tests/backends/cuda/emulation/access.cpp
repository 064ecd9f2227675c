// The access that is chosen for tensors, which results do not show: vaekernels_emulated::access.
#include "cuda/tensors.h"

namespace vaekernels::cuda {
namespace {

int64_t access(const std::vector<Tensor>& tensors) {
  std::vector<RowView> rows;
  bool in_float64 = false;
  for (const Tensor& tensor : tensors) {
    rows.push_back(row_view_of("access", "tensors", tensor, row_major(tensor), 0));
    in_float64 = in_float64 || any_float64({rows.back()});
  }
  return static_cast<int64_t>(choose_access(in_float64, rows));
}

}  // namespace
}  // namespace vaekernels::cuda

STABLE_TORCH_LIBRARY_IMPL(vaekernels, CUDA, m) {
  m.impl("access", TORCH_BOX(&vaekernels::cuda::access));
}
