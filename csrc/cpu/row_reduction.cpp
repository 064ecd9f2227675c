// The row reductions, one op for each formula of common/formulas.h.
#include <torch/library.h>

#include <utility>

#include "autograd.h"
#include "cpu/tensors.h"

namespace vaekernels::cpu {
namespace {

template <class F>
using Inputs = std::array<at::Tensor, F::kInputs>;

template <class F>
using Mask = std::array<bool, F::kInputs>;

// Checks the inputs, each of which has the shape of the first or is a scalar, and partitions the
// work.
template <class F>
WorkPartition partition_of_inputs(const Inputs<F>& inputs) {
  const WorkPartition partition = partition_of({F::kOp, F::kInputNames[0], inputs[0]});
  for (int k = 1; k < F::kInputs; ++k) {
    const Argument argument{F::kOp, F::kInputNames[k], inputs[k]};
    check_floating(argument);
    if (inputs[k].dim() > 0) check_shape(argument, inputs[0].sizes());
  }
  return partition;
}

template <class F>
at::Tensor forward(const Inputs<F>& inputs) {
  RowReductionForward args;
  args.formula = kFormulaIndex<F>;
  args.partition = partition_of_inputs<F>(inputs);
  const DimOrder order = memory_order(inputs[0]);
  for (int k = 0; k < F::kInputs; ++k) args.inputs[k] = row_view_of(inputs[k], order);
  args.in_float64 = any_float64(inputs);
  std::vector<double> sums(args.partition.items());
  args.sums = sums.data();
  parallel_for_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(row_reduction_forward, args, first, last);
  });
  const auto type = args.in_float64 ? at::kDouble : at::kFloat;
  return sum_items(args.partition, sums.data(), inputs[0].options().dtype(type));
}

template <class F>
Inputs<F> backward(const std::optional<at::Tensor>& grad, const Inputs<F>& inputs,
                   const Mask<F>& mask) {
  RowReductionBackward args;
  args.formula = kFormulaIndex<F>;
  args.partition = partition_of_inputs<F>(inputs);
  const DimOrder order = memory_order(inputs[0]);
  for (int k = 0; k < F::kInputs; ++k) args.inputs[k] = row_view_of(inputs[k], order);
  TORCH_CHECK_VALUE(grad.has_value(), F::kOp, ": grad must be a tensor; got None");
  check_floating({F::kOp, "grad", *grad});
  check_shape({F::kOp, "grad", *grad}, {args.partition.rows});
  args.grad = row_view_of(*grad);
  args.in_float64 = any_float64(inputs);

  Inputs<F> grads;
  std::vector<double> sums[F::kInputs];
  for (int k = 0; k < F::kInputs; ++k) {
    if (mask[k] && inputs[k].dim() == 0) {
      sums[k].resize(args.partition.items());
      args.scalar_sums[k] = sums[k].data();
    } else if (mask[k]) {
      grads[k] = at::empty_like(inputs[k]);
      args.grads[k] = row_view_of(grads[k], order);
    } else {
      grads[k] = at::empty({0}, inputs[0].options());
    }
  }
  parallel_for_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(row_reduction_backward, args, first, last);
  });
  for (int k = 0; k < F::kInputs; ++k) {
    if (!mask[k] || inputs[k].dim() != 0) continue;
    double sum = 0.0;
    for (double item : sums[k]) sum += item;
    grads[k] = at::full({}, sum, inputs[k].options());
  }
  return grads;
}

// The signatures of the op: F::kInputs tensors.
template <class F, class = std::make_index_sequence<F::kInputs>>
struct Op;

template <class F, size_t... k>
struct Op<F, std::index_sequence<k...>> {
  template <size_t>
  using Tensor = at::Tensor;

  static at::Tensor forward(const Tensor<k>&... inputs) { return cpu::forward<F>({inputs...}); }

  static std::tuple<Tensor<k>...> backward(const std::optional<at::Tensor>& grad,
                                           const Tensor<k>&... inputs, Mask<F> mask) {
    return std::tuple_cat(cpu::backward<F>(grad, {inputs...}, mask));
  }
};

TORCH_LIBRARY_IMPL(vaekernels, CPU, m) {
  for_each_formula(Formulas{}, [&](auto f) {
    using F = decltype(f);
    m.impl(F::kOp, &Op<F>::forward);
    m.impl((std::string(F::kOp) + "_backward").c_str(), &Op<F>::backward);
  });
}

TORCH_LIBRARY_IMPL(vaekernels, Autograd, m) {
  for_each_formula(Formulas{}, [&](auto f) { register_autograd(m, decltype(f)::kOp); });
}

}  // namespace
}  // namespace vaekernels::cpu
