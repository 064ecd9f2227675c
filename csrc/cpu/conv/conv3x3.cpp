#include "cpu/conv/conv.h"
#include "cpu/group_norm_ops.h"
#include "cpu/ops.h"

namespace vaekernels::cpu {
namespace {

// The GroupNorm of the prologue.
struct Norm {
  at::Tensor weight, bias;
  int64_t groups;
  double eps;
  at::Tensor mean, rstd;
};

std::optional<Norm> norm_of(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, int64_t groups, double eps) {
  TORCH_CHECK_VALUE(weight.has_value() == bias.has_value(),
                    "conv3x3: norm_weight and norm_bias must both be tensors, or both None");
  if (!weight.has_value()) return std::nullopt;
  check_group_norm(x, {"conv3x3", "norm_weight", *weight}, {"conv3x3", "norm_bias", *bias}, groups);
  auto [mean, rstd] = group_norm_statistics(x, groups, eps);
  return Norm{*weight, *bias, groups, eps, mean, rstd};
}

void set_norm(ConvCall& call, const std::optional<Norm>& norm) {
  if (!norm.has_value()) return;
  std::tie(call.scale, call.shift) =
      group_norm_affine(norm->mean, norm->rstd, norm->weight, norm->bias);
}

}  // namespace

at::Tensor conv3x3_forward(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& residual,
                           const std::optional<at::Tensor>& norm_weight,
                           const std::optional<at::Tensor>& norm_bias, int64_t norm_groups,
                           double norm_eps, std::optional<std::string_view> activation,
                           double negative_slope, std::string_view precision) {
  ConvCall call{"conv3x3", Form::kSame, x, weight, bias, activation, negative_slope, precision};
  const at::Tensor nhwc = call.x = x.contiguous(at::MemoryFormat::ChannelsLast);
  if (residual.has_value()) call.residual = *residual;
  set_norm(call, norm_of(nhwc, norm_weight, norm_bias, norm_groups, norm_eps));
  return conv_forward(call);
}

// Recomputes the normalised activations for the gradient of the filters; only x is saved.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> conv3x3_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& residual,
    const std::optional<at::Tensor>& norm_weight, const std::optional<at::Tensor>& norm_bias,
    int64_t norm_groups, double norm_eps, std::optional<std::string_view> activation,
    double negative_slope, std::string_view precision, const at::Tensor& y,
    std::array<bool, 6> mask) {
  ConvCall call{"conv3x3", Form::kSame, x, weight, bias, activation, negative_slope, precision};
  const at::Tensor nhwc = call.x = x.contiguous(at::MemoryFormat::ChannelsLast);
  if (residual.has_value()) call.residual = *residual;
  const auto norm = norm_of(nhwc, norm_weight, norm_bias, norm_groups, norm_eps);
  set_norm(call, norm);
  const bool before = norm.has_value() && (mask[0] || mask[4] || mask[5]);
  ConvGradients grads =
      conv_backward(call, grad, y, {mask[0] || before, mask[1], mask[2], mask[3]});
  at::Tensor norm_weight_gradient = at::empty({0}, x.options());
  at::Tensor norm_bias_gradient = at::empty({0}, x.options());
  if (before) {
    std::tie(grads.x, norm_weight_gradient, norm_bias_gradient) =
        group_norm_silu_backward(grads.x, nhwc, norm->weight, norm->bias, norm->groups, norm->eps,
                                 "silu", norm->mean, norm->rstd, {mask[0], mask[4], mask[5]});
  }
  return {grads.x,        grads.weight,         grads.bias,
          grads.residual, norm_weight_gradient, norm_bias_gradient};
}

}  // namespace vaekernels::cpu
