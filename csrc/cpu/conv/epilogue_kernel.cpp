// Backward of a convolution's epilogue: the activation, and the sums of the bias gradient.
#include "cpu/conv/epilogue.h"
#include "cpu/vector.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

constexpr int64_t kWidth = 4096;  // channels, or pixels * channels, that are summed side by side

// g = dy * activation'(y), from the sign of y; sums += g. For NaN in y and non-finite dy, g is as
// in PyTorch.
template <bool kLeaky>
void mask_and_sum(const float* dy, const float* y, float slope, int64_t n, float* g, float* sums) {
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) {
    const float value =
        kLeaky ? (y[c] > 0.0f ? dy[c] : dy[c] * slope) : (y[c] <= 0.0f ? 0.0f : dy[c]);
    g[c] = value;
    sums[c] += value;
  }
}

void sum(const float* dy, int64_t n, float* sums) {
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) sums[c] += dy[c];
}

}  // namespace

void epilogue_backward(const EpilogueBackward& args, int64_t first, int64_t last) {
  alignas(64) float partial[kWidth];
  const int64_t channels = args.channels;
  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t begin = chunk * kEpilogueRows;
    const int64_t end = begin + kEpilogueRows < args.rows ? begin + kEpilogueRows : args.rows;
    double* sums = args.sums + chunk * channels;
    for (int64_t c0 = 0; c0 < channels; c0 += kWidth) {
      const int64_t part = channels - c0 < kWidth ? channels - c0 : kWidth;
      // Few channels: several pixels side by side fill the vectors.
      const int64_t together = part == channels && channels < 64 ? 64 / channels : 1;
      const int64_t width = part * together;
      for (int64_t k = 0; k < width; ++k) partial[k] = 0.0f;
      for (int64_t row = begin; row < end; row += together) {
        const int64_t n = end - row < together ? (end - row) * part : width;
        const int64_t at = row * channels + c0;
        if (args.y != nullptr) {
          auto* run = args.leaky ? mask_and_sum<true> : mask_and_sum<false>;
          run(args.dy + at, args.y + at, args.negative_slope, n, args.g + at, partial);
        } else {
          sum(args.dy + at, n, partial);
        }
      }
      for (int64_t c = 0; c < part; ++c) {
        double total = 0.0;
        for (int64_t k = c; k < width; k += part) total += partial[k];
        sums[c0 + c] = total;
      }
    }
  }
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
