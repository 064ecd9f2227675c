#include <torch/library.h>

#include "autograd.h"
#include "cpu/noise_stream.h"
#include "cpu/tensors.h"

namespace vaekernels::cpu {
namespace {

constexpr const char* kOp = "rsample_kl";

// Checks mean and logvar, which have the same shape, and partitions their work.
WorkPartition partition_of_pair(const at::Tensor& mean, const at::Tensor& logvar) {
  const WorkPartition partition = partition_of({kOp, "mean", mean});
  check_floating({kOp, "logvar", logvar});
  check_shape({kOp, "logvar", logvar}, mean.sizes());
  return partition;
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& mean, const at::Tensor& logvar,
                                           const at::Tensor& seed, int64_t step,
                                           const std::optional<at::Tensor>& sample_ids,
                                           double logvar_min, double logvar_max) {
  RsampleKlForward args;
  args.partition = partition_of_pair(mean, logvar);
  args.mean = row_view_of(mean);
  args.logvar = row_view_of(logvar);
  args.noise = noise_stream(kOp, seed, step, sample_ids, args.partition);
  args.logvar_min = logvar_min;
  args.logvar_max = logvar_max;
  args.in_float64 = any_float64({mean, logvar});
  at::Tensor z = at::empty_like(mean);
  args.z = row_view_of(z);
  std::vector<double> sums(args.partition.items());
  args.sums = sums.data();
  parallel_for_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(rsample_kl_forward, args, first, last);
  });
  const auto kl_type = args.in_float64 ? at::kDouble : at::kFloat;
  return {z, sum_items(args.partition, sums.data(), mean.options().dtype(kl_type))};
}

std::tuple<at::Tensor, at::Tensor> backward(const std::optional<at::Tensor>& grad_z,
                                            const std::optional<at::Tensor>& grad_kl,
                                            const at::Tensor& mean, const at::Tensor& logvar,
                                            const at::Tensor& seed, int64_t step,
                                            const std::optional<at::Tensor>& sample_ids,
                                            double logvar_min, double logvar_max,
                                            std::array<bool, 2> mask) {
  RsampleKlBackward args;
  args.partition = partition_of_pair(mean, logvar);
  if (grad_z.has_value()) {
    check_floating({kOp, "grad_z", *grad_z});
    check_shape({kOp, "grad_z", *grad_z}, mean.sizes());
  }
  if (grad_kl.has_value()) {
    check_floating({kOp, "grad_kl", *grad_kl});
    check_shape({kOp, "grad_kl", *grad_kl}, {args.partition.rows});
  }
  args.grad_z = row_view_of(grad_z);
  args.grad_kl = row_view_of(grad_kl);
  args.mean = row_view_of(mean);
  args.logvar = row_view_of(logvar);
  args.noise = noise_stream(kOp, seed, step, sample_ids, args.partition);
  args.logvar_min = logvar_min;
  args.logvar_max = logvar_max;
  args.in_float64 = any_float64({mean, logvar});
  at::Tensor grad_mean = mask[0] ? at::empty_like(mean) : at::empty({0}, mean.options());
  at::Tensor grad_logvar = mask[1] ? at::empty_like(logvar) : at::empty({0}, mean.options());
  if (mask[0]) args.grad_mean = row_view_of(grad_mean);
  if (mask[1]) args.grad_logvar = row_view_of(grad_logvar);
  parallel_for_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(rsample_kl_backward, args, first, last);
  });
  return {grad_mean, grad_logvar};
}

TORCH_LIBRARY_IMPL(vaekernels, CPU, m) {
  m.impl("rsample_kl", &forward);
  m.impl("rsample_kl_backward", &backward);
}

TORCH_LIBRARY_IMPL(vaekernels, Autograd, m) { register_autograd(m, kOp); }

}  // namespace

}  // namespace vaekernels::cpu
