// One number per row: the sum over the row of a formula of common/formulas.h. The kernels of
// gaussian_kl, bernoulli_nll, gaussian_nll and laplace_nll.
#include "common/formulas.h"
#include "cuda/items.cuh"
#include "cuda/launch.cuh"

namespace vaekernels::cuda {
namespace {

// Equation:  sums[b] = sum_i F(inputs[0][b, i], inputs[1][b, i], ...)
// Grid:      a block per (row, segment of kSegment elements); a warp per row of at most kShortRow.
// Numerics:  F in float32 (float64 where an input is); at most 16 terms are added in that type by
//            a thread, everything above in float64; one rounding at the end.
// Saved:     nothing; backward reads the inputs again.
// Paper:     D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013 (appendices B, C).
template <class F, class Access>
__global__ void __launch_bounds__(kThreads)
    row_reduction_forward(const __grid_constant__ RowReductionForward args) {
  using T = typename Access::Compute;
  constexpr int kUnit = Access::kUnit;
  Item item;
  if (!find_item(args.partition, kSegment, item)) return;
  T sum = T(0);
  for_each_unit<kUnit>(item, [&](int64_t begin, int n) {
    T in[F::kInputs][kUnit];
#pragma unroll
    for (int k = 0; k < F::kInputs; ++k) Access::load(args.inputs[k], item.row, begin, n, in[k]);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i >= n) break;
      T element[F::kInputs];
#pragma unroll
      for (int k = 0; k < F::kInputs; ++k) element[k] = in[k][i];
      sum += F::value(element);
    }
  });
  store_sum(args.partition, item, static_cast<double>(sum), args.sums);
}

// Equation:  grads[k][b, i] = grad[b] * dF / d inputs[k][b, i]; for an input that is one number
//            the sum of these over b and i.
// Grid:      as forward.
// Numerics:  as forward.
// Saved:     nothing but the inputs of forward.
// Paper:     as forward.
template <class F, class Access>
__global__ void __launch_bounds__(kThreads)
    row_reduction_backward(const __grid_constant__ RowReductionBackward args) {
  using T = typename Access::Compute;
  constexpr int kUnit = Access::kUnit;
  Item item;
  if (!find_item(args.partition, kSegment, item)) return;
  const T grad = read_row<T>(args.grad, item.row);
  T sums[F::kInputs] = {};
  for_each_unit<kUnit>(item, [&](int64_t begin, int n) {
    T in[F::kInputs][kUnit], out[F::kInputs][kUnit];
#pragma unroll
    for (int k = 0; k < F::kInputs; ++k) Access::load(args.inputs[k], item.row, begin, n, in[k]);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i >= n) break;
      T element[F::kInputs], gradient[F::kInputs];
#pragma unroll
      for (int k = 0; k < F::kInputs; ++k) element[k] = in[k][i];
      F::gradient(element, grad, gradient);
#pragma unroll
      for (int k = 0; k < F::kInputs; ++k) {
        out[k][i] = gradient[k];
        sums[k] += gradient[k];
      }
    }
#pragma unroll
    for (int k = 0; k < F::kInputs; ++k) {
      if (args.grads[k].present()) Access::store(args.grads[k], item.row, begin, n, out[k]);
    }
  });
#pragma unroll
  for (int k = 0; k < F::kInputs; ++k) {
    if (!args.number_grads[k].present()) continue;
    store_sum(args.partition, item, static_cast<double>(sums[k]), args.number_grads[k]);
  }
}

template <class Run>
void with_formula(Formula formula, const Run& run) {
  switch (formula) {
    case Formula::kGaussianKl: return run(GaussianKl{});
    case Formula::kBernoulliNll: return run(BernoulliNll{});
    case Formula::kGaussianNll: return run(GaussianNll{});
    case Formula::kLaplaceNll: return run(LaplaceNll{});
  }
}

}  // namespace

void launch_row_reduction_forward(Formula formula, Access access, const RowReductionForward& args,
                                  Stream stream) {
  with_formula(formula, [&](auto f) {
    with_access(access, [&](auto a) {
      launch("row_reduction_forward", row_reduction_forward<decltype(f), decltype(a)>, args,
             stream);
    });
  });
}

void launch_row_reduction_backward(Formula formula, Access access,
                                   const RowReductionBackward& args, Stream stream) {
  with_formula(formula, [&](auto f) {
    with_access(access, [&](auto a) {
      launch("row_reduction_backward", row_reduction_backward<decltype(f), decltype(a)>, args,
             stream);
    });
  });
}

}  // namespace vaekernels::cuda
