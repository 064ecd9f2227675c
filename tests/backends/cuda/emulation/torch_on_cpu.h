// Included before each host file of csrc/cuda: CPU tensors are CUDA tensors to it, and its ops are
// vaekernels_emulated::X on the CPU, so that those of the CPU backend stay what they are.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace emulation {

AOTITorchError device_type(AtenTensorHandle tensor, int32_t* type);
AOTITorchError device_index(AtenTensorHandle tensor, int32_t* index);
AOTITorchError create_device_guard(int32_t index, DeviceGuardHandle* guard);
AOTITorchError delete_device_guard(DeviceGuardHandle guard);

}  // namespace emulation

#define aoti_torch_get_device_type ::emulation::device_type
#define aoti_torch_get_device_index ::emulation::device_index
#define aoti_torch_create_device_guard ::emulation::create_device_guard
#define aoti_torch_delete_device_guard ::emulation::delete_device_guard
#define aoti_torch_get_current_cuda_stream emulation_current_stream

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#define vaekernels vaekernels_emulated  // the namespace of C++ as well as torch's
#define CUDA CPU                        // the dispatch key
