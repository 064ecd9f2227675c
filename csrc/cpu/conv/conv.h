// Forward and backward of a convolution form with its prologue and epilogue, for all ops.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string_view>

#include "cpu/conv/plan.h"

namespace vaekernels::cpu {

// y = activation(convolution(prologue(x), weight) + bias + residual), all NHWC in memory.
struct ConvCall {
  ConvCall(Form form, const at::Tensor& x, const at::Tensor& weight,
           const std::optional<at::Tensor>& bias, std::optional<std::string_view> activation,
           double negative_slope, std::string_view precision);

  const char* op;  // for messages
  Form form;
  at::Tensor x, weight;
  at::Tensor bias, residual;  // undefined: none
  at::Tensor scale, shift;    // (N, C): the prologue is silu(x * scale + shift); undefined: none
  Activation activation;
  float negative_slope;
  Precision precision;
};

struct ConvGradients {
  at::Tensor x, weight, bias, residual;  // x: with respect to the prologue's result
};

at::Tensor conv_forward(const ConvCall& call);

// The mask selects the gradients of x, weight, bias and residual; the others are empty.
ConvGradients conv_backward(const ConvCall& call, const std::optional<at::Tensor>& dy,
                            const at::Tensor& y, std::array<bool, 4> mask);

// The plan that conv_forward and conv_backward follow.
Plan plan_of(const ConvCall& call, Direction direction);

// As above for a given filters_ready. Only the sizes of tensors are read.
Plan plan_of(const ConvCall& call, Direction direction, bool filters_ready);

}  // namespace vaekernels::cpu
