// The only file of this library that registers with torch. Schemas and fakes are declared in Python
// (vaekernels/ops/), autograd for every device in csrc/bindings.cpp.
#include <torch/csrc/stable/library.h>

#include "cuda/ops.h"

namespace cuda = vaekernels::cuda;

STABLE_TORCH_LIBRARY_IMPL(vaekernels, CUDA, m) {
  m.impl("randn", TORCH_BOX(&cuda::randn_forward));
  m.impl("rsample_kl", TORCH_BOX(&cuda::rsample_kl_forward));
  m.impl("rsample_kl_backward", TORCH_BOX(&cuda::rsample_kl_backward));
  m.impl("gaussian_kl", TORCH_BOX(&cuda::gaussian_kl_forward));
  m.impl("gaussian_kl_backward", TORCH_BOX(&cuda::gaussian_kl_backward));
  m.impl("bernoulli_nll", TORCH_BOX(&cuda::bernoulli_nll_forward));
  m.impl("bernoulli_nll_backward", TORCH_BOX(&cuda::bernoulli_nll_backward));
  m.impl("gaussian_nll", TORCH_BOX(&cuda::gaussian_nll_forward));
  m.impl("gaussian_nll_backward", TORCH_BOX(&cuda::gaussian_nll_backward));
  m.impl("laplace_nll", TORCH_BOX(&cuda::laplace_nll_forward));
  m.impl("laplace_nll_backward", TORCH_BOX(&cuda::laplace_nll_backward));
}
