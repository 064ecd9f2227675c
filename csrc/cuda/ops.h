// The CUDA implementations of the torch ops; the schemas are in vaekernels/ops/.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace vaekernels::cuda {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor> rsample_kl_forward(const Tensor& mean, const Tensor& logvar,
                                              const Tensor& seed, int64_t step,
                                              const std::optional<Tensor>& sample_ids,
                                              double logvar_min, double logvar_max);
std::tuple<Tensor, Tensor> rsample_kl_backward(
    const std::optional<Tensor>& grad_z, const std::optional<Tensor>& grad_kl, const Tensor& mean,
    const Tensor& logvar, const Tensor& seed, int64_t step, const std::optional<Tensor>& sample_ids,
    double logvar_min, double logvar_max, std::vector<bool> mask);

Tensor randn_forward(const Tensor& like, const Tensor& seed, int64_t step,
                     const std::optional<Tensor>& sample_ids);

Tensor gaussian_kl_forward(const Tensor& mean, const Tensor& logvar, const Tensor& prior_mean,
                           const Tensor& prior_logvar);
std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_kl_backward(
    const std::optional<Tensor>& grad, const Tensor& mean, const Tensor& logvar,
    const Tensor& prior_mean, const Tensor& prior_logvar, std::vector<bool> mask);

Tensor bernoulli_nll_forward(const Tensor& logits, const Tensor& target);
std::tuple<Tensor, Tensor> bernoulli_nll_backward(const std::optional<Tensor>& grad,
                                                  const Tensor& logits, const Tensor& target,
                                                  std::vector<bool> mask);

Tensor gaussian_nll_forward(const Tensor& mean, const Tensor& target, const Tensor& logvar);
std::tuple<Tensor, Tensor, Tensor> gaussian_nll_backward(const std::optional<Tensor>& grad,
                                                         const Tensor& mean, const Tensor& target,
                                                         const Tensor& logvar,
                                                         std::vector<bool> mask);

Tensor laplace_nll_forward(const Tensor& mean, const Tensor& target, const Tensor& scale);
std::tuple<Tensor, Tensor, Tensor> laplace_nll_backward(const std::optional<Tensor>& grad,
                                                        const Tensor& mean, const Tensor& target,
                                                        const Tensor& scale,
                                                        std::vector<bool> mask);

}  // namespace vaekernels::cuda
