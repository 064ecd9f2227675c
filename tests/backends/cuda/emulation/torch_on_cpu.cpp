// The few functions of torch that know of devices, for a device that is the CPU.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "block.h"
#include "emulation.h"

namespace emulation {
namespace {

bool numbers_on_device = false;

}  // namespace

AOTITorchError device_type(AtenTensorHandle tensor, int32_t* type) {
  int64_t dims = 0;
  const AOTITorchError error = aoti_torch_get_dim(tensor, &dims);
  const bool on_host = dims == 0 && !numbers_on_device;
  *type = on_host ? aoti_torch_device_type_cpu() : aoti_torch_device_type_cuda();
  return error;
}

AOTITorchError device_index(AtenTensorHandle, int32_t* index) {
  *index = 0;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError delete_device_guard(DeviceGuardHandle) { return AOTI_TORCH_SUCCESS; }

}  // namespace emulation

void emulation_numbers_on_device(bool on) { emulation::numbers_on_device = on; }

extern "C" {

AOTITorchError emulation_current_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}

// What -fsanitize=alignment,bounds calls. Defined here rather than linked from its library, so that
// such an access ends the launch with an error, as on a card, and not the process.
void __ubsan_handle_type_mismatch_v1(void*, void*) {
  emulation::Block::current()->fail(cudaErrorMisalignedAddress, "a misaligned access");
}

void __ubsan_handle_out_of_bounds(void*, void*) {
  emulation::Block::current()->fail(cudaErrorLaunchFailure, "an index beyond its array");
}
}
