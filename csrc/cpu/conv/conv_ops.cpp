// The convolution ops: each computes a form (forms.h) with an epilogue, conv3x3 also with a
// prologue.
#include <torch/library.h>

#include "autograd.h"
#include "cpu/conv/conv.h"
#include "cpu/group_norm_ops.h"

namespace vaekernels::cpu {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using OptionalString = std::optional<std::string_view>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

Gradients backward(const ConvCall& call, const OptionalTensor& grad, const at::Tensor& y,
                   std::array<bool, 3> mask) {
  const ConvGradients grads = conv_backward(call, grad, y, {mask[0], mask[1], mask[2], false});
  return {grads.x, grads.weight, grads.bias};
}

// The ops whose form is fixed.
template <Form form>
at::Tensor conv(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                OptionalString activation, double negative_slope, std::string_view precision) {
  return conv_forward({form, x, weight, bias, activation, negative_slope, precision});
}

template <Form form>
Gradients conv_gradients(const OptionalTensor& grad, const at::Tensor& x, const at::Tensor& weight,
                         const OptionalTensor& bias, OptionalString activation,
                         double negative_slope, std::string_view precision, const at::Tensor& y,
                         std::array<bool, 3> mask) {
  return backward({form, x, weight, bias, activation, negative_slope, precision}, grad, y, mask);
}

template <Form form>
void register_conv(torch::Library& library) {
  const std::string op = op_of(form);
  library.impl(op.c_str(), &conv<form>);
  library.impl((op + "_backward").c_str(), &conv_gradients<form>);
}

at::Tensor downsample_conv3x3(const at::Tensor& x, const at::Tensor& weight,
                              const OptionalTensor& bias, std::string_view padding,
                              OptionalString activation, double negative_slope,
                              std::string_view precision) {
  const Form form = form_of("downsample_conv3x3", padding);
  return conv_forward({form, x, weight, bias, activation, negative_slope, precision});
}

Gradients downsample_conv3x3_backward(const OptionalTensor& grad, const at::Tensor& x,
                                      const at::Tensor& weight, const OptionalTensor& bias,
                                      std::string_view padding, OptionalString activation,
                                      double negative_slope, std::string_view precision,
                                      const at::Tensor& y, std::array<bool, 3> mask) {
  const Form form = form_of("downsample_conv3x3", padding);
  return backward({form, x, weight, bias, activation, negative_slope, precision}, grad, y, mask);
}

// The GroupNorm of the prologue.
struct Norm {
  at::Tensor weight, bias;
  int64_t groups;
  double eps;
  at::Tensor mean, rstd;
};

std::optional<Norm> norm_of(const at::Tensor& x, const OptionalTensor& weight,
                            const OptionalTensor& bias, int64_t groups, double eps) {
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

at::Tensor conv3x3(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                   const OptionalTensor& residual, const OptionalTensor& norm_weight,
                   const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
                   OptionalString activation, double negative_slope, std::string_view precision) {
  ConvCall call{Form::kSame, x, weight, bias, activation, negative_slope, precision};
  const at::Tensor nhwc = call.x = x.contiguous(at::MemoryFormat::ChannelsLast);
  if (residual.has_value()) call.residual = *residual;
  set_norm(call, norm_of(nhwc, norm_weight, norm_bias, norm_groups, norm_eps));
  return conv_forward(call);
}

// Recomputes the normalised activations for the gradient of the filters; only x is saved.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> conv3x3_backward(
    const OptionalTensor& grad, const at::Tensor& x, const at::Tensor& weight,
    const OptionalTensor& bias, const OptionalTensor& residual, const OptionalTensor& norm_weight,
    const OptionalTensor& norm_bias, int64_t norm_groups, double norm_eps,
    OptionalString activation, double negative_slope, std::string_view precision,
    const at::Tensor& y, std::array<bool, 6> mask) {
  ConvCall call{Form::kSame, x, weight, bias, activation, negative_slope, precision};
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

TORCH_LIBRARY_IMPL(vaekernels, CPU, m) {
  m.impl("conv3x3", &conv3x3);
  m.impl("conv3x3_backward", &conv3x3_backward);
  m.impl("downsample_conv3x3", &downsample_conv3x3);
  m.impl("downsample_conv3x3_backward", &downsample_conv3x3_backward);
  register_conv<Form::kUpsample>(m);
  register_conv<Form::kDown4x4>(m);
  register_conv<Form::kUp4x4>(m);
}

TORCH_LIBRARY_IMPL(vaekernels, Autograd, m) {
  for (const Form form :
       {Form::kSame, Form::kUpsample, Form::kDown3x3, Form::kDown4x4, Form::kUp4x4}) {
    register_autograd(m, op_of(form));
  }
}

}  // namespace
}  // namespace vaekernels::cpu
