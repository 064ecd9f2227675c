// The row reductions: ops that sum an elementwise formula over each row. A formula is written once
// for the CPU and the CUDA kernels, in a header of its own. Adding it to Formulas compiles the
// kernels and registers the op for both. A formula F declares its op kOp and its inputs
// kInputNames, in the order of the schema, and defines
//   derive(in)                      what depends only on the last kScalars inputs; computed once
//                                   per call where these are scalars, the common case;
//   value(in, derived)              one element's term of the sum;
//   gradient(in, derived, g, out)   out[k] = g * d value / d in[k];
// where T is float or double.
#pragma once

#include <type_traits>

#include "common/bernoulli_nll.h"
#include "common/gaussian_kl.h"
#include "common/gaussian_nll.h"
#include "common/laplace_nll.h"

namespace vaekernels {

template <class... F>
struct FormulaList {};

using Formulas = FormulaList<GaussianKl, BernoulliNll, GaussianNll, LaplaceNll>;

constexpr int kMaxInputs = 4;

template <class F, class... All>
constexpr int index_of(FormulaList<All...>) {
  const bool matches[] = {std::is_same_v<F, All>...};
  int index = 0;
  while (!matches[index]) ++index;
  return index;
}

// The index of F in Formulas, which selects the formula of a kernel.
template <class F>
constexpr int kFormulaIndex = index_of<F>(Formulas{});

// Not merged by the linker: this file is compiled once per CPU capability.
namespace {

// Calls run(F{}) for each formula F.
template <class Run, class... F>
void for_each_formula(FormulaList<F...>, const Run& run) {
  (run(F{}), ...);
}

// Calls run(F{}) for the formula F with the index.
template <class Run, class... F>
void with_formula(FormulaList<F...>, int index, const Run& run) {
  ((index == kFormulaIndex<F> && (run(F{}), true)) || ...);
}

}  // namespace
}  // namespace vaekernels
