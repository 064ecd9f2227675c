#pragma once

#include "common/math.h"

namespace vaekernels {

// One element of a reparameterised sample and its KL to the standard normal. T is float or double.
template <class T>
struct RsampleKl {
  T logvar_min, logvar_max;

  VK_INLINE T clamped(T logvar) const {
    logvar = logvar < logvar_min ? logvar_min : logvar;  // comparisons in this form keep NaN
    return logvar > logvar_max ? logvar_max : logvar;
  }

  // Sets z = mean + e^(logvar / 2) eps; returns twice the element's term of the KL.
  VK_INLINE T sample(T mean, T logvar, T eps, T& z) const {
    const T lv = clamped(logvar);
    const T std = exponential(T(0.5) * lv);
    z = fused(std, eps, mean);
    return mean * mean + (std * std - T(1) - lv);
  }
};

// Gradients of RsampleKl. The gradient of an output that has none is passed as 0; since 0 * inf is
// NaN, the factors of its terms are bounded. Branch-free, so that loops vectorise.
template <class T>
struct RsampleKlGradient {
  RsampleKl<T> formula;
  T max_std_z, max_std_kl;  // bounds of std in the terms of z and kl; 1 without a gradient
  T clamped_gradient;       // the gradient where clamped(logvar) != logvar

  VK_INLINE RsampleKlGradient(double logvar_min, double logvar_max, bool has_z, bool has_kl)
      : formula{static_cast<T>(logvar_min), static_cast<T>(logvar_max)},
        max_std_z(has_z ? T(INFINITY) : T(1)),
        max_std_kl(has_kl ? T(INFINITY) : T(1)) {
    // As in PyTorch, no gradient flows where logvar was clamped, nor from NaN if there are bounds.
    // Without bounds only NaN differs from its clamped value, and its gradient is NaN.
    const bool unbounded = formula.logvar_min == -T(INFINITY) && formula.logvar_max == T(INFINITY);
    clamped_gradient = unbounded ? T(NAN) : T(0);
  }

  // Used where the KL has a gradient; otherwise the result is grad_z.
  VK_INLINE T mean(T grad_z, T grad_kl, T mean) const { return fused(grad_kl, mean, grad_z); }

  VK_INLINE T logvar(T grad_z, T grad_kl, T logvar, T eps) const {
    const T lv = formula.clamped(logvar);
    const T std = exponential(T(0.5) * lv);
    const T std_z = std > max_std_z ? max_std_z : std;
    const T std_kl = std > max_std_kl ? max_std_kl : std;
    // In this order 0 * eps * std is 0 for every finite std.
    const T grad = T(0.5) * (grad_z * eps * std_z + grad_kl * (std_kl * std_kl - T(1)));
    return lv == logvar ? grad : clamped_gradient;
  }
};

}  // namespace vaekernels
