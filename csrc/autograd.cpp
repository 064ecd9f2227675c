#include "autograd.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string_view>
#include <type_traits>
#include <vector>

namespace vaekernels {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::Variable;
using torch::autograd::variable_list;
using torch::jit::Stack;

// Nodes are counted by std::shared_ptr in older versions of torch, by c10::intrusive_ptr in newer.
using NodePtr = decltype(torch::autograd::Edge::function);

template <class T>
auto make_node() {
  if constexpr (std::is_same_v<NodePtr, std::shared_ptr<torch::autograd::Node>>) {
    return std::make_shared<T>();
  } else {
    return c10::make_intrusive<T>();
  }
}

// Takes an additional strong reference to the node.
template <class T, class Pointer = NodePtr>  // dependent: the discarded branch does not compile
Pointer strong_reference(T* node) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    return node->shared_from_this();
  } else {
    return Pointer::unsafe_reclaim_from_nonowning(node);
  }
}

Stack without_autograd(const c10::OperatorHandle& op, Stack stack) {
  at::AutoDispatchBelowADInplaceOrView guard;
  op.callBoxed(stack);
  return stack;
}

bool has_tangent(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() &&
         value.toTensor()._fw_grad(/*level=*/0).defined();
}

// Pops the op's arguments. Forward-mode AD is unsupported: raise instead of silently dropping
// tangents.
Stack take_arguments(const c10::OperatorHandle& op, Stack* stack) {
  const auto first = stack->end() - static_cast<ptrdiff_t>(op.schema().arguments().size());
  Stack arguments(std::make_move_iterator(first), std::make_move_iterator(stack->end()));
  stack->erase(first, stack->end());
  TORCH_CHECK_NOT_IMPLEMENTED(
      std::none_of(arguments.begin(), arguments.end(), has_tangent), op.schema().name(),
      ": forward-mode derivatives are not implemented by the fused backends; "
      "use backend=\"reference\"");
  return arguments;
}

bool requires_grad(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() && value.toTensor().requires_grad();
}

size_t position_of(const std::vector<c10::Argument>& arguments, const std::string& name) {
  const auto found = std::find_if(arguments.begin(), arguments.end(),
                                  [&](const c10::Argument& a) { return a.name() == name; });
  TORCH_INTERNAL_ASSERT(found != arguments.end(), "no argument or output is named ", name);
  return found - arguments.begin();
}

// What the autograd kernel of an op reads from the schemas, at the first call.
struct OpInfo {
  std::string name;
  size_t gradients = 0;                       // outputs that carry one
  std::vector<size_t> positions = {};         // of the differentiable inputs
  std::vector<size_t> output_positions = {};  // of the saved outputs
  std::optional<c10::OperatorHandle> backward = {};

  void resolve(const c10::OperatorHandle& op) {
    backward = c10::Dispatcher::singleton().findSchemaOrThrow(
        ("vaekernels::" + name + "_backward").c_str(), "");
    const auto& inputs = op.schema().arguments();
    const auto& arguments = backward->schema().arguments();
    gradients = position_of(arguments, inputs[0].name());
    for (size_t k = gradients + inputs.size(); k + 1 < arguments.size(); ++k) {
      output_positions.push_back(position_of(op.schema().returns(), arguments[k].name()));
    }
    constexpr size_t kPrefix = std::string_view("grad_").size();
    for (const c10::Argument& gradient : backward->schema().returns()) {
      positions.push_back(position_of(inputs, gradient.name().substr(kPrefix)));
    }
  }
};

// The node of X in the graph: its edges are X's differentiable inputs, in order.
struct OpBackward : torch::autograd::Node {
  const OpInfo* info = nullptr;
  Stack inputs;  // tensors are in saved instead, so that in-place changes are noticed
  std::vector<SavedVariable> saved;
  std::vector<SavedVariable> saved_outputs;

  std::string name() const override { return info->name + "_backward"; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& variable : saved) variable.reset_data();
    for (SavedVariable& variable : saved_outputs) variable.reset_data();
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    variable_list result(info->positions.size());
    if (std::none_of(grads.begin(), grads.end(), [](const Variable& g) { return g.defined(); })) {
      return result;
    }
    Stack stack;
    stack.reserve(grads.size() + inputs.size() + saved_outputs.size() + 1);
    for (Variable& grad : grads) {
      stack.push_back(grad.defined() ? c10::IValue(std::move(grad)) : c10::IValue());
    }
    auto variable = saved.begin();
    for (const c10::IValue& input : inputs) {
      stack.push_back(input.isTensor() ? c10::IValue((variable++)->unpack()) : input);
    }
    for (const SavedVariable& output : saved_outputs) {
      stack.emplace_back(output.unpack(strong_reference(this)));
    }
    c10::List<bool> mask;
    for (size_t k = 0; k < result.size(); ++k) mask.push_back(task_should_compute_output(k));
    stack.emplace_back(mask);
    info->backward->callBoxed(stack);
    for (size_t k = 0; k < result.size(); ++k) {
      if (mask[k]) result[k] = std::move(stack[k]).toTensor();
    }
    return result;
  }
};

