// Reading and writing units of consecutive elements of a row: the two ways of Access.
#pragma once

#include "cuda/rows.h"

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

  // out[i] = element begin + i of the row, for i < n <= kUnit.
  __device__ __forceinline__ static void load(const Rows& rows, int64_t row, int64_t begin, int n,
                                              float (&out)[kUnit]) {
    if (rows.is_number()) {
      const float number = read_number<float>(rows);
#pragma unroll
      for (int i = 0; i < kUnit; ++i) out[i] = number;
      return;
    }
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

// Each tensor has its own layout and dtype; those that are dense and aligned still move in packs.
template <class T>
struct AnyLayout {
  using Compute = T;
  static constexpr int kUnit = 4;

  __device__ __forceinline__ static void load(const Rows& rows, int64_t row, int64_t begin, int n,
                                              T (&out)[kUnit]) {
    if (rows.is_number()) {
      const T number = read_number<T>(rows);
#pragma unroll
      for (int i = 0; i < kUnit; ++i) out[i] = number;
      return;
    }
    const int64_t start = row * rows.row_stride;
    if (n == kUnit && in_packs(rows)) {
      switch (rows.kind) {
        case Kind::kFloat64: return load_pack<double>(rows, start + begin, out);
        case Kind::kFloat32: return load_pack<float>(rows, start + begin, out);
        case Kind::kBFloat16: return load_pack<BFloat16>(rows, start + begin, out);
        default: return load_pack<Float16>(rows, start + begin, out);
      }
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) out[i] = read_at<T>(rows.data, rows.kind, start + offset_of(rows, begin + i));
    }
  }

  __device__ __forceinline__ static void store(const Rows& rows, int64_t row, int64_t begin, int n,
                                               const T (&in)[kUnit]) {
    const int64_t start = row * rows.row_stride;
    if (n == kUnit && in_packs(rows)) {
      switch (rows.kind) {
        case Kind::kFloat64: return store_pack<double>(rows, start + begin, in);
        case Kind::kFloat32: return store_pack<float>(rows, start + begin, in);
        case Kind::kBFloat16: return store_pack<BFloat16>(rows, start + begin, in);
        default: return store_pack<Float16>(rows, start + begin, in);
      }
    }
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i < n) write_at(rows.data, rows.kind, start + offset_of(rows, begin + i), in[i]);
    }
  }

 private:
  __device__ __forceinline__ static bool in_packs(const Rows& rows) {
    const bool half = rows.kind == Kind::kBFloat16 || rows.kind == Kind::kFloat16;
    return rows.form == Form::kDense && rows.alignment >= (half ? 8 : 16);
  }
};

}  // namespace vaekernels::cuda
