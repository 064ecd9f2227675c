// The row reductions: the sum over each row of a formula of common/formulas.h.
#include <type_traits>

#include "cuda/launch.cuh"
#include "cuda/work_partition.cuh"

namespace vaekernels::cuda {
namespace {

// The inputs of one element. The first kFields vary along the row; the others are scalars. Where
// these are the last F::kScalars inputs, F::derive runs only once.
template <class F, class T, int kFields>
struct Element {
  static constexpr bool kDeriveOnce = kFields + F::kScalars == F::kInputs;
  T in[F::kInputs] = {};
  typename F::template Derived<T> derived = {};

  __device__ __forceinline__ explicit Element(const RowView (&inputs)[kMaxInputs]) {
#pragma unroll
    for (int k = kFields; k < F::kInputs; ++k) in[k] = read_scalar<T>(inputs[k]);
    if constexpr (kDeriveOnce) derived = F::derive(in);
  }

  template <int kUnit>
  __device__ __forceinline__ void set(const T (&fields)[kFields][kUnit], int i) {
#pragma unroll
    for (int k = 0; k < kFields; ++k) in[k] = fields[k][i];
    if constexpr (!kDeriveOnce) derived = F::derive(in);
  }
};

// Equation:  sums[b] = sum_i F(inputs[0][b, i], inputs[1][b, i], ...)
// Grid:      a block per (row, segment of kSegment elements); a warp per row of at most kShortRow.
// Numerics:  F in float32 (float64 where an input is); at most 16 terms are added in that type by
//            a thread, everything above in float64; one rounding at the end.
// Saved:     nothing; backward reads the inputs again.
// Paper:     D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013 (appendices B, C).
template <class F, class Access, int kFields>
__global__ void __launch_bounds__(kThreads, Access::kBlocks)
    row_reduction_forward(const __grid_constant__ RowReductionForward args) {
  using T = typename Access::Compute;
  constexpr int kUnit = Access::kUnit;
  WorkItem item;
  if (!find_work_item(args.partition, kSegment, item)) return;
  Element<F, T, kFields> element(args.inputs);
  T sum = T(0);
  for_each_unit<kUnit>(item, [&](int64_t begin, int n) {
    T fields[kFields][kUnit];
#pragma unroll
    for (int k = 0; k < kFields; ++k) {
      Access::load(args.inputs[k], item.row, begin, n, fields[k]);
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i >= n) break;
      element.set(fields, i);
      sum += F::value(element.in, element.derived);
    }
  });
  store_sum(args.partition, item, static_cast<double>(sum), args.sums);
}

// Equation:  grads[k][b, i] = grad[b] * dF / d inputs[k][b, i]; for an input that is a scalar,
//            the sum of these over b and i.
// Grid:      as forward.
// Numerics:  as forward.
// Saved:     nothing but the inputs of forward.
// Paper:     as forward.
template <class F, class Access, int kFields>
__global__ void __launch_bounds__(kThreads, Access::kBlocks)
    row_reduction_backward(const __grid_constant__ RowReductionBackward args) {
  using T = typename Access::Compute;
  constexpr int kUnit = Access::kUnit;
  WorkItem item;
  if (!find_work_item(args.partition, kSegment, item)) return;
  const T grad = read_row<T>(args.grad, item.row);
  Element<F, T, kFields> element(args.inputs);
  T sums[F::kInputs] = {};
  for_each_unit<kUnit>(item, [&](int64_t begin, int n) {
    T fields[kFields][kUnit];
#pragma unroll
    for (int k = 0; k < kFields; ++k) {
      Access::load(args.inputs[k], item.row, begin, n, fields[k]);
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i >= n) break;
      T gradient[F::kInputs];
      element.set(fields, i);
      F::gradient(element.in, element.derived, grad, gradient);
#pragma unroll
      for (int k = 0; k < F::kInputs; ++k) sums[k] += gradient[k];
#pragma unroll
      for (int k = 0; k < kFields; ++k) fields[k][i] = gradient[k];
    }
#pragma unroll
    for (int k = 0; k < kFields; ++k) {
      if (args.grads[k].present()) Access::store(args.grads[k], item.row, begin, n, fields[k]);
    }
  });
#pragma unroll
  for (int k = 0; k < F::kInputs; ++k) {
    if (!args.scalar_grads[k].present()) continue;
    store_sum(args.partition, item, static_cast<double>(sums[k]), args.scalar_grads[k]);
  }
}

// Calls run(F{}, fields) for the formula F: all inputs are fields, or the last F::kScalars are
// scalars.
template <class Run>
void dispatch(int formula, const RowView (&inputs)[kMaxInputs], const Run& run) {
  with_formula(Formulas{}, formula, [&](auto f) {
    using F = decltype(f);
    bool scalars = F::kScalars > 0;
    for (int k = F::kInputs - F::kScalars; k < F::kInputs; ++k) {
      scalars = scalars && inputs[k].is_scalar();
    }
    if (scalars) return run(f, std::integral_constant<int, F::kInputs - F::kScalars>{});
    run(f, std::integral_constant<int, F::kInputs>{});
  });
}

}  // namespace

void launch_row_reduction_forward(int formula, Access access, const RowReductionForward& args,
                                  Stream stream) {
  dispatch(formula, args.inputs, [&](auto f, auto fields) {
    with_access<1>(access, [&](auto a) {
      launch("row_reduction_forward",
             row_reduction_forward<decltype(f), decltype(a), decltype(fields)::value>, args,
             stream);
    });
  });
}

void launch_row_reduction_backward(int formula, Access access, const RowReductionBackward& args,
                                   Stream stream) {
  dispatch(formula, args.inputs, [&](auto f, auto fields) {
    with_access<1>(access, [&](auto a) {
      launch("row_reduction_backward",
             row_reduction_backward<decltype(f), decltype(a), decltype(fields)::value>, args,
             stream);
    });
  });
}

}  // namespace vaekernels::cuda