using RecordedNode = decltype(make_node<OpBackward>());

class AutogradKernel final : public c10::OperatorKernel {
 public:
  explicit AutogradKernel(std::string name) : info_{std::move(name)} {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
    std::call_once(resolved_, [&] { info_.resolve(op); });
    Stack inputs = take_arguments(op, stack);
    const bool differentiates =
        at::GradMode::is_enabled() &&
        std::any_of(info_.positions.begin(), info_.positions.end(),
                    [&](size_t position) { return requires_grad(inputs[position]); });
    if (!differentiates) {
      for (c10::IValue& output : without_autograd(op, std::move(inputs))) {
        stack->push_back(std::move(output));
      }
      return;
    }
    Stack outputs = without_autograd(op, inputs);
    const RecordedNode node = record(std::move(inputs));
    for (size_t k = 0; k < info_.gradients; ++k) {
      Variable variable = outputs[k].toTensor();
      torch::autograd::set_history(variable, node);
    }
    for (size_t position : info_.output_positions) {
      node->saved_outputs.emplace_back(outputs[position].toTensor(),
                                       /*is_output=*/position < info_.gradients);
    }
    for (c10::IValue& output : outputs) stack->push_back(std::move(output));
  }

 private:
  RecordedNode record(Stack inputs) const {
    auto node = make_node<OpBackward>();
    node->info = &info_;
    torch::autograd::edge_list edges;
    for (size_t position : info_.positions) {  // an optional input that is absent has no edge
      edges.push_back(inputs[position].isTensor()
                          ? torch::autograd::impl::gradient_edge(inputs[position].toTensor())
                          : torch::autograd::Edge());
    }
    node->set_next_edges(std::move(edges));
    static const c10::IValue placeholder{at::Tensor()};
    for (c10::IValue& input : inputs) {
      if (!input.isTensor()) continue;
      node->saved.emplace_back(input.toTensor(), /*is_output=*/false);
      input = placeholder;
    }
    node->inputs = std::move(inputs);
    return node;
  }

  OpInfo info_;
  std::once_flag resolved_;
};

// Raises when the result of X_backward is differentiated.
struct DoubleBackwardNode : torch::autograd::Node {
  std::string op;

  std::string name() const override { return op + "_backward_backward"; }

  variable_list apply(variable_list&&) override {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false, op,
        ": double backward is not implemented by the fused backends; use backend=\"reference\"");
  }
};

class DoubleBackwardKernel final : public c10::OperatorKernel {
 public:
  explicit DoubleBackwardKernel(std::string name) : name_(std::move(name)) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
    Stack inputs = take_arguments(op, stack);
    torch::autograd::edge_list edges;
    if (at::GradMode::is_enabled()) {
      for (const c10::IValue& input : inputs) {
        if (!requires_grad(input)) continue;
        edges.push_back(torch::autograd::impl::gradient_edge(input.toTensor()));
      }
    }
    Stack outputs = without_autograd(op, std::move(inputs));
    NodePtr node;
    if (!edges.empty()) {
      auto double_backward = make_node<DoubleBackwardNode>();
      double_backward->op = name_;
      double_backward->set_next_edges(std::move(edges));
      node = std::move(double_backward);
    }
    for (c10::IValue& output : outputs) {
      Variable variable = std::move(output).toTensor();
      if (node != nullptr) torch::autograd::set_history(variable, node);
      stack->emplace_back(std::move(variable));
    }
  }

 private:
  std::string name_;
};

}  // namespace

void register_autograd(torch::Library& library, const std::string& op) {
  using torch::CppFunction;
  library.impl(op.c_str(), CppFunction::makeFromBoxedFunctor(std::make_unique<AutogradKernel>(op)));
  library.impl((op + "_backward").c_str(),
               CppFunction::makeFromBoxedFunctor(std::make_unique<DoubleBackwardKernel>(op)));
}

}  // namespace vaekernels
