// The CPU implementations of the torch ops; the schemas are in vaekernels/ops/.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

namespace vaekernels::cpu {

std::tuple<at::Tensor, at::Tensor> rsample_kl_forward(const at::Tensor& mean,
                                                      const at::Tensor& logvar,
                                                      const at::Tensor& seed, int64_t step,
                                                      const std::optional<at::Tensor>& sample_ids,
                                                      double logvar_min, double logvar_max);
std::tuple<at::Tensor, at::Tensor> rsample_kl_backward(
    const std::optional<at::Tensor>& grad_z, const std::optional<at::Tensor>& grad_kl,
    const at::Tensor& mean, const at::Tensor& logvar, const at::Tensor& seed, int64_t step,
    const std::optional<at::Tensor>& sample_ids, double logvar_min, double logvar_max,
    std::array<bool, 2> mask);

at::Tensor randn_forward(const at::Tensor& like, const at::Tensor& seed, int64_t step,
                         const std::optional<at::Tensor>& sample_ids);

at::Tensor gaussian_kl_forward(const at::Tensor& mean, const at::Tensor& logvar,
                               const at::Tensor& prior_mean, const at::Tensor& prior_logvar);
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gaussian_kl_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& mean, const at::Tensor& logvar,
    const at::Tensor& prior_mean, const at::Tensor& prior_logvar, std::array<bool, 4> mask);

at::Tensor bernoulli_nll_forward(const at::Tensor& logits, const at::Tensor& target);
std::tuple<at::Tensor, at::Tensor> bernoulli_nll_backward(const std::optional<at::Tensor>& grad,
                                                          const at::Tensor& logits,
                                                          const at::Tensor& target,
                                                          std::array<bool, 2> mask);

at::Tensor gaussian_nll_forward(const at::Tensor& mean, const at::Tensor& target,
                                const at::Tensor& logvar);
std::tuple<at::Tensor, at::Tensor, at::Tensor> gaussian_nll_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& mean, const at::Tensor& target,
    const at::Tensor& logvar, std::array<bool, 3> mask);

at::Tensor laplace_nll_forward(const at::Tensor& mean, const at::Tensor& target,
                               const at::Tensor& scale);
std::tuple<at::Tensor, at::Tensor, at::Tensor> laplace_nll_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& mean, const at::Tensor& target,
    const at::Tensor& scale, std::array<bool, 3> mask);

// The convolutions: csrc/cpu/conv/.
at::Tensor upsample_conv3x3_forward(const at::Tensor& x, const at::Tensor& weight,
                                    const std::optional<at::Tensor>& bias,
                                    std::optional<std::string_view> activation,
                                    double negative_slope, std::string_view precision);
std::tuple<at::Tensor, at::Tensor, at::Tensor> upsample_conv3x3_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, std::optional<std::string_view> activation,
    double negative_slope, std::string_view precision, const at::Tensor& y,
    std::array<bool, 3> mask);

at::Tensor downsample_conv3x3_forward(const at::Tensor& x, const at::Tensor& weight,
                                      const std::optional<at::Tensor>& bias,
                                      std::string_view padding,
                                      std::optional<std::string_view> activation,
                                      double negative_slope, std::string_view precision);
std::tuple<at::Tensor, at::Tensor, at::Tensor> downsample_conv3x3_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, std::string_view padding,
    std::optional<std::string_view> activation, double negative_slope, std::string_view precision,
    const at::Tensor& y, std::array<bool, 3> mask);

at::Tensor downsample_conv4x4_forward(const at::Tensor& x, const at::Tensor& weight,
                                      const std::optional<at::Tensor>& bias,
                                      std::optional<std::string_view> activation,
                                      double negative_slope, std::string_view precision);
std::tuple<at::Tensor, at::Tensor, at::Tensor> downsample_conv4x4_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, std::optional<std::string_view> activation,
    double negative_slope, std::string_view precision, const at::Tensor& y,
    std::array<bool, 3> mask);

at::Tensor conv_transpose4x4_forward(const at::Tensor& x, const at::Tensor& weight,
                                     const std::optional<at::Tensor>& bias,
                                     std::optional<std::string_view> activation,
                                     double negative_slope, std::string_view precision);
std::tuple<at::Tensor, at::Tensor, at::Tensor> conv_transpose4x4_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, std::optional<std::string_view> activation,
    double negative_slope, std::string_view precision, const at::Tensor& y,
    std::array<bool, 3> mask);

at::Tensor conv3x3_forward(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& residual,
                           const std::optional<at::Tensor>& norm_weight,
                           const std::optional<at::Tensor>& norm_bias, int64_t norm_groups,
                           double norm_eps, std::optional<std::string_view> activation,
                           double negative_slope, std::string_view precision);
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> conv3x3_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& residual,
    const std::optional<at::Tensor>& norm_weight, const std::optional<at::Tensor>& norm_bias,
    int64_t norm_groups, double norm_eps, std::optional<std::string_view> activation,
    double negative_slope, std::string_view precision, const at::Tensor& y,
    std::array<bool, 6> mask);

}  // namespace vaekernels::cpu
