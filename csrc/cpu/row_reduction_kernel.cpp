// Row reductions: the sum over each row of a formula of common/formulas.h. Compiled once per
// capability; VK_CAPABILITY is its namespace.
#include <type_traits>

#include "cpu/work_partition.h"

namespace vaekernels::cpu {
namespace {

// Sets the first kFields inputs of element i, which vary along the row. The others are scalars that
// the caller has already set.
template <int kFields, int kInputs, class T>
VK_INLINE void gather_element(const T* const (&fields)[kInputs], int64_t i, T (&element)[kInputs]) {
  for (int k = 0; k < kFields; ++k) element[k] = fields[k][i];
}

// The two inner loops are separate functions, which helps the vectoriser. What is derived from
// scalars alone is computed once.
template <class F, class T, int kFields>
void values(const T* const (&fields)[F::kInputs], const T (&scalars)[F::kInputs], int64_t n,
            T* terms) {
  constexpr bool kDeriveOnce = kFields + F::kScalars == F::kInputs;
  const auto once = F::derive(scalars);
  VK_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    T element[F::kInputs];
    std::memcpy(element, scalars, sizeof element);
    gather_element<kFields>(fields, i, element);
    terms[i] = F::value(element, kDeriveOnce ? once : F::derive(element));
  }
}

template <class F, class T, int kFields>
void gradients(const T* const (&fields)[F::kInputs], const T (&scalars)[F::kInputs], T grad,
               int64_t n, T* const (&out)[F::kInputs]) {
  constexpr bool kDeriveOnce = kFields + F::kScalars == F::kInputs;
  const auto once = F::derive(scalars);
  VK_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    T element[F::kInputs], gradient[F::kInputs];
    std::memcpy(element, scalars, sizeof element);
    gather_element<kFields>(fields, i, element);
    F::gradient(element, kDeriveOnce ? once : F::derive(element), grad, gradient);
    for (int k = 0; k < F::kInputs; ++k) out[k][i] = gradient[k];
  }
}

template <class F, class T, int kFields>
void forward(const RowReductionForward& args, int64_t first, int64_t last) {
  constexpr int kInputs = F::kInputs;
  alignas(64) T scratch[kInputs][kChunk];
  alignas(64) T terms[kChunk];
  const T* fields[kInputs] = {};
  T scalars[kInputs] = {};
  for (int k = kFields; k < kInputs; ++k) scalars[k] = read_scalar<T>(args.inputs[k]);
  for_each_item(args.partition, first, last,
                [&](int64_t row, int64_t begin, int64_t end, int64_t item) {
    double sum = 0.0;
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      for (int k = 0; k < kFields; ++k) {
        fields[k] = read(args.inputs[k], row, chunk, n, scratch[k]);
      }
      values<F, T, kFields>(fields, scalars, n, terms);
      sum += sum_chunk(terms, n);
    });
    args.sums[item] = sum;
  });
}

template <class F, class T, int kFields>
void backward(const RowReductionBackward& args, int64_t first, int64_t last) {
  constexpr int kInputs = F::kInputs;
  alignas(64) T scratch[kInputs][kChunk];
  alignas(64) T out_scratch[kInputs][kChunk];
  const T* fields[kInputs] = {};
  T scalars[kInputs] = {};
  for (int k = kFields; k < kInputs; ++k) scalars[k] = read_scalar<T>(args.inputs[k]);
  for_each_item(args.partition, first, last,
                [&](int64_t row, int64_t begin, int64_t end, int64_t item) {
    double sums[kInputs] = {};
    T grad_scratch;
    const T grad = *read(args.grad, row, 0, 1, &grad_scratch);
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      T* out[kInputs];
      for (int k = 0; k < kFields; ++k) {
        fields[k] = read(args.inputs[k], row, chunk, n, scratch[k]);
      }
      for (int k = 0; k < kInputs; ++k) {
        out[k] = args.grads[k].present() ? target(args.grads[k], row, chunk, out_scratch[k])
                                         : out_scratch[k];
      }
      gradients<F, T, kFields>(fields, scalars, grad, n, out);
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

bool all_scalars(const RowView* inputs, int from, int to) {
  for (int k = from; k < to; ++k) {
    if (!inputs[k].is_scalar()) return false;
  }
  return true;
}

// Calls run(F{}, type, fields) for the formula F of the call: each formula is instantiated for
// float and double, with the last F::kScalars inputs either all scalars or all fields. A mix of the
// two runs as fields: a scalar is then read like any other field.
template <class Args, class Run>
void dispatch(const Args& args, const Run& run) {
  with_formula(Formulas{}, args.formula, [&](auto f) {
    using F = decltype(f);
    constexpr int kFewest = F::kInputs - F::kScalars;
    const auto with_fields = [&](auto fields) {
      args.in_float64 ? run(f, double{}, fields) : run(f, float{}, fields);
    };
    if (all_scalars(args.inputs, kFewest, F::kInputs)) {
      with_fields(std::integral_constant<int, kFewest>{});
    } else {
      with_fields(std::integral_constant<int, F::kInputs>{});
    }
  });
}

}  // namespace

namespace VK_CAPABILITY {

void row_reduction_forward(const RowReductionForward& args, int64_t first, int64_t last) {
  dispatch(args, [&](auto f, auto type, auto fields) {
    forward<decltype(f), decltype(type), fields.value>(args, first, last);
  });
}

void row_reduction_backward(const RowReductionBackward& args, int64_t first, int64_t last) {
  dispatch(args, [&](auto f, auto type, auto fields) {
    backward<decltype(f), decltype(type), fields.value>(args, first, last);
  });
}

}  // namespace VK_CAPABILITY
}  // namespace vaekernels::cpu
