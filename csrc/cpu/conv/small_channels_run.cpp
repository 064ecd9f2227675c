#include "cpu/conv/small_channels_run.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "cpu/conv/few_inputs.h"
#include "cpu/conv/few_outputs.h"
#include "cpu/conv/scratch.h"
#include "cpu/dynamic_for.h"

namespace vaekernels::cpu {
namespace {

// The number of output rows with about `pixels` pixels.
int64_t rows_of_pixels(const SmallChannelsConvolution& conv, int64_t pixels) {
  return std::clamp<int64_t>(pixels / conv.out_width, 1, conv.out_height);
}

}  // namespace

void few_outputs_convolve(SmallChannelsConvolution conv) {
  // The products of a strip should stay in the second-level cache, and its border rows, which
  // adjacent strips compute as well, should be few.
  constexpr int64_t kStripFloats = int64_t{1} << 16;
  const int64_t row = conv.in_width * round_up(conv.taps() * conv.out_channels, 16);
  const int64_t threads = at::get_num_threads();
  const int64_t fair = (conv.batch * conv.out_height / conv.stride + threads - 1) / threads;
  conv.strip_rows = std::clamp<int64_t>(std::min(kStripFloats / row, fair), 4, 64) * conv.stride;
  conv.b = scratch(Scratch::kFilters, VK_CPU_DISPATCH(few_outputs_filter_floats, conv));
  VK_CPU_DISPATCH(pack_few_outputs_filters, conv);
  dynamic_for(conv.batch * conv.strips(), [&](int64_t first, int64_t last) {
    float* products = scratch(Scratch::kBlock, VK_CPU_DISPATCH(few_outputs_product_floats, conv));
    VK_CPU_DISPATCH(few_outputs_convolution, conv, products, first, last);
  });
}

void few_inputs_convolve(SmallChannelsConvolution conv) {
  constexpr int64_t kStreamed = int64_t{16} << 20, kLine = 64;
  const int64_t pixel = conv.out_channels * static_cast<int64_t>(sizeof(float));
  conv.streaming = conv.batch * conv.out_height * conv.out_width * pixel >= kStreamed &&
                   pixel % kLine == 0 && reinterpret_cast<uintptr_t>(conv.y) % kLine == 0;
  conv.strip_rows = rows_of_pixels(conv, 1024);
  conv.b = scratch(Scratch::kFilters, VK_CPU_DISPATCH(few_inputs_filter_floats, conv));
  VK_CPU_DISPATCH(pack_few_inputs_filters, conv);
  dynamic_for(conv.batch * conv.strips(), [&](int64_t first, int64_t last) {
    float* strip = scratch(Scratch::kBlock, VK_CPU_DISPATCH(few_inputs_strip_floats, conv));
    VK_CPU_DISPATCH(few_inputs_convolution, conv, strip, first, last);
  });
}

void few_inputs_filter_gradient(SmallChannelsConvolution conv, const float* dy, float* dw) {
  // The strip's gradients of one panel of channels should stay in the first-level cache.
  conv.strip_rows = rows_of_pixels(conv, 256);
  FewInputsGradient args;
  args.conv = conv;
  args.dy = dy;
  args.dw = dw;
  // The number of parts, and with it the order of the sums, depends only on the shapes.
  constexpr int64_t kMostParts = 32;
  args.parts = std::min(conv.batch * conv.strips(), kMostParts);
  args.sums = scratch(Scratch::kSums, args.parts * VK_CPU_DISPATCH(few_inputs_sum_floats, conv));
  dynamic_for(args.parts, [&](int64_t first, int64_t last) {
    float* strip = scratch(Scratch::kBlock, VK_CPU_DISPATCH(few_inputs_strip_floats, conv));
    VK_CPU_DISPATCH(accumulate_few_inputs_gradient, args, strip, first, last);
  });
  VK_CPU_DISPATCH(finish_few_inputs_gradient, args);
}

}  // namespace vaekernels::cpu
