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

  // z = mean + e^(logvar / 2) eps; returns twice the element's term of the KL.
  VK_INLINE T sample(T mean, T logvar, T eps, T& z) const {
    const T lv = clamped(logvar);
    const T std = exponential(T(0.5) * lv);
    z = fused(std, eps, mean);
    return mean * mean + (std * std - T(1) - lv);
  }

  VK_INLINE T grad_mean(T grad_z, T grad_kl, T mean) const { return fused(grad_kl, mean, grad_z); }

  // No gradient flows where logvar was clamped, nor, as in PyTorch, where it is NaN.
  VK_INLINE T grad_logvar(T grad_z, T grad_kl, T logvar, T eps) const {
    const T lv = clamped(logvar);
    const T std = exponential(T(0.5) * lv);
    const T from_z = grad_z * (eps * std);
    const T grad = T(0.5) * (from_z + grad_kl * (std * std - T(1)));
    return lv == logvar ? grad : T(0);
  }
};

}  // namespace vaekernels
