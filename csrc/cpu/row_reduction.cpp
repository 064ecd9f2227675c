// The ops that sum a formula of common/formulas.h over each row: gaussian_kl, bernoulli_nll,
// gaussian_nll, laplace_nll.
#include "cpu/ops.h"
#include "cpu/tensors.h"

namespace vaekernels::cpu {
namespace {

template <size_t N>
using Inputs = std::array<at::Tensor, N>;

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

// The work of an op's inputs: each has the shape of the first, or is one number.
template <size_t N>
WorkPartition partition_of_inputs(const Op<N>& op, const Inputs<N>& inputs) {
  const WorkPartition partition = partition_of({op.name, op.inputs[0], inputs[0]});
  for (size_t k = 1; k < N; ++k) {
    const Argument argument{op.name, op.inputs[k], inputs[k]};
    check_floating(argument);
    if (inputs[k].dim() > 0) check_shape(argument, inputs[0].sizes());
  }
  return partition;
}

template <size_t N>
at::Tensor forward(const Op<N>& op, const Inputs<N>& inputs) {
  RowReductionForward args;
  args.formula = op.formula;
  args.partition = partition_of_inputs(op, inputs);
  const DimOrder order = memory_order(inputs[0]);
  for (size_t k = 0; k < N; ++k) args.inputs[k] = row_view_of(inputs[k], order);
  args.in_float64 = any_float64(inputs);
  std::vector<double> sums(args.partition.items());
  args.sums = sums.data();
  parallel_for_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(row_reduction_forward, args, first, last);
  });
  const auto type = args.in_float64 ? at::kDouble : at::kFloat;
  return sum_items(args.partition, sums.data(), inputs[0].options().dtype(type));
}

template <size_t N>
Inputs<N> backward(const Op<N>& op, const std::optional<at::Tensor>& grad, const Inputs<N>& inputs,
                   const std::array<bool, N>& mask) {
  RowReductionBackward args;
  args.formula = op.formula;
  args.partition = partition_of_inputs(op, inputs);
  const DimOrder order = memory_order(inputs[0]);
  for (size_t k = 0; k < N; ++k) args.inputs[k] = row_view_of(inputs[k], order);
  TORCH_CHECK_VALUE(grad.has_value(), op.name, ": grad must be a tensor; got None");
  check_floating({op.name, "grad", *grad});
  check_shape({op.name, "grad", *grad}, {args.partition.rows});
  args.grad = row_view_of(*grad);
  args.in_float64 = any_float64(inputs);

  Inputs<N> grads;
  std::vector<double> sums[N];
  for (size_t k = 0; k < N; ++k) {
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
  for (size_t k = 0; k < N; ++k) {
    if (!mask[k] || inputs[k].dim() != 0) continue;
    double sum = 0.0;
    for (double item : sums[k]) sum += item;
    grads[k] = at::full({}, sum, inputs[k].options());
  }
  return grads;
}

}  // namespace

at::Tensor gaussian_kl_forward(const at::Tensor& mean, const at::Tensor& logvar,
                               const at::Tensor& prior_mean, const at::Tensor& prior_logvar) {
  return forward<4>(kGaussianKl, {mean, logvar, prior_mean, prior_logvar});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gaussian_kl_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& mean, const at::Tensor& logvar,
    const at::Tensor& prior_mean, const at::Tensor& prior_logvar, std::array<bool, 4> mask) {
  return std::tuple_cat(
      backward<4>(kGaussianKl, grad, {mean, logvar, prior_mean, prior_logvar}, mask));
}

at::Tensor bernoulli_nll_forward(const at::Tensor& logits, const at::Tensor& target) {
  return forward<2>(kBernoulliNll, {logits, target});
}

std::tuple<at::Tensor, at::Tensor> bernoulli_nll_backward(const std::optional<at::Tensor>& grad,
                                                          const at::Tensor& logits,
                                                          const at::Tensor& target,
                                                          std::array<bool, 2> mask) {
  return std::tuple_cat(backward<2>(kBernoulliNll, grad, {logits, target}, mask));
}

at::Tensor gaussian_nll_forward(const at::Tensor& mean, const at::Tensor& target,
                                const at::Tensor& logvar) {
  return forward<3>(kGaussianNll, {mean, target, logvar});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> gaussian_nll_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& mean, const at::Tensor& target,
    const at::Tensor& logvar, std::array<bool, 3> mask) {
  return std::tuple_cat(backward<3>(kGaussianNll, grad, {mean, target, logvar}, mask));
}

at::Tensor laplace_nll_forward(const at::Tensor& mean, const at::Tensor& target,
                               const at::Tensor& scale) {
  return forward<3>(kLaplaceNll, {mean, target, scale});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> laplace_nll_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& mean, const at::Tensor& target,
    const at::Tensor& scale, std::array<bool, 3> mask) {
  return std::tuple_cat(backward<3>(kLaplaceNll, grad, {mean, target, scale}, mask));
}

}  // namespace vaekernels::cpu
