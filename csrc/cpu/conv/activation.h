// The activation at the end of a convolution.
#pragma once

#include "cpu/conv/winograd.h"
#include "cpu/vector.h"

namespace vaekernels::cpu {
namespace {

// Applies the activation to one register of outputs.
struct ActivationEpilogue {
  Activation activation;
  Vec slope;

  VK_INLINE Vec operator()(Vec y) const {
    switch (activation) {
      case Activation::kNone: return y;
      case Activation::kRelu: return relu(y);
      case Activation::kLeakyRelu: return if_positive(y, y, y * slope);
      default: return silu(y);
    }
  }
};

}  // namespace
}  // namespace vaekernels::cpu
