// The access policies: reading and writing units of consecutive elements of a row. kBlocks is the
// number of blocks per multiprocessor, which bounds the registers of a thread: without it, ptxas
// targets 64 registers and spills.
#pragma once

#include "cuda/row_view.h"

namespace vaekernels::cuda {

// N elements that are accessed in units of 16 bytes, or of their size if that is smaller.
template <class Element, int N>
struct alignas(N * sizeof(Element) < 16 ? N * sizeof(Element) : 16) Pack {
  Element elements[N];
};

template <class Element, class T, int N>
__device__ __forceinline__ void load_pack(const RowView& view, int64_t offset, T (&out)[N]) {
  const auto* from = reinterpret_cast<const Element*>(view.data) + offset;
  const auto pack = *reinterpret_cast<const Pack<Element, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = static_cast<T>(widened(pack.elements[i]));
}

template <class Element, class T, int N>
__device__ __forceinline__ void store_pack(const RowView& view, int64_t offset, const T (&in)[N]) {
  Pack<Element, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(in[i], pack.elements[i]);
  auto* to = reinterpret_cast<Element*>(view.data) + offset;
  *reinterpret_cast<Pack<Element, N>*>(to) = pack;
}

template <class T>
__device__ __forceinline__ T read_at(const char* data, DType dtype, int64_t offset) {
  switch (dtype) {
    case DType::kFloat64: return static_cast<T>(reinterpret_cast<const double*>(data)[offset]);
    case DType::kFloat32: return widened(reinterpret_cast<const float*>(data)[offset]);
    case DType::kBFloat16: return widened(reinterpret_cast<const BFloat16*>(data)[offset]);
    default: return widened(reinterpret_cast<const Float16*>(data)[offset]);
  }
}

template <class T>
__device__ __forceinline__ void write_at(char* data, DType dtype, int64_t offset, T x) {
  switch (dtype) {
    case DType::kFloat64: narrow(x, reinterpret_cast<double*>(data)[offset]); break;
    case DType::kFloat32: narrow(x, reinterpret_cast<float*>(data)[offset]); break;
    case DType::kBFloat16: narrow(x, reinterpret_cast<BFloat16*>(data)[offset]); break;
    default: narrow(x, reinterpret_cast<Float16*>(data)[offset]); break;
  }
}

// The element of a row of a (rows,) tensor.
template <class T>
__device__ __forceinline__ T read_row(const RowView& view, int64_t row) {
  return read_at<T>(view.data, view.dtype, row * view.row_stride);
}

template <class T>
__device__ __forceinline__ T read_scalar(const RowView& view) {
  if (view.kind == ViewKind::kHostScalar) return static_cast<T>(view.value);
  return read_at<T>(view.data, view.dtype, 0);
}

template <class T, int N>
__device__ __forceinline__ void fill(T (&out)[N], T x) {
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = x;
}

// The offset of an element from the start of its row.
__device__ __forceinline__ int64_t offset_of(const RowView& view, int64_t element) {
  int64_t offset = 0;
  uint64_t rest = static_cast<uint64_t>(element);
  for (int d = view.dims - 1; d > 0; --d) {
    const uint64_t size = static_cast<uint64_t>(view.sizes[d]);
    const uint64_t outer = rest / size;
    offset += static_cast<int64_t>(rest - outer * size) * view.strides[d];
    rest = outer;
  }
  return offset + static_cast<int64_t>(rest) * view.strides[0];
}

// All tensors are dense, 16-byte aligned and of one dtype.
template <class Element>
struct Vectors {
  using Compute = float;
  static constexpr int kUnit = 16 / sizeof(Element);
  static constexpr int kBlocks = 3;

  // out[i] = element begin + i of the row, for i < n <= kUnit.
  __device__ __forceinline__ static void load(const RowView& view, int64_t row, int64_t begin,
                                              int n, float (&out)[kUnit]) {
    if (view.is_scalar()) return fill(out, read_scalar<float>(view));
    const int64_t offset = row * view.row_stride + begin;
    if (n == kUnit) return load_pack<Element>(view, offset, out);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = widened(reinterpret_cast<const Element*>(view.data)[offset + i]);
    }
  }

  __device__ __forceinline__ static void store(const RowView& view, int64_t row, int64_t begin,
                                               int n, const float (&in)[kUnit]) {
    const int64_t offset = row * view.row_stride + begin;
    if (n == kUnit) return store_pack<Element>(view, offset, in);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) narrow(in[i], reinterpret_cast<Element*>(view.data)[offset + i]);
    }
  }
};

// All tensors are dense and aligned, of any mix of 16-bit and float32 dtypes, as under autocast.
struct Packs {
  using Compute = float;
  static constexpr int kUnit = 4;
  static constexpr int kBlocks = 3;

  __device__ __forceinline__ static void load(const RowView& view, int64_t row, int64_t begin,
                                              int n, float (&out)[kUnit]) {
    if (view.is_scalar()) return fill(out, read_scalar<float>(view));
    const int64_t offset = row * view.row_stride + begin;
    if (n == kUnit) {
      switch (view.dtype) {
        case DType::kBFloat16: return load_pack<BFloat16>(view, offset, out);
        case DType::kFloat16: return load_pack<Float16>(view, offset, out);
        default: return load_pack<float>(view, offset, out);
      }
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = read_at<float>(view.data, view.dtype, offset + i);
    }
  }

  __device__ __forceinline__ static void store(const RowView& view, int64_t row, int64_t begin,
                                               int n, const float (&in)[kUnit]) {
    const int64_t offset = row * view.row_stride + begin;
    if (n == kUnit) {
      switch (view.dtype) {
        case DType::kBFloat16: return store_pack<BFloat16>(view, offset, in);
        case DType::kFloat16: return store_pack<Float16>(view, offset, in);
        default: return store_pack<float>(view, offset, in);
      }
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) write_at(view.data, view.dtype, offset + i, in[i]);
    }
  }
};

// Any layouts and dtypes. A unit is one element, so that adjacent threads read adjacent elements,
// or four where a thread must compute whole Philox blocks.
template <class T, int N>
struct AnyLayout {
  using Compute = T;
  static constexpr int kUnit = N;
  static constexpr int kBlocks = sizeof(T) == 8 ? 2 : 3;

  __device__ __forceinline__ static void load(const RowView& view, int64_t row, int64_t begin,
                                              int n, T (&out)[kUnit]) {
    if (view.is_scalar()) return fill(out, read_scalar<T>(view));
    const int64_t start = row * view.row_stride;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = read_at<T>(view.data, view.dtype, start + offset_of(view, begin + i));
    }
  }

  __device__ __forceinline__ static void store(const RowView& view, int64_t row, int64_t begin,
                                               int n, const T (&in)[kUnit]) {
    const int64_t start = row * view.row_stride;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) write_at(view.data, view.dtype, start + offset_of(view, begin + i), in[i]);
    }
  }
};

}  // namespace vaekernels::cuda
