#include "cuda/tensors.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <numeric>

// Defined by torch's CUDA library. Weak, so that this library also loads, and can be tested, beside
// a torch without CUDA, where no kernel of it is ever called.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace vaekernels::cuda {
namespace {

DType dtype_of(const char* op, const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double: return DType::kFloat64;
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Half: return DType::kFloat16;
    default:
      require(false, op, name, ": expected float64, float32, bfloat16 or float16; got ",
              torch::headeronly::toString(tensor.scalar_type()));
      return DType::kFloat32;
  }
}

int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

double host_value(DType dtype, const void* data) {
  switch (dtype) {
    case DType::kFloat64: return *static_cast<const double*>(data);
    case DType::kFloat32: return widened(*static_cast<const float*>(data));
    case DType::kBFloat16: return widened(*static_cast<const BFloat16*>(data));
    default: return widened(*static_cast<const Float16*>(data));
  }
}

void require_device(const char* op, const char* name, const Tensor& tensor, int32_t device) {
  require(tensor.is_cuda() && tensor.get_device_index() == device, op, name,
          ": expected on cuda:", device, "; got on ", DeviceOf{tensor});
}

// The number of bytes that the start of each row is a multiple of: 16, 8 or 1.
int16_t alignment_of(const RowView& rows, int64_t batch) {
  const auto address = reinterpret_cast<uintptr_t>(rows.data);
  const auto step = static_cast<uintptr_t>(batch > 1 ? rows.row_stride * size_of(rows.dtype) : 0);
  for (int16_t bytes : {16, 8}) {
    if ((address | step) % bytes == 0) return bytes;
  }
  return 1;
}

}  // namespace

bool same_shape(const Tensor& a, const Tensor& b) {
  const auto left = a.sizes(), right = b.sizes();
  return std::equal(left.begin(), left.end(), right.begin(), right.end());
}

std::ostream& operator<<(std::ostream& out, ShapeOf shape) {
  const Tensor& tensor = shape.tensor;
  out << '(';
  for (int64_t d = 0; d < tensor.dim(); ++d) out << (d > 0 ? ", " : "") << tensor.size(d);
  return out << (tensor.dim() == 1 ? ",)" : ")");
}

std::ostream& operator<<(std::ostream& out, DeviceOf device) {
  if (!device.tensor.is_cuda()) return out << "another device";
  return out << "cuda:" << device.tensor.get_device_index();
}

DimOrder row_major(const Tensor& tensor) {
  DimOrder order(std::max<int64_t>(0, tensor.dim() - 1));
  std::iota(order.begin(), order.end(), 1);
  return order;
}

DimOrder memory_order(const Tensor& tensor) {
  DimOrder order = row_major(tensor);
  const auto strides = tensor.strides();
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return strides[a] > strides[b]; });
  return order;
}

RowView row_view_of(const char* op, const char* name, const Tensor& tensor, const DimOrder& order,
                    int32_t device) {
  RowView rows;
  rows.dtype = dtype_of(op, name, tensor);
  if (tensor.dim() == 0 && tensor.is_cpu()) {
    rows.kind = ViewKind::kHostScalar;
    rows.value = host_value(rows.dtype, tensor.const_data_ptr());
    return rows;
  }
  require_device(op, name, tensor, device);
  rows.data = const_cast<char*>(static_cast<const char*>(tensor.const_data_ptr()));
  if (tensor.dim() == 0) {
    rows.kind = ViewKind::kDeviceScalar;
    return rows;
  }
  rows.row_stride = tensor.stride(0);
  for (int64_t d : order) {
    require(append_dim(rows, tensor.size(d), tensor.stride(d)), op, name, ": expected at most ",
            kMaxEventDims, " event dims that are not contiguous; got shape ", shape_of(tensor));
  }
  const bool dense = rows.dims == 0 || (rows.dims == 1 && rows.strides[0] == 1);
  rows.kind = dense ? ViewKind::kDense : ViewKind::kStrided;
  rows.alignment = alignment_of(rows, tensor.size(0));
  return rows;
}

RowView per_row_view(const char* op, const char* name, const Tensor& tensor, int64_t rows,
                     int32_t device) {
  require(tensor.dim() == 1 && tensor.size(0) == rows, op, name, ": expected shape (", rows,
          ",); got ", shape_of(tensor));
  return row_view_of(op, name, tensor, {}, device);
}

WorkPartition partition_of(const char* op, const char* name, const Tensor& tensor) {
  require(tensor.dim() >= 1, op, name, ": expected a batch dim, shape (B, ...); got a scalar");
  int64_t length = 1;
  for (int64_t d = 1; d < tensor.dim(); ++d) length *= tensor.size(d);
  return make_partition(tensor.size(0), length, kSegment);
}

