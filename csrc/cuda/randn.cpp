#include <torch/csrc/stable/library.h>

#include "cuda/tensors.h"

namespace vaekernels::cuda {
namespace {

Tensor forward(const Tensor& like, const Tensor& seed, int64_t step,
               const std::optional<Tensor>& sample_ids) {
  constexpr const char* kOp = "randn";
  const DeviceScope scope(kOp, like);
  Randn args;
  args.partition = partition_of(kOp, "like", like);
  args.noise = noise_stream(kOp, seed, step, sample_ids, args.partition, scope.index());
  Tensor out = torch::stable::new_empty(like, like.sizes());
  args.out = row_view_of(kOp, "like", out, row_major(out), scope.index());
  launch_randn(choose_access(any_float64({args.out}), {args.out}), args, scope.stream());
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(vaekernels, CUDA, m) { m.impl("randn", TORCH_BOX(&forward)); }

}  // namespace

}  // namespace vaekernels::cuda
