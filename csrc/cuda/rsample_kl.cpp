#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/tensors.h"

namespace vaekernels::cuda {
namespace {

constexpr const char* kOp = "rsample_kl";

void require_shape(const char* name, const Tensor& tensor, const Tensor& mean) {
  require(same_shape(tensor, mean), kOp, name, ": expected the shape of mean, ", shape_of(mean),
          "; got ", shape_of(tensor));
}

std::tuple<Tensor, Tensor> forward(const Tensor& mean, const Tensor& logvar, const Tensor& seed,
                                   int64_t step, const std::optional<Tensor>& sample_ids,
                                   double logvar_min, double logvar_max) {
  const DeviceScope scope(kOp, mean);
  require_shape("logvar", logvar, mean);
  const DimOrder order = row_major(mean);
  RsampleKlForward args;
  args.partition = partition_of(kOp, "mean", mean);
  args.mean = row_view_of(kOp, "mean", mean, order, scope.index());
  args.logvar = row_view_of(kOp, "logvar", logvar, order, scope.index());
  args.noise = noise_stream(kOp, seed, step, sample_ids, args.partition, scope.index());
  args.logvar_min = logvar_min;
  args.logvar_max = logvar_max;
  Tensor z = torch::stable::empty_like(mean);
  args.z = row_view_of(kOp, "z", z, order, scope.index());
  const bool in_float64 = any_float64({args.mean, args.logvar});
  const SumBuffers kl(mean, sum_type(in_float64), {args.partition.rows}, args.partition.segments);
  args.kl = kl.view();
  const Access access = choose_access(in_float64, {args.mean, args.logvar, args.z});
  launch_rsample_kl_forward(access, args, scope.stream());
  return {z, kl.merged(scope.stream())};
}

std::tuple<Tensor, Tensor> backward(const std::optional<Tensor>& grad_z,
                                    const std::optional<Tensor>& grad_kl, const Tensor& mean,
                                    const Tensor& logvar, const Tensor& seed, int64_t step,
                                    const std::optional<Tensor>& sample_ids, double logvar_min,
                                    double logvar_max, std::vector<bool> mask) {
  const DeviceScope scope(kOp, mean);
  require(mask.size() == 2, kOp, "mask: expected 2 booleans; got ", mask.size());
  require_shape("logvar", logvar, mean);
  const DimOrder order = row_major(mean);
  RsampleKlBackward args;
  args.partition = partition_of(kOp, "mean", mean);
  if (grad_z.has_value()) {
    require_shape("grad_z", *grad_z, mean);
    args.grad_z = row_view_of(kOp, "grad_z", *grad_z, order, scope.index());
  }
  if (grad_kl.has_value()) {
    args.grad_kl = per_row_view(kOp, "grad_kl", *grad_kl, args.partition.rows, scope.index());
  }
  args.mean = row_view_of(kOp, "mean", mean, order, scope.index());
  args.logvar = row_view_of(kOp, "logvar", logvar, order, scope.index());
  args.noise = noise_stream(kOp, seed, step, sample_ids, args.partition, scope.index());
  args.logvar_min = logvar_min;
  args.logvar_max = logvar_max;
  Tensor grad_mean = mask[0] ? torch::stable::empty_like(mean) : no_gradient(mean);
  Tensor grad_logvar = mask[1] ? torch::stable::empty_like(logvar) : no_gradient(mean);
  if (mask[0]) args.grad_mean = row_view_of(kOp, "grad_mean", grad_mean, order, scope.index());
  if (mask[1])
    args.grad_logvar = row_view_of(kOp, "grad_logvar", grad_logvar, order, scope.index());
  const Access access =
      choose_access(any_float64({args.mean, args.logvar}),
                    {args.grad_z, args.mean, args.logvar, args.grad_mean, args.grad_logvar});
  launch_rsample_kl_backward(access, args, scope.stream());
  return {grad_mean, grad_logvar};
}

STABLE_TORCH_LIBRARY_IMPL(vaekernels, CUDA, m) {
  m.impl("rsample_kl", TORCH_BOX(&forward));
  m.impl("rsample_kl_backward", TORCH_BOX(&backward));
}

}  // namespace

}  // namespace vaekernels::cuda