bool any_float64(std::initializer_list<RowView> rows) {
  return std::any_of(rows.begin(), rows.end(),
                     [](const RowView& r) { return r.present() && r.dtype == DType::kFloat64; });
}

Access choose_access(bool in_float64, const std::vector<RowView>& rows) {
  if (in_float64) return Access::kAnyFloat64;
  bool vectors = true, packs = true;
  std::optional<DType> dtype;
  for (const RowView& r : rows) {
    if (!r.present() || r.is_scalar()) continue;
    const int64_t pack = 4 * size_of(r.dtype);
    packs =
        packs && r.kind == ViewKind::kDense && r.dtype != DType::kFloat64 && r.alignment >= pack;
    vectors = vectors && packs && r.alignment == 16 && r.dtype == dtype.value_or(r.dtype);
    dtype = r.dtype;
  }
  if (!packs) return Access::kAnyFloat32;
  if (!vectors || !dtype.has_value()) return Access::kPacks;
  switch (*dtype) {
    case DType::kBFloat16: return Access::kBFloat16;
    case DType::kFloat16: return Access::kFloat16;
    default: return Access::kFloat32;
  }
}

NoiseStream noise_stream(const char* op, const Tensor& seed, int64_t step,
                         const std::optional<Tensor>& sample_ids, const WorkPartition& partition,
                         int32_t device) {
  require(seed.scalar_type() == ScalarType::Long && seed.numel() == 1, op,
          "seed: expected an int64 tensor with one element; got ",
          torch::headeronly::toString(seed.scalar_type()), " of shape ", shape_of(seed));
  require(step >= 0 && step <= 0xFFFFFFFFll, op, "step: expected [0, 2**32); got ", step);
  require(partition.length <= (int64_t(1) << 34), op,
          "a sample has at most 2**34 elements of noise; got ", partition.length);
  NoiseStream stream;
  stream.step = static_cast<uint32_t>(step);
  const auto* seed_data = static_cast<const int64_t*>(seed.const_data_ptr());
  if (seed.is_cpu()) {
    stream.seed = static_cast<uint64_t>(*seed_data);
  } else {
    require_device(op, "seed", seed, device);
    stream.device_seed = seed_data;
  }
  if (sample_ids.has_value()) {
    require(sample_ids->scalar_type() == ScalarType::Long, op, "sample_ids: expected int64; got ",
            torch::headeronly::toString(sample_ids->scalar_type()));
    require(sample_ids->dim() == 1 && sample_ids->size(0) == partition.rows, op,
            "sample_ids: expected shape (", partition.rows, ",); got ", shape_of(*sample_ids));
    require_device(op, "sample_ids", *sample_ids, device);
    stream.sample_ids = static_cast<const int64_t*>(sample_ids->const_data_ptr());
    stream.sample_ids_stride = sample_ids->stride(0);
  }
  return stream;
}

SumBuffers::SumBuffers(const Tensor& like, ScalarType type, const std::vector<int64_t>& shape,
                       int64_t items)
    : totals_(torch::stable::new_empty(like, shape, type)),
      groups_(shape.empty() ? 1 : shape[0]),
      items_(items) {
  view_.totals = static_cast<char*>(totals_.mutable_data_ptr());
  view_.dtype = dtype_of("sums", "totals", totals_);
  if (items != 1 && groups_ > 0) {
    // Never empty: a null pointer means that there is nothing to merge, but the sum of no items is
    // 0.
    const int64_t size = std::max<int64_t>(1, groups_ * items);
    partials_ = torch::stable::new_empty(like, {size}, ScalarType::Double);
    view_.partials = static_cast<double*>(partials_->mutable_data_ptr());
  }
}

Tensor SumBuffers::merged(Stream stream) const {
  if (partials_.has_value()) merge_sums(view_, groups_, items_, stream);
  return totals_;
}

DeviceScope::DeviceScope(const char* op, const Tensor& tensor)
    : index_(tensor.get_device_index()), guard_(index_), stream_(nullptr) {
  require(aoti_torch_get_current_cuda_stream != nullptr, op, "this torch was built without CUDA");
  // The CUDA runtime is linked statically and has a current device separate from torch's.
  select_device(index_);
  void* stream = nullptr;
  require(aoti_torch_get_current_cuda_stream(index_, &stream) == 0, op,
          "torch gave no current stream for cuda:", index_);
  stream_ = static_cast<Stream>(stream);
}

}  // namespace vaekernels::cuda
