// One autograd kernel for every op. An op X has a companion X_backward that takes the gradients of
// X's outputs (of those that carry one), then X's inputs, then the outputs that were saved, then a
// mask of the differentiable inputs that want a gradient, and returns one tensor per differentiable
// input (vaekernels/ops/_define.py states the convention).
#pragma once

#include <torch/library.h>

#include <string>
#include <vector>

namespace vaekernels {

// The kernel of X on the Autograd key; differentiable names the inputs that get a gradient,
// saved_outputs the outputs that backward wants, constant_outputs those that no gradient flows
// through: backward takes none for them.
torch::CppFunction autograd_kernel(std::string op, std::vector<std::string> differentiable,
                                   std::vector<std::string> saved_outputs = {},
                                   std::vector<std::string> constant_outputs = {});

// The kernel of X_backward on the Autograd key: differentiating its result again says clearly that
// this is not implemented.
torch::CppFunction refuse_double_backward(std::string op);

}  // namespace vaekernels
