// Group normalisation with SiLU on the CPU, and its steps for the ops that normalise on the way.
// Tensors are float32, (N, C, ...); planes (contiguous) and pixels (channels_last) are read in
// place.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>

#include "cpu/checks.h"

namespace vaekernels::cpu {

// x, a float32 tensor, has channels that the groups divide; weight and bias have a number for each.
void check_group_norm(const at::Tensor& x, const Argument& weight, const Argument& bias,
                      int64_t groups);

// mean and rstd, (N, groups), of the groups of x.
std::tuple<at::Tensor, at::Tensor> group_norm_statistics(const at::Tensor& x, int64_t groups,
                                                         double eps);

// scale and shift, (N, C): the normalised x is x * scale + shift.
std::tuple<at::Tensor, at::Tensor> group_norm_affine(const at::Tensor& mean, const at::Tensor& rstd,
                                                     const at::Tensor& weight,
                                                     const at::Tensor& bias);

// silu(x * scale + shift), as x lies in memory; x lies in one piece, planes or pixels.
at::Tensor group_norm_apply_silu(const at::Tensor& x, const at::Tensor& scale,
                                 const at::Tensor& shift);

// y, mean and rstd; y lies in memory as x does.
std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_forward(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups,
    double eps, const std::optional<std::string>& activation);

// The gradients of x, weight and bias that the mask wants, the others empty.
std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const at::Tensor& bias, int64_t groups, double eps,
    const std::optional<std::string>& activation, const at::Tensor& mean, const at::Tensor& rstd,
    std::array<bool, 3> mask);

}  // namespace vaekernels::cpu
