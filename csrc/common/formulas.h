// The element-wise formulas of the ops that sum one number per row, each written once for the CPU
// and the CUDA kernels. A formula names its inputs in the order of the op's schema and gives
//   derive(in)                      what depends on the last kNumbers inputs alone: usually they
//                                   are numbers for all rows, and it is computed once;
//   value(in, derived)              one element's term of the sum;
//   gradient(in, derived, g, out)   out[k] = g * d value / d in[k].
// T is float or double.
#pragma once

#include "common/bernoulli_nll.h"
#include "common/gaussian_kl.h"
#include "common/gaussian_nll.h"
#include "common/laplace_nll.h"
