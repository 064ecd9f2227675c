// The ops that sum a formula of common/formulas.h over each row: gaussian_kl, bernoulli_nll,
// gaussian_nll, laplace_nll.
#include <array>

#include "cuda/ops.h"
#include "cuda/tensors.h"

namespace vaekernels::cuda {
namespace {

template <size_t N>
using Inputs = std::array<Tensor, N>;

template <size_t N>
struct Op {
  const char* name;
  Formula formula;
  std::array<const char*, N> inputs;
};

constexpr Op<4> kGaussianKl{
    "gaussian_kl", Formula::kGaussianKl, {"mean", "logvar", "prior_mean", "prior_logvar"}};
constexpr Op<2> kBernoulliNll{"bernoulli_nll", Formula::kBernoulliNll, {"logits", "target"}};
constexpr Op<3> kGaussianNll{"gaussian_nll", Formula::kGaussianNll, {"mean", "target", "logvar"}};
constexpr Op<3> kLaplaceNll{"laplace_nll", Formula::kLaplaceNll, {"mean", "target", "scale"}};

// Every input has the shape of the first, or is one number. Returns whether one is float64.
template <size_t N>
bool view_inputs(const Op<N>& op, const Inputs<N>& tensors, const DimOrder& order, int32_t device,
                 RowView (&views)[kMaxInputs]) {
  bool in_float64 = false;
  const std::string shape = shape_of(tensors[0]);
  for (size_t k = 0; k < N; ++k) {
    require(tensors[k].dim() == 0 || shape_of(tensors[k]) == shape, op.name, op.inputs[k],
            ": expected shape ", shape, " or one number; got ", shape_of(tensors[k]));
    views[k] = row_view_of(op.name, op.inputs[k], tensors[k], order, device);
    in_float64 = in_float64 || views[k].dtype == DType::kFloat64;
  }
  return in_float64;
}

template <size_t N>
Tensor forward(const Op<N>& op, const Inputs<N>& inputs) {
  const DeviceScope scope(op.name, inputs[0]);
  RowReductionForward args;
  args.partition = partition_of(op.name, op.inputs[0], inputs[0]);
  const DimOrder order = memory_order(inputs[0]);
  const bool in_float64 = view_inputs(op, inputs, order, scope.index(), args.inputs);
  const SumBuffers sums(inputs[0], sum_type(in_float64), {args.partition.rows},
                        args.partition.segments);
  args.sums = sums.view();
  const Access access = choose_access(in_float64, {args.inputs, args.inputs + N});
  launch_row_reduction_forward(op.formula, access, args, scope.stream());
  return sums.merged(scope.stream());
}

// Moves the gradient of a scalar to the scalar's device; copying to the host synchronises.
Tensor to_device_of(const Tensor& input, const Tensor& grad) {
  if (!input.is_cpu()) return grad;
  Tensor on_host = torch::stable::empty_like(input);
  return torch::stable::copy_(on_host, grad);
}

template <size_t N>
Inputs<N> backward(const Op<N>& op, const std::optional<Tensor>& grad, const Inputs<N>& inputs,
                   const std::vector<bool>& mask) {
  require(grad.has_value(), op.name, "grad: expected a tensor; got None");
  require(mask.size() == N, op.name, "mask: expected ", N, " booleans; got ", mask.size());
  const DeviceScope scope(op.name, inputs[0]);
  RowReductionBackward args;
  args.partition = partition_of(op.name, op.inputs[0], inputs[0]);
  const DimOrder order = memory_order(inputs[0]);
  const bool in_float64 = view_inputs(op, inputs, order, scope.index(), args.inputs);
  args.grad = per_row_view(op.name, "grad", *grad, args.partition.rows, scope.index());

  Inputs<N> grads;
  std::array<std::optional<SumBuffers>, N> sums;
  std::vector<RowView> vectors(args.inputs, args.inputs + N);
  for (size_t k = 0; k < N; ++k) {
    if (!mask[k]) {
      grads[k] = no_gradient(inputs[0]);
    } else if (inputs[k].dim() == 0) {
      sums[k].emplace(inputs[0], inputs[k].scalar_type(), std::vector<int64_t>{},
                      args.partition.items());
      args.scalar_grads[k] = sums[k]->view();
    } else {
      grads[k] = torch::stable::empty_like(inputs[k]);
      args.grads[k] = row_view_of(op.name, op.inputs[k], grads[k], order, scope.index());
      vectors.push_back(args.grads[k]);
    }
  }
  launch_row_reduction_backward(op.formula, choose_access(in_float64, vectors), args,
                                scope.stream());
  for (size_t k = 0; k < N; ++k) {
    if (sums[k].has_value()) grads[k] = to_device_of(inputs[k], sums[k]->merged(scope.stream()));
  }
  return grads;
}

}  // namespace

Tensor gaussian_kl_forward(const Tensor& mean, const Tensor& logvar, const Tensor& prior_mean,
                           const Tensor& prior_logvar) {
  return forward<4>(kGaussianKl, {mean, logvar, prior_mean, prior_logvar});
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_kl_backward(
    const std::optional<Tensor>& grad, const Tensor& mean, const Tensor& logvar,
    const Tensor& prior_mean, const Tensor& prior_logvar, std::vector<bool> mask) {
  return std::tuple_cat(
      backward<4>(kGaussianKl, grad, {mean, logvar, prior_mean, prior_logvar}, mask));
}

Tensor bernoulli_nll_forward(const Tensor& logits, const Tensor& target) {
  return forward<2>(kBernoulliNll, {logits, target});
}

std::tuple<Tensor, Tensor> bernoulli_nll_backward(const std::optional<Tensor>& grad,
                                                  const Tensor& logits, const Tensor& target,
                                                  std::vector<bool> mask) {
  return std::tuple_cat(backward<2>(kBernoulliNll, grad, {logits, target}, mask));
}

Tensor gaussian_nll_forward(const Tensor& mean, const Tensor& target, const Tensor& logvar) {
  return forward<3>(kGaussianNll, {mean, target, logvar});
}

std::tuple<Tensor, Tensor, Tensor> gaussian_nll_backward(const std::optional<Tensor>& grad,
                                                         const Tensor& mean, const Tensor& target,
                                                         const Tensor& logvar,
                                                         std::vector<bool> mask) {
  return std::tuple_cat(backward<3>(kGaussianNll, grad, {mean, target, logvar}, mask));
}

Tensor laplace_nll_forward(const Tensor& mean, const Tensor& target, const Tensor& scale) {
  return forward<3>(kLaplaceNll, {mean, target, scale});
}

std::tuple<Tensor, Tensor, Tensor> laplace_nll_backward(const std::optional<Tensor>& grad,
                                                        const Tensor& mean, const Tensor& target,
                                                        const Tensor& scale,
                                                        std::vector<bool> mask) {
  return std::tuple_cat(backward<3>(kLaplaceNll, grad, {mean, target, scale}, mask));
}

}  // namespace vaekernels::cuda
