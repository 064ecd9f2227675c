#include "cpu/conv/conv.h"
#include "cpu/ops.h"

namespace vaekernels::cpu {

at::Tensor conv_transpose4x4_forward(const at::Tensor& x, const at::Tensor& weight,
                                     const std::optional<at::Tensor>& bias,
                                     std::optional<std::string_view> activation,
                                     double negative_slope, std::string_view precision) {
  return conv_forward(
      {"conv_transpose4x4", Form::kUp4x4, x, weight, bias, activation, negative_slope, precision});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> conv_transpose4x4_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, std::optional<std::string_view> activation,
    double negative_slope, std::string_view precision, const at::Tensor& y,
    std::array<bool, 3> mask) {
  const ConvCall call{"conv_transpose4x4", Form::kUp4x4,   x,        weight, bias,
                      activation,          negative_slope, precision};
  const ConvGradients grads = conv_backward(call, grad, y, {mask[0], mask[1], mask[2], false});
  return {grads.x, grads.weight, grads.bias};
}

}  // namespace vaekernels::cpu
