// Reading and writing units of consecutive elements of a row: the ways of Access. kBlocks is how
// many blocks a multiprocessor must hold, which bounds the registers of a thread: without it ptxas
// aims for 64 registers, and spills.
#pragma once

#include "cuda/row_view.h"

namespace vaekernels::cuda {

// N elements that move as 16-byte (or, where there are fewer, as wide as they are) accesses.
template <class Element, int N>
struct alignas(N * sizeof(Element) < 16 ? N * sizeof(Element) : 16) Pack {
  Element elements[N];
};

template <class Element, class T, int N>
__device__ __forceinline__ void load_pack(const Rows& rows, int64_t offset, T (&out)[N]) {
  const auto* from = reinterpret_cast<const Element*>(rows.data) + offset;
  const auto pack = *reinterpret_cast<const Pack<Element, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = static_cast<T>(widened(pack.elements[i]));
}

template <class Element, class T, int N>
__device__ __forceinline__ void store_pack(const Rows& rows, int64_t offset, const T (&in)[N]) {
  Pack<Element, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(in[i], pack.elements[i]);
  auto* to = reinterpret_cast<Element*>(rows.data) + offset;
  *reinterpret_cast<Pack<Element, N>*>(to) = pack;
}

template <class T>
__device__ __forceinline__ T read_at(const char* data, Kind kind, int64_t offset) {
  switch (kind) {
    case Kind::kFloat64: return static_cast<T>(reinterpret_cast<const double*>(data)[offset]);
    case Kind::kFloat32: return widened(reinterpret_cast<const float*>(data)[offset]);
    case Kind::kBFloat16: return widened(reinterpret_cast<const BFloat16*>(data)[offset]);
    default: return widened(reinterpret_cast<const Float16*>(data)[offset]);
  }
}

template <class T>
__device__ __forceinline__ void write_at(char* data, Kind kind, int64_t offset, T x) {
  switch (kind) {
    case Kind::kFloat64: narrow(x, reinterpret_cast<double*>(data)[offset]); break;
    case Kind::kFloat32: narrow(x, reinterpret_cast<float*>(data)[offset]); break;
    case Kind::kBFloat16: narrow(x, reinterpret_cast<BFloat16*>(data)[offset]); break;
    default: narrow(x, reinterpret_cast<Float16*>(data)[offset]); break;
  }
}

// The one element of a row of a tensor (rows,).
template <class T>
__device__ __forceinline__ T read_row(const Rows& rows, int64_t row) {
  return read_at<T>(rows.data, rows.kind, row * rows.row_stride);
}

template <class T>
__device__ __forceinline__ T read_number(const Rows& rows) {
  if (rows.form == Form::kValue) return static_cast<T>(rows.value);
  return read_at<T>(rows.data, rows.kind, 0);
}

template <class T, int N>
__device__ __forceinline__ void fill(T (&out)[N], T x) {
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = x;
}

// Distance of an element from the start of its row.
__device__ __forceinline__ int64_t offset_of(const Rows& rows, int64_t element) {
  int64_t offset = 0;
  uint64_t rest = static_cast<uint64_t>(element);
  for (int d = rows.dims - 1; d > 0; --d) {
    const uint64_t size = static_cast<uint64_t>(rows.sizes[d]);
    const uint64_t outer = rest / size;
    offset += static_cast<int64_t>(rest - outer * size) * rows.strides[d];
    rest = outer;
  }
  return offset + static_cast<int64_t>(rest) * rows.strides[0];
}

// All tensors are dense, 16-byte aligned and of one dtype.
template <class Element>
struct Vectors {
  using Compute = float;
  static constexpr int kUnit = 16 / sizeof(Element);
  static constexpr int kBlocks = 3;

  // out[i] = element begin + i of the row, for i < n <= kUnit.
  __device__ __forceinline__ static void load(const Rows& rows, int64_t row, int64_t begin, int n,
                                              float (&out)[kUnit]) {
    if (rows.is_number()) return fill(out, read_number<float>(rows));
    const int64_t offset = row * rows.row_stride + begin;
    if (n == kUnit) return load_pack<Element>(rows, offset, out);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = widened(reinterpret_cast<const Element*>(rows.data)[offset + i]);
    }
  }

  __device__ __forceinline__ static void store(const Rows& rows, int64_t row, int64_t begin, int n,
                                               const float (&in)[kUnit]) {
    const int64_t offset = row * rows.row_stride + begin;
    if (n == kUnit) return store_pack<Element>(rows, offset, in);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) narrow(in[i], reinterpret_cast<Element*>(rows.data)[offset + i]);
    }
  }
};

// All tensors are dense and aligned, each of its own dtype: half types beside float32, as under
// autocast.
struct Packs {
  using Compute = float;
  static constexpr int kUnit = 4;
  static constexpr int kBlocks = 3;

  __device__ __forceinline__ static void load(const Rows& rows, int64_t row, int64_t begin, int n,
                                              float (&out)[kUnit]) {
    if (rows.is_number()) return fill(out, read_number<float>(rows));
    const int64_t offset = row * rows.row_stride + begin;
    if (n == kUnit) {
      switch (rows.kind) {
        case Kind::kBFloat16: return load_pack<BFloat16>(rows, offset, out);
        case Kind::kFloat16: return load_pack<Float16>(rows, offset, out);
        default: return load_pack<float>(rows, offset, out);
      }
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = read_at<float>(rows.data, rows.kind, offset + i);
    }
  }

  __device__ __forceinline__ static void store(const Rows& rows, int64_t row, int64_t begin, int n,
                                               const float (&in)[kUnit]) {
    const int64_t offset = row * rows.row_stride + begin;
    if (n == kUnit) {
      switch (rows.kind) {
        case Kind::kBFloat16: return store_pack<BFloat16>(rows, offset, in);
        case Kind::kFloat16: return store_pack<Float16>(rows, offset, in);
        default: return store_pack<float>(rows, offset, in);
      }
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) write_at(rows.data, rows.kind, offset + i, in[i]);
    }
  }
};

// Each tensor has its own layout and dtype. A unit is one element where neighbouring threads should
// read neighbouring elements, four where a thread must compute whole Philox blocks.
template <class T, int N>
struct AnyLayout {
  using Compute = T;
  static constexpr int kUnit = N;
  static constexpr int kBlocks = sizeof(T) == 8 ? 2 : 3;

  __device__ __forceinline__ static void load(const Rows& rows, int64_t row, int64_t begin, int n,
                                              T (&out)[kUnit]) {
    if (rows.is_number()) return fill(out, read_number<T>(rows));
    const int64_t start = row * rows.row_stride;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = read_at<T>(rows.data, rows.kind, start + offset_of(rows, begin + i));
    }
  }

  __device__ __forceinline__ static void store(const Rows& rows, int64_t row, int64_t begin, int n,
                                               const T (&in)[kUnit]) {
    const int64_t start = row * rows.row_stride;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) write_at(rows.data, rows.kind, start + offset_of(rows, begin + i), in[i]);
    }
  }
};

}  // namespace vaekernels::cuda
