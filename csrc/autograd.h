// Autograd of the ops, which follows from the schemas in vaekernels/ops/. An op X has a companion
// X_backward. Its arguments are the gradients of the leading outputs of X (the others are
// constant), the inputs of X, the outputs of X that are saved for it, and a mask of the inputs that
// need a gradient; it returns a tensor grad_<input> for each differentiable input.
#pragma once

#include <torch/library.h>

#include <string>

namespace vaekernels {

// Registers X for the Autograd key. X_backward is not differentiable: that raises an error.
void register_autograd(torch::Library& library, const std::string& op);

}  // namespace vaekernels
