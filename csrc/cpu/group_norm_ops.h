// group_norm_silu on the CPU, and its steps for the ops with a normalisation prologue. Tensors are
// float32, (N, C, ...); contiguous and channels_last ones are read in place.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>

#include "cpu/checks.h"

namespace vaekernels::cpu {

// Checks that groups divides the channels of x, and that weight and bias are float32 of shape (C,).
void check_group_norm(const at::Tensor& x, const Argument& weight, const Argument& bias,
                      int64_t groups);

// Returns mean and rstd, (N, groups).
std::tuple<at::Tensor, at::Tensor> group_norm_statistics(const at::Tensor& x, int64_t groups,
                                                         double eps);

// Returns scale and shift, (N, C), of the affine map that normalises x: x * scale + shift.
std::tuple<at::Tensor, at::Tensor> group_norm_affine(const at::Tensor& mean, const at::Tensor& rstd,
                                                     const at::Tensor& weight,
                                                     const at::Tensor& bias);

// Returns silu(x * scale + shift) in the strides of x, which is contiguous or channels_last.
at::Tensor group_norm_apply_silu(const at::Tensor& x, const at::Tensor& scale,
                                 const at::Tensor& shift);

// Returns y, mean and rstd; y has the strides of x.
std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_forward(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups,
    double eps, const std::optional<std::string>& activation);

// Returns the gradients of x, weight and bias; those that the mask excludes are empty.
std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const at::Tensor& bias, int64_t groups, double eps,
    const std::optional<std::string>& activation, const at::Tensor& mean, const at::Tensor& rstd,
    std::array<bool, 3> mask);

}  // namespace vaekernels::cpu
