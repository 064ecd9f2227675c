// Backward of bias, residual and activation: y = activation(conv + bias + residual).
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace vaekernels::cpu {

// Rows (pixels) of a chunk; their sum is one partial sum of each channel.
constexpr int64_t kEpilogueRows = 256;

struct EpilogueBackward {
  int64_t rows = 0, channels = 0;
  const float* dy = nullptr;  // (rows, channels)
  const float* y = nullptr;   // null: no activation, g is dy
  bool leaky = false;         // the activation is leaky ReLU, else ReLU
  float negative_slope = 0;   // of leaky ReLU
  float* g = nullptr;         // the gradient before the activation
  double* sums = nullptr;     // (chunks, channels): of g
};

// Units: chunks.
VK_CPU_DECLARE(void epilogue_backward(const EpilogueBackward&, int64_t first, int64_t last))

}  // namespace vaekernels::cpu
