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
};

// Its gradients. An output without a gradient adds no term: its gradient is given as 0, which must
// not meet an infinity. All choices are between numbers, so that loops become vector code.
template <class T>
struct RsampleKlGradient {
  RsampleKl<T> formula;
  T most_of_z, most_of_kl;  // bounds of the deviation that the terms see: 1 where they are absent
  T outside;                // the gradient where logvar differs from itself clamped

  VK_INLINE RsampleKlGradient(double logvar_min, double logvar_max, bool has_z, bool has_kl)
      : formula{static_cast<T>(logvar_min), static_cast<T>(logvar_max)},
        most_of_z(has_z ? T(INFINITY) : T(1)),
        most_of_kl(has_kl ? T(INFINITY) : T(1)) {
    // No gradient flows where logvar was clamped, nor where a NaN met a bound, as in PyTorch;
    // without bounds only a NaN differs from itself.
    const bool unbounded = formula.logvar_min == -T(INFINITY) && formula.logvar_max == T(INFINITY);
    outside = unbounded ? T(NAN) : T(0);
  }

  // Where there is a gradient of the KL; else it is grad_z.
  VK_INLINE T mean(T grad_z, T grad_kl, T mean) const { return fused(grad_kl, mean, grad_z); }

  VK_INLINE T logvar(T grad_z, T grad_kl, T logvar, T eps) const {
    const T lv = formula.clamped(logvar);
    const T std = exponential(T(0.5) * lv);
    const T of_z = std > most_of_z ? most_of_z : std;
    const T of_kl = std > most_of_kl ? most_of_kl : std;
    // In this order 0 * eps * std is 0 for every finite std.
    const T grad = T(0.5) * (grad_z * eps * of_z + grad_kl * (of_kl * of_kl - T(1)));
    return lv == logvar ? grad : outside;
  }
};

}  // namespace vaekernels
