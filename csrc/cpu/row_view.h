// A view of a tensor of any strides and dtype as rows (dim 0) of elements. Kernels read and write
// chunks in their compute type; where the memory already has that type and is dense, they do so in
// place.
//
// Includes no torch header: this file is compiled once per CPU capability, and the linker would
// merge inline functions of different capabilities.
#pragma once

#include <cstdint>

#include "common/half.h"
#include "common/row_layout.h"

namespace vaekernels::cpu {

constexpr int kChunk = 256;  // elements; several chunks of float fit into the L1 cache

struct RowView {
  char* data = nullptr;  // nullptr: absent
  DType dtype = DType::kFloat32;
  int64_t row_stride = 0;  // in elements, as all strides
  int dims = 0;            // event dims, after merging contiguous ones
  int64_t sizes[kMaxEventDims] = {};
  int64_t strides[kMaxEventDims] = {};

  bool present() const { return data != nullptr; }
  bool is_scalar() const { return dims == 0 && row_stride == 0; }
  bool dense() const { return dims == 0 || (dims == 1 && strides[0] == 1); }
};

// Everything below is inlined into the kernels of one capability.
namespace {

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kFloat64;
};

// Calls body(offset, stride, count, done) for each run along the innermost dim that covers the
// elements [begin, begin + n) of a row; offsets count from the row's start.
template <class Body>
VK_INLINE void for_each_run(const RowView& view, int64_t begin, int64_t n, Body body) {
  if (view.dims <= 1) {
    const int64_t stride = view.dims == 0 ? 0 : view.strides[0];
    body(begin * stride, stride, n, int64_t(0));
    return;
  }
  const int inner = view.dims - 1;
  int64_t index[kMaxEventDims];
  int64_t rest = begin;
  for (int d = inner; d >= 0; --d) {
    index[d] = rest % view.sizes[d];
    rest /= view.sizes[d];
  }
  for (int64_t done = 0; done < n;) {
    int64_t offset = 0;
    for (int d = 0; d <= inner; ++d) offset += index[d] * view.strides[d];
    const int64_t left = view.sizes[inner] - index[inner];
    const int64_t count = left < n - done ? left : n - done;
    body(offset, view.strides[inner], count, done);
    done += count;
    index[inner] = 0;
    for (int d = inner - 1; d >= 0; --d) {
      if (++index[d] < view.sizes[d]) break;
      index[d] = 0;
    }
  }
}

template <class Element, class T>
VK_INLINE void gather(const RowView& view, int64_t row, int64_t begin, int64_t n, T* out) {
  const Element* base = reinterpret_cast<const Element*>(view.data) + row * view.row_stride;
  for_each_run(view, begin, n, [&](int64_t offset, int64_t stride, int64_t count, int64_t done) {
    const Element* from = base + offset;
    T* to = out + done;
    if (stride == 1) {
      VK_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(widened(from[i]));
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(widened(from[i * stride]));
    }
  });
}

template <class Element, class T>
VK_INLINE void scatter(const RowView& view, int64_t row, int64_t begin, int64_t n, const T* in) {
  Element* base = reinterpret_cast<Element*>(view.data) + row * view.row_stride;
  for_each_run(view, begin, n, [&](int64_t offset, int64_t stride, int64_t count, int64_t done) {
    Element* to = base + offset;
    const T* from = in + done;
    if (stride == 1) {
      VK_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) narrow(from[i], to[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) narrow(from[i], to[i * stride]);
    }
  });
}

template <class T>
VK_INLINE bool in_place(const RowView& view) {
  return view.dense() && view.dtype == DTypeOf<T>::value;
}

template <class T>
VK_INLINE T* address(const RowView& view, int64_t row, int64_t begin) {
  return reinterpret_cast<T*>(view.data) + row * view.row_stride + (view.dims == 0 ? 0 : begin);
}

// Returns the elements [begin, begin + n) of a row as T: in place, or converted into scratch.
template <class T>
const T* read(const RowView& view, int64_t row, int64_t begin, int64_t n, T* scratch) {
  if (in_place<T>(view) && view.dims == 1) return address<T>(view, row, begin);
  switch (view.dtype) {
    case DType::kFloat64: gather<double>(view, row, begin, n, scratch); break;
    case DType::kFloat32: gather<float>(view, row, begin, n, scratch); break;
    case DType::kBFloat16: gather<BFloat16>(view, row, begin, n, scratch); break;
    case DType::kFloat16: gather<Float16>(view, row, begin, n, scratch); break;
  }
  return scratch;
}

// The value of a scalar.
template <class T>
T read_scalar(const RowView& view) {
  T scratch;
  return *read(view, 0, 0, 1, &scratch);
}

// Where a kernel stores elements before it calls write(): in place, or in scratch.
template <class T>
T* target(const RowView& view, int64_t row, int64_t begin, T* scratch) {
  return in_place<T>(view) ? address<T>(view, row, begin) : scratch;
}

template <class T>
void write(const RowView& view, int64_t row, int64_t begin, int64_t n, const T* computed) {
  if (in_place<T>(view)) return;
  switch (view.dtype) {
    case DType::kFloat64: scatter<double>(view, row, begin, n, computed); break;
    case DType::kFloat32: scatter<float>(view, row, begin, n, computed); break;
    case DType::kBFloat16: scatter<BFloat16>(view, row, begin, n, computed); break;
    case DType::kFloat16: scatter<Float16>(view, row, begin, n, computed); break;
  }
}

// Pairwise sum of n <= kChunk terms, in an order that depends only on n: every capability gives the
// same bits. Overwrites terms, an array of kChunk elements.
template <class T>
double sum_chunk(T* terms, int64_t n) {
  int64_t padded = n == kChunk ? kChunk : 1;
  while (padded < n) padded *= 2;
  for (int64_t i = n; i < padded; ++i) terms[i] = T(0);
  for (int64_t width = padded / 2; width >= 1; width /= 2) {
    VK_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) terms[i] += terms[i + width];
  }
  return n == 0 ? 0.0 : static_cast<double>(terms[0]);
}

}  // namespace
}  // namespace vaekernels::cpu
