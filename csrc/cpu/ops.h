// The CPU implementations of the torch ops; the schemas are in vaekernels/ops/.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
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

}  // namespace vaekernels::cpu
