// The forms computed by PyTorch's convolution (oneDNN on most machines), for the shapes where it is
// expected to be faster than the engine (plan.h).
#pragma once

#include <ATen/ATen.h>

#include <array>

#include "cpu/conv/forms.h"

namespace vaekernels::cpu {

at::Tensor library_forward(Form form, const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias);

// Returns the gradients of x and weight that the mask selects; the others are undefined.
std::array<at::Tensor, 2> library_backward(Form form, const at::Tensor& dy, const at::Tensor& x,
                                           const at::Tensor& weight, std::array<bool, 2> mask);

}  // namespace vaekernels::cpu
