// The elementwise formulas of the row reductions, shared by the CPU and the CUDA kernels. Inputs
// are in the order of the op's schema. A formula defines
//   derive(in)                      what depends only on the last kScalars inputs; computed once
//                                   per call where these are scalars, the common case;
//   value(in, derived)              one element's term of the sum;
//   gradient(in, derived, g, out)   out[k] = g * d value / d in[k].
// T is float or double.
#pragma once

#include "common/bernoulli_nll.h"
#include "common/gaussian_kl.h"
#include "common/gaussian_nll.h"
#include "common/laplace_nll.h"
