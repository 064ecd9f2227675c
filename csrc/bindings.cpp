// The Python module of the extension, and the op draw_seed. The other ops are registered in their
// own files; their schemas and fakes are declared in Python (vaekernels/ops/), once for all
// backends.
#include <ATen/CPUGeneratorImpl.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

#include "cpu/buffer_pool.h"
#include "cpu/capability.h"
#include "cpu/conv/explain.h"
#include "cpu/conv/filter_cache.h"
#include "cpu/conv/scratch.h"
#include "cpu/empty_cache.h"
#include "cpu/kernels.h"

namespace cpu = vaekernels::cpu;
using nogil = pybind11::gil_scoped_release;

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
