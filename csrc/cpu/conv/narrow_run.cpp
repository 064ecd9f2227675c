#include "cpu/conv/narrow_run.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "cpu/conv/scratch.h"

namespace vaekernels::cpu {

void convolve(NarrowConvolution conv) {
  // The products of a strip should stay in the second-level cache, and its border rows, which its
  // neighbours compute too, be few.
  constexpr int64_t kStripFloats = int64_t{1} << 16;
  const int64_t row = conv.in_width * round_up(conv.columns(), 16);
  conv.strip_rows = std::clamp<int64_t>(kStripFloats / row, 4, 64) * conv.stride;
  conv.b = scratch(Scratch::kFilters, VK_CPU_DISPATCH(narrow_filter_floats, conv));
  VK_CPU_DISPATCH(pack_narrow_filters, conv);
  at::parallel_for(0, conv.batch * conv.strips(), 1, [&](int64_t first, int64_t last) {
    float* products = scratch(Scratch::kBlock, VK_CPU_DISPATCH(narrow_product_floats, conv));
    VK_CPU_DISPATCH(narrow_convolution, conv, products, first, last);
  });
}

}  // namespace vaekernels::cpu
