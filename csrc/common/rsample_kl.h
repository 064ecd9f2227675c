#pragma once

#include "common/math.h"

namespace vaekernels {

// One element of a reparameterised sample and its KL to the standard normal. T is float or double.
template <class T>
struct RsampleKl {
  T logvar_min, logvar_max;
  // Of backward: an output without a gradient adds no term, where one of 0 would add
  // 0 * infinity.
  bool has_grad_z = true, has_grad_kl = true;

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

  // grad_z is 0 where it is absent.
  VK_INLINE T grad_mean(T grad_z, T grad_kl, T mean) const {
    return has_grad_kl ? fused(grad_kl, mean, grad_z) : grad_z;
  }

  // No gradient flows where logvar was clamped, nor where a NaN met a bound, as in PyTorch.
  VK_INLINE T grad_logvar(T grad_z, T grad_kl, T logvar, T eps) const {
    const bool unbounded = logvar_min == -T(INFINITY) && logvar_max == T(INFINITY);
    const T lv = clamped(logvar);
    const T std = exponential(T(0.5) * lv);
    // In this order 0 * eps * std is 0 for every finite std.
    const T from_z = has_grad_z ? grad_z * eps * std : T(0);
    const T from_kl = has_grad_kl ? grad_kl * (std * std - T(1)) : T(0);
    return unbounded || lv == logvar ? T(0.5) * (from_z + from_kl) : T(0);
  }
};

}  // namespace vaekernels
