// x sigmoid(x) and its derivative.
#pragma once

#include "common/math.h"

namespace vaekernels {

template <class T>
VK_INLINE T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

template <class T>
VK_INLINE T silu(T x) {
  return x / (T(1) + exponential(-x));
}

template <class T>
VK_INLINE T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s * fused(x, T(1) - s, T(1));
}

}  // namespace vaekernels
