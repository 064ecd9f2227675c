// One number per row: sum over the row of a formula of common/formulas.h. Compiled once per
// capability; VK_CAPABILITY is its namespace.
#include "common/formulas.h"
#include "cpu/items.h"

namespace vaekernels::cpu {
namespace {

template <class F, class T>
void forward(const RowReductionForward& args, int64_t first, int64_t last) {
  constexpr int kInputs = F::kInputs;
  alignas(64) T scratch[kInputs][kChunk];
  alignas(64) T terms[kChunk];
  for_each_item(args.partition, first, last,
                [&](int64_t row, int64_t begin, int64_t end, int64_t item) {
    double sum = 0.0;
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      const T* in[kInputs];
      for (int k = 0; k < kInputs; ++k) in[k] = read(args.inputs[k], row, chunk, n, scratch[k]);
      for (int64_t i = 0; i < n; ++i) {
        T element[kInputs];
        for (int k = 0; k < kInputs; ++k) element[k] = in[k][i];
        terms[i] = F::value(element);
      }
      sum += sum_chunk(terms, n);
    });
    args.sums[item] = sum;
  });
}

template <class F, class T>
void backward(const RowReductionBackward& args, int64_t first, int64_t last) {
  constexpr int kInputs = F::kInputs;
  alignas(64) T scratch[kInputs][kChunk];
  alignas(64) T out_scratch[kInputs][kChunk];
  for_each_item(args.partition, first, last,
                [&](int64_t row, int64_t begin, int64_t end, int64_t item) {
    double sums[kInputs] = {};
    T grad_scratch;
    const T grad = *read(args.grad, row, 0, 1, &grad_scratch);
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      const T* in[kInputs];
      T* out[kInputs];
      for (int k = 0; k < kInputs; ++k) {
        in[k] = read(args.inputs[k], row, chunk, n, scratch[k]);
        out[k] = args.grads[k].present() ? target(args.grads[k], row, chunk, out_scratch[k])
                                         : out_scratch[k];
      }
      for (int64_t i = 0; i < n; ++i) {
        T element[kInputs], gradient[kInputs];
        for (int k = 0; k < kInputs; ++k) element[k] = in[k][i];
        F::gradient(element, grad, gradient);
        for (int k = 0; k < kInputs; ++k) out[k][i] = gradient[k];
      }
      for (int k = 0; k < kInputs; ++k) {
        if (args.grads[k].present()) write(args.grads[k], row, chunk, n, out[k]);
        if (args.scalar_sums[k] != nullptr) sums[k] += sum_chunk(out[k], n);
      }
    });
    for (int k = 0; k < kInputs; ++k) {
      if (args.scalar_sums[k] != nullptr) args.scalar_sums[k][item] = sums[k];
    }
  });
}

// Calls run<F, T>() for the formula and the type that the arguments ask for.
#define VK_FOR_FORMULA(run)                                                                   \
  switch (args.formula) {                                                                     \
    case Formula::kGaussianKl:                                                                \
      return args.in_float64 ? run<GaussianKl, double>(args, first, last)                     \
                             : run<GaussianKl, float>(args, first, last);                     \
    case Formula::kBernoulliNll:                                                              \
      return args.in_float64 ? run<BernoulliNll, double>(args, first, last)                   \
                             : run<BernoulliNll, float>(args, first, last);                   \
    case Formula::kGaussianNll:                                                               \
      return args.in_float64 ? run<GaussianNll, double>(args, first, last)                    \
                             : run<GaussianNll, float>(args, first, last);                    \
    case Formula::kLaplaceNll:                                                                \
      return args.in_float64 ? run<LaplaceNll, double>(args, first, last)                     \
                             : run<LaplaceNll, float>(args, first, last);                     \
  }

}  // namespace

namespace VK_CAPABILITY {

void row_reduction_forward(const RowReductionForward& args, int64_t first, int64_t last) {
  VK_FOR_FORMULA(forward)
}

void row_reduction_backward(const RowReductionBackward& args, int64_t first, int64_t last) {
  VK_FOR_FORMULA(backward)
}

}  // namespace VK_CAPABILITY
}  // namespace vaekernels::cpu
