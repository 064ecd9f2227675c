// The only file that registers with torch and pybind11. Schemas and fakes are declared in Python
// (vaekernels/ops/), so that they exist once for every backend.
#include <ATen/CPUGeneratorImpl.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

#include "autograd.h"
#include "cpu/buffer_pool.h"
#include "cpu/capability.h"
#include "cpu/conv/explain.h"
#include "cpu/conv/filter_cache.h"
#include "cpu/conv/scratch.h"
#include "cpu/empty_cache.h"
#include "cpu/group_norm_ops.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"

namespace cpu = vaekernels::cpu;
using nogil = pybind11::gil_scoped_release;
using vaekernels::autograd_kernel;
using vaekernels::refuse_double_backward;

namespace {

// Draws a seed from the default CPU generator, like torch.randint at a quarter of its cost: that
// matters for ops that take ten microseconds. Fake tensors pass the device meta.
at::Tensor draw_seed(std::optional<at::Device> device) {
  if (device.has_value() && device->is_meta()) {
    return at::empty({}, at::dtype(at::kLong).device(at::kMeta));
  }
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  auto* cpu_generator = at::check_generator<at::CPUGeneratorImpl>(generator);
  at::Tensor seed = at::empty({}, at::kLong);
  // The mapping of torch.randint(-2**63, 2**63 - 1), which generator= and compiled functions use:
  // all three give the same seeds.
  constexpr uint64_t kRange = ~uint64_t{0}, kBase = uint64_t{1} << 63;
  *seed.mutable_data_ptr<int64_t>() =
      static_cast<int64_t>(cpu_generator->random64() % kRange + kBase);
  return seed;
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  const uint32_t in[4] = {counter[0], counter[1], counter[2], counter[3]};
  uint32_t words[4];
  VK_CPU_DISPATCH(philox_words, in, static_cast<uint64_t>(key[1]) << 32 | key[0], words);
  return {words[0], words[1], words[2], words[3]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(vaekernels, m) {
  m.def("draw_seed(*, Device? device=None) -> Tensor", {at::Tag::nondeterministic_seeded});
}

TORCH_LIBRARY_IMPL(vaekernels, CompositeExplicitAutograd, m) { m.impl("draw_seed", &draw_seed); }

TORCH_LIBRARY_IMPL(vaekernels, CPU, m) {
  m.impl("randn", &cpu::randn_forward);
  m.impl("rsample_kl", &cpu::rsample_kl_forward);
  m.impl("rsample_kl_backward", &cpu::rsample_kl_backward);
  m.impl("gaussian_kl", &cpu::gaussian_kl_forward);
  m.impl("gaussian_kl_backward", &cpu::gaussian_kl_backward);
  m.impl("bernoulli_nll", &cpu::bernoulli_nll_forward);
  m.impl("bernoulli_nll_backward", &cpu::bernoulli_nll_backward);
  m.impl("gaussian_nll", &cpu::gaussian_nll_forward);
  m.impl("gaussian_nll_backward", &cpu::gaussian_nll_backward);
  m.impl("laplace_nll", &cpu::laplace_nll_forward);
  m.impl("laplace_nll_backward", &cpu::laplace_nll_backward);
  m.impl("conv3x3", &cpu::conv3x3_forward);
  m.impl("conv3x3_backward", &cpu::conv3x3_backward);
  m.impl("upsample_conv3x3", &cpu::upsample_conv3x3_forward);
  m.impl("upsample_conv3x3_backward", &cpu::upsample_conv3x3_backward);
  m.impl("downsample_conv3x3", &cpu::downsample_conv3x3_forward);
  m.impl("downsample_conv3x3_backward", &cpu::downsample_conv3x3_backward);
  m.impl("downsample_conv4x4", &cpu::downsample_conv4x4_forward);
  m.impl("downsample_conv4x4_backward", &cpu::downsample_conv4x4_backward);
  m.impl("conv_transpose4x4", &cpu::conv_transpose4x4_forward);
  m.impl("conv_transpose4x4_backward", &cpu::conv_transpose4x4_backward);
  m.impl("group_norm_silu", &cpu::group_norm_silu_forward);
  m.impl("group_norm_silu_backward", &cpu::group_norm_silu_backward);
}

TORCH_LIBRARY_IMPL(vaekernels, Autograd, m) {
  m.impl("rsample_kl", autograd_kernel("rsample_kl", {"mean", "logvar"}));
  m.impl("gaussian_kl",
         autograd_kernel("gaussian_kl", {"mean", "logvar", "prior_mean", "prior_logvar"}));
  m.impl("bernoulli_nll", autograd_kernel("bernoulli_nll", {"logits", "target"}));
  m.impl("gaussian_nll", autograd_kernel("gaussian_nll", {"mean", "target", "logvar"}));
  m.impl("laplace_nll", autograd_kernel("laplace_nll", {"mean", "target", "scale"}));
  m.impl("group_norm_silu", autograd_kernel("group_norm_silu", {"x", "weight", "bias"},
                                            {"mean", "rstd"}, {"mean", "rstd"}));
  m.impl("conv3x3",
         autograd_kernel("conv3x3", {"x", "weight", "bias", "residual", "norm_weight", "norm_bias"},
                         {"y"}));
  for (const char* op :
       {"upsample_conv3x3", "downsample_conv3x3", "downsample_conv4x4", "conv_transpose4x4"}) {
    m.impl(op, autograd_kernel(op, {"x", "weight", "bias"}, {"y"}));
  }
  for (const char* op : {"conv3x3", "upsample_conv3x3", "downsample_conv3x3", "downsample_conv4x4",
                         "conv_transpose4x4", "group_norm_silu", "rsample_kl", "gaussian_kl",
                         "bernoulli_nll", "gaussian_nll", "laplace_nll"}) {
    m.impl((std::string(op) + "_backward").c_str(), refuse_double_backward(op));
  }
}

PYBIND11_MODULE(_C, m) {
  m.def("cpu_capability", [] { return cpu::name_of(cpu::capability()); });
  m.def("cpu_capabilities", &cpu::supported_capabilities);
  m.def("set_cpu_capability", &cpu::set_capability);
  m.def("philox", &philox);
  m.def("forget_filters",
        [](size_t storage) { cpu::forget_filters(reinterpret_cast<const void*>(storage)); });
  m.def("cached_filter_bytes", &cpu::cached_filter_bytes);
  m.def("scratch_bytes", &cpu::scratch_bytes);
  m.def("pool_bytes", &cpu::pool_bytes);
  m.def("trim_pool", &cpu::trim_pool, pybind11::call_guard<nogil>());
  m.def("empty_cache", &cpu::empty_cache, pybind11::call_guard<nogil>());
  m.def("explain_conv", &cpu::explain_conv);
}
