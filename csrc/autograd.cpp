#include "autograd.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <memory>

namespace vaekernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;
using torch::jit::Stack;

Stack without_autograd(const c10::OperatorHandle& op, Stack stack) {
  at::AutoDispatchBelowADInplaceOrView guard;
  op.callBoxed(stack);
  return stack;
}

variable_list tensors_of(const Stack& stack) {
  variable_list tensors;
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) tensors.push_back(value.toTensor());
  }
  return tensors;
}

bool wants_gradient(const variable_list& tensors) {
  return at::GradMode::is_enabled() &&
         std::any_of(tensors.begin(), tensors.end(),
                     [](const Variable& v) { return v.defined() && v.requires_grad(); });
}

// What the autograd kernel of an op knows of it; found once, at the first call.
struct OpInfo {
  std::string name;
  std::vector<std::string> differentiable;
  std::optional<c10::OperatorHandle> forward, backward;
  std::vector<size_t> positions;  // of the differentiable inputs in the schema

  void resolve() {
    if (forward.has_value()) return;
    auto& dispatcher = c10::Dispatcher::singleton();
    backward = dispatcher.findSchemaOrThrow(("vaekernels::" + name + "_backward").c_str(), "");
    const auto found = dispatcher.findSchemaOrThrow(("vaekernels::" + name).c_str(), "");
    positions.clear();
    for (const std::string& input : differentiable) {
      positions.push_back(found.schema().argumentIndexWithName(input).value());
    }
    forward = found;
  }
};

struct OpFunction : Function<OpFunction> {
  static variable_list forward(AutogradContext* ctx, const OpInfo* info, const Stack& inputs,
                               at::TensorList tensors) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward(tensors.vec());
    // Everything but the tensors, which may only be saved as variables.
    Stack rest = inputs;
    for (c10::IValue& value : rest) {
      if (value.isTensor()) value = c10::IValue();
    }
    c10::List<bool> is_tensor;
    for (const c10::IValue& value : inputs) is_tensor.push_back(value.isTensor());
    ctx->saved_data["rest"] = c10::ivalue::Tuple::create(std::move(rest));
    ctx->saved_data["is_tensor"] = is_tensor;
    ctx->saved_data["info"] = reinterpret_cast<int64_t>(info);
    return tensors_of(without_autograd(*info->forward, inputs));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto* info = reinterpret_cast<const OpInfo*>(ctx->saved_data["info"].toInt());
    const variable_list saved = ctx->get_saved_variables();
    // One result per argument of forward(): info, inputs, then the tensors.
    variable_list result(2 + saved.size());
    if (std::none_of(grads.begin(), grads.end(), [](const Variable& g) { return g.defined(); })) {
      return result;
    }
    const auto& rest = ctx->saved_data["rest"].toTupleRef().elements();
    const auto is_tensor = ctx->saved_data["is_tensor"].toBoolList();

    Stack stack;
    for (const Variable& grad : grads) {
      stack.push_back(grad.defined() ? c10::IValue(grad) : c10::IValue());
    }
    std::vector<size_t> ordinal(rest.size());  // of a tensor input among the tensors
    size_t seen = 0;
    for (size_t i = 0; i < rest.size(); ++i) {
      ordinal[i] = seen;
      stack.push_back(is_tensor[i] ? c10::IValue(saved[seen++]) : rest[i]);
    }
    c10::List<bool> mask;
    for (size_t position : info->positions) {
      mask.push_back(ctx->needs_input_grad(ordinal[position]));
    }
    stack.emplace_back(mask);
    info->backward->callBoxed(stack);

    for (size_t k = 0; k < info->positions.size(); ++k) {
      if (mask[k]) result[2 + ordinal[info->positions[k]]] = stack[k].toTensor();
    }
    return result;
  }
};

class AutogradKernel final : public c10::OperatorKernel {
 public:
  AutogradKernel(std::string name, std::vector<std::string> differentiable)
      : info_{std::move(name), std::move(differentiable), {}, {}, {}} {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
    info_.resolve();
    const size_t count = op.schema().arguments().size();
    Stack inputs(std::make_move_iterator(stack->end() - count),
                 std::make_move_iterator(stack->end()));
    stack->erase(stack->end() - count, stack->end());
    const variable_list tensors = tensors_of(inputs);
    if (!wants_gradient(tensors)) {
      for (c10::IValue& value : without_autograd(op, std::move(inputs))) {
        stack->push_back(std::move(value));
      }
      return;
    }
    for (Variable& output : OpFunction::apply(&info_, inputs, at::TensorList(tensors))) {
      stack->emplace_back(std::move(output));
    }
  }

 private:
  OpInfo info_;
};

struct Refusal : Function<Refusal> {
  static variable_list forward(AutogradContext* ctx, const std::string& name,
                               at::TensorList, const variable_list& outputs) {
    ctx->saved_data["name"] = name;
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false, ctx->saved_data["name"].toStringRef(),
        ": double backward is not implemented by the fused backends; use backend=\"reference\"");
  }
};

class RefusalKernel final : public c10::OperatorKernel {
 public:
  explicit RefusalKernel(std::string name) : name_(std::move(name)) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
    const size_t count = op.schema().arguments().size();
    Stack inputs(stack->end() - count, stack->end());
    stack->erase(stack->end() - count, stack->end());
    const variable_list tensors = tensors_of(inputs);
    variable_list outputs = tensors_of(without_autograd(op, std::move(inputs)));
    if (wants_gradient(tensors)) outputs = Refusal::apply(name_, at::TensorList(tensors), outputs);
    for (Variable& output : outputs) stack->emplace_back(std::move(output));
  }

 private:
  std::string name_;
};

}  // namespace

torch::CppFunction autograd_kernel(std::string op, std::vector<std::string> differentiable) {
  return torch::CppFunction::makeFromBoxedFunctor(
      std::make_unique<AutogradKernel>(std::move(op), std::move(differentiable)));
}

torch::CppFunction refuse_double_backward(std::string op) {
  return torch::CppFunction::makeFromBoxedFunctor(std::make_unique<RefusalKernel>(std::move(op)));
}

}  // namespace vaekernels
