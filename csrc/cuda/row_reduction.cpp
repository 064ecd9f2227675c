// The row reductions, one op for each formula of common/formulas.h.
#include <torch/csrc/stable/library.h>

#include <array>
#include <string>
#include <tuple>
#include <utility>

#include "cuda/tensors.h"

namespace vaekernels::cuda {
namespace {

template <class F>
using Inputs = std::array<Tensor, F::kInputs>;

// Every input has the shape of the first, or is a scalar. Returns whether one is float64.
template <class F>
bool view_inputs(const Inputs<F>& tensors, const DimOrder& order, int32_t device,
                 RowView (&views)[kMaxInputs]) {
  bool in_float64 = false;
  for (int k = 0; k < F::kInputs; ++k) {
    require(tensors[k].dim() == 0 || same_shape(tensors[k], tensors[0]), F::kOp, F::kInputNames[k],
            ": expected shape ", shape_of(tensors[0]), " or one number; got ",
            shape_of(tensors[k]));
    views[k] = row_view_of(F::kOp, F::kInputNames[k], tensors[k], order, device);
    in_float64 = in_float64 || views[k].dtype == DType::kFloat64;
  }
  return in_float64;
}

template <class F>
Tensor forward(const Inputs<F>& inputs) {
  const DeviceScope scope(F::kOp, inputs[0]);
  RowReductionForward args;
  args.partition = partition_of(F::kOp, F::kInputNames[0], inputs[0]);
  const DimOrder order = memory_order(inputs[0]);
  const bool in_float64 = view_inputs<F>(inputs, order, scope.index(), args.inputs);
  const SumBuffers sums(inputs[0], sum_type(in_float64), {args.partition.rows},
                        args.partition.segments);
  args.sums = sums.view();
  const Access access = choose_access(in_float64, {args.inputs, args.inputs + F::kInputs});
  launch_row_reduction_forward(kFormulaIndex<F>, access, args, scope.stream());
  return sums.merged(scope.stream());
}

// Moves the gradient of a scalar to the scalar's device; copying to the host synchronises.
Tensor to_device_of(const Tensor& input, const Tensor& grad) {
  if (!input.is_cpu()) return grad;
  Tensor on_host = torch::stable::empty_like(input);
  return torch::stable::copy_(on_host, grad);
}

template <class F>
Inputs<F> backward(const std::optional<Tensor>& grad, const Inputs<F>& inputs,
                   const std::vector<bool>& mask) {
  require(grad.has_value(), F::kOp, "grad: expected a tensor; got None");
  require(mask.size() == size_t{F::kInputs}, F::kOp, "mask: expected ", F::kInputs,
          " booleans; got ", mask.size());
  const DeviceScope scope(F::kOp, inputs[0]);
  RowReductionBackward args;
  args.partition = partition_of(F::kOp, F::kInputNames[0], inputs[0]);
  const DimOrder order = memory_order(inputs[0]);
  const bool in_float64 = view_inputs<F>(inputs, order, scope.index(), args.inputs);
  args.grad = per_row_view(F::kOp, "grad", *grad, args.partition.rows, scope.index());

  Inputs<F> grads;
  std::array<std::optional<SumBuffers>, F::kInputs> sums;
  std::vector<RowView> vectors(args.inputs, args.inputs + F::kInputs);
  for (int k = 0; k < F::kInputs; ++k) {
    if (!mask[k]) {
      grads[k] = no_gradient(inputs[0]);
    } else if (inputs[k].dim() == 0) {
      sums[k].emplace(inputs[0], inputs[k].scalar_type(), std::vector<int64_t>{},
                      args.partition.items());
      args.scalar_grads[k] = sums[k]->view();
    } else {
      grads[k] = torch::stable::empty_like(inputs[k]);
      args.grads[k] = row_view_of(F::kOp, F::kInputNames[k], grads[k], order, scope.index());
      vectors.push_back(args.grads[k]);
    }
  }
  launch_row_reduction_backward(kFormulaIndex<F>, choose_access(in_float64, vectors), args,
                                scope.stream());
  for (int k = 0; k < F::kInputs; ++k) {
    if (sums[k].has_value()) grads[k] = to_device_of(inputs[k], sums[k]->merged(scope.stream()));
  }
  return grads;
}

// The signatures of the op: F::kInputs tensors.
template <class F, class = std::make_index_sequence<F::kInputs>>
struct Op;

template <class F, size_t... k>
struct Op<F, std::index_sequence<k...>> {
  template <size_t>
  using Same = Tensor;

  static Tensor forward(const Same<k>&... inputs) { return cuda::forward<F>({inputs...}); }

  static std::tuple<Same<k>...> backward(const std::optional<Tensor>& grad,
                                         const Same<k>&... inputs, std::vector<bool> mask) {
    return std::tuple_cat(cuda::backward<F>(grad, {inputs...}, mask));
  }
};

STABLE_TORCH_LIBRARY_IMPL(vaekernels, CUDA, m) {
  for_each_formula(Formulas{}, [&](auto f) {
    using F = decltype(f);
    m.impl(F::kOp, TORCH_BOX(&Op<F>::forward));
    m.impl((std::string(F::kOp) + "_backward").c_str(), TORCH_BOX(&Op<F>::backward));
  });
}

}  // namespace
}  // namespace vaekernels::cuda
