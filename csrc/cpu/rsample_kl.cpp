#include "cpu/noise_stream.h"
#include "cpu/ops.h"
#include "cpu/tensors.h"

namespace vaekernels::cpu {
namespace {

void check_pair(const at::Tensor& mean, const at::Tensor& logvar) {
  TORCH_CHECK_VALUE(mean.sizes() == logvar.sizes(), "rsample_kl: logvar must have the shape of ",
                    "mean, ", mean.sizes(), "; got ", logvar.sizes());
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rsample_kl_forward(const at::Tensor& mean,
                                                      const at::Tensor& logvar,
                                                      const at::Tensor& seed, int64_t step,
                                                      const std::optional<at::Tensor>& sample_ids,
                                                      double logvar_min, double logvar_max) {
  check_pair(mean, logvar);
  RsampleKlForward args;
  args.partition = partition_of(mean);
  args.mean = rows_of(mean);
  args.logvar = rows_of(logvar);
  args.noise = noise_stream(seed, step, sample_ids, args.partition);
  args.logvar_min = logvar_min;
  args.logvar_max = logvar_max;
  args.in_float64 = any_float64({mean, logvar});
  at::Tensor z = at::empty_like(mean);
  args.z = rows_of(z);
  std::vector<double> sums(args.partition.items());
  args.sums = sums.data();
  parallel_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(rsample_kl_forward, args, first, last);
  });
  const auto kl_type = args.in_float64 ? at::kDouble : at::kFloat;
  return {z, sum_items(args.partition, sums.data(), mean.options().dtype(kl_type))};
}

std::tuple<at::Tensor, at::Tensor> rsample_kl_backward(
    const std::optional<at::Tensor>& grad_z, const std::optional<at::Tensor>& grad_kl,
    const at::Tensor& mean, const at::Tensor& logvar, const at::Tensor& seed, int64_t step,
    const std::optional<at::Tensor>& sample_ids, double logvar_min, double logvar_max,
    std::array<bool, 2> mask) {
  check_pair(mean, logvar);
  RsampleKlBackward args;
  args.partition = partition_of(mean);
  args.grad_z = rows_of(grad_z);
  args.grad_kl = rows_of(grad_kl);
  args.mean = rows_of(mean);
  args.logvar = rows_of(logvar);
  args.noise = noise_stream(seed, step, sample_ids, args.partition);
  args.logvar_min = logvar_min;
  args.logvar_max = logvar_max;
  args.in_float64 = any_float64({mean, logvar});
  at::Tensor grad_mean = mask[0] ? at::empty_like(mean) : at::empty({0}, mean.options());
  at::Tensor grad_logvar = mask[1] ? at::empty_like(logvar) : at::empty({0}, mean.options());
  if (mask[0]) args.grad_mean = rows_of(grad_mean);
  if (mask[1]) args.grad_logvar = rows_of(grad_logvar);
  parallel_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(rsample_kl_backward, args, first, last);
  });
  return {grad_mean, grad_logvar};
}

}  // namespace vaekernels::cpu
