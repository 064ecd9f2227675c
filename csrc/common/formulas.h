// The element-wise formulas of the ops that sum one number per row, each written once for the CPU
// and the CUDA kernels. A formula names its inputs in the order of the op's schema and gives
//   value(in)              one element's term of the sum;
//   gradient(in, g, out)   out[k] = g * d value / d in[k];
//   derive(in)             what depends on the last kNumbers inputs alone. Those are usually one
//                          number for all rows, and a kernel may then derive once, not per
//                          element: value(in, derived), gradient(in, derived, g, out).
// T is float or double.
#pragma once

#include "common/bernoulli_nll.h"
#include "common/gaussian_kl.h"
#include "common/gaussian_nll.h"
#include "common/laplace_nll.h"
