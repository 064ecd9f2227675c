#pragma once

#include "common/math.h"

namespace vaekernels {

// -log p(target) for Bernoulli variables given by logits: t log(1 + e^-x) + (1 - t) log(1 + e^x).
// log(1 + e^-|x|) is split off both terms; the remainders cannot cancel.
struct BernoulliNll {
  static constexpr const char* kOp = "bernoulli_nll";
  static constexpr int kInputs = 2;
  static constexpr const char* kInputNames[kInputs] = {"logits", "target"};
  static constexpr int kScalars = 0;

  template <class T>
  struct Derived {};

  template <class T>
  VK_INLINE static Derived<T> derive(const T (&)[kInputs]) {
    return {};
  }

  template <class T>
  VK_INLINE static T value(const T (&in)[kInputs], const Derived<T>&) {
    const T x = in[0], t = in[1];
    const T slope = x > T(0) ? T(1) - t : -t;
    return x * slope + log1p_unit(exponential(-absolute(x)));
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[kInputs], const Derived<T>&, T g,
                                 T (&out)[kInputs]) {
    const T e = exponential(-absolute(in[0]));
    const T sigmoid = (in[0] < T(0) ? e : T(1)) / (T(1) + e);
    out[0] = g * (sigmoid - in[1]);
    out[1] = -g * in[0];
  }
};

}  // namespace vaekernels
