// A tensor seen as rows (dim 0) of elements in row-major logical order, whatever its strides and
// dtype. Kernels read and write it in chunks of the type they compute in; where the memory already
// is such a chunk they get it in place.
//
// No torch header here: this file is compiled once per CPU capability, and inline functions shared
// with code compiled for another capability would be merged by the linker.
#pragma once

#include <cstdint>

#include "common/half.h"
#include "common/rows.h"

namespace vaekernels::cpu {

constexpr int kChunk = 256;  // elements; a few chunks of float fit into the L1 cache

struct Rows {
  char* data = nullptr;  // nullptr: absent
  Kind kind = Kind::kFloat32;
  int64_t row_stride = 0;  // in elements, as all strides
  int dims = 0;            // event dims after merging those that are contiguous
  int64_t sizes[kMaxEventDims] = {};
  int64_t strides[kMaxEventDims] = {};

  bool present() const { return data != nullptr; }
  bool is_number() const { return dims == 0 && row_stride == 0; }
  bool dense() const { return dims == 0 || (dims == 1 && strides[0] == 1); }
};

// Everything below is inlined into the kernels of one capability.
namespace {

template <class T>
struct KindOf;
template <>
struct KindOf<float> {
  static constexpr Kind value = Kind::kFloat32;
};
template <>
struct KindOf<double> {
  static constexpr Kind value = Kind::kFloat64;
};

// Calls body(offset, stride, count, done) for each run along the innermost dim that covers the
// elements [begin, begin + n) of a row; offsets count from the row's start.
template <class Body>
VK_INLINE void for_each_run(const Rows& rows, int64_t begin, int64_t n, Body body) {
  if (rows.dims <= 1) {
    const int64_t stride = rows.dims == 0 ? 0 : rows.strides[0];
    body(begin * stride, stride, n, int64_t(0));
    return;
  }
  const int inner = rows.dims - 1;
  int64_t index[kMaxEventDims];
  int64_t rest = begin;
  for (int d = inner; d >= 0; --d) {
    index[d] = rest % rows.sizes[d];
    rest /= rows.sizes[d];
  }
  for (int64_t done = 0; done < n;) {
    int64_t offset = 0;
    for (int d = 0; d <= inner; ++d) offset += index[d] * rows.strides[d];
    const int64_t left = rows.sizes[inner] - index[inner];
    const int64_t count = left < n - done ? left : n - done;
    body(offset, rows.strides[inner], count, done);
    done += count;
    index[inner] = 0;
    for (int d = inner - 1; d >= 0; --d) {
      if (++index[d] < rows.sizes[d]) break;
      index[d] = 0;
    }
  }
}

template <class Element, class T>
VK_INLINE void gather(const Rows& rows, int64_t row, int64_t begin, int64_t n, T* out) {
  const Element* base = reinterpret_cast<const Element*>(rows.data) + row * rows.row_stride;
  for_each_run(rows, begin, n, [&](int64_t offset, int64_t stride, int64_t count, int64_t done) {
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
VK_INLINE void scatter(const Rows& rows, int64_t row, int64_t begin, int64_t n, const T* in) {
  Element* base = reinterpret_cast<Element*>(rows.data) + row * rows.row_stride;
  for_each_run(rows, begin, n, [&](int64_t offset, int64_t stride, int64_t count, int64_t done) {
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
VK_INLINE bool in_place(const Rows& rows) {
  return rows.dense() && rows.kind == KindOf<T>::value;
}

template <class T>
VK_INLINE T* address(const Rows& rows, int64_t row, int64_t begin) {
  return reinterpret_cast<T*>(rows.data) + row * rows.row_stride + (rows.dims == 0 ? 0 : begin);
}

// The elements [begin, begin + n) of a row as T: in place, or converted into scratch.
template <class T>
const T* read(const Rows& rows, int64_t row, int64_t begin, int64_t n, T* scratch) {
  if (in_place<T>(rows) && rows.dims == 1) return address<T>(rows, row, begin);
  switch (rows.kind) {
    case Kind::kFloat64: gather<double>(rows, row, begin, n, scratch); break;
    case Kind::kFloat32: gather<float>(rows, row, begin, n, scratch); break;
    case Kind::kBFloat16: gather<BFloat16>(rows, row, begin, n, scratch); break;
    case Kind::kFloat16: gather<Float16>(rows, row, begin, n, scratch); break;
  }
  return scratch;
}

// The one element of a tensor that is a number.
template <class T>
T number(const Rows& rows) {
  T scratch;
  return *read(rows, 0, 0, 1, &scratch);
}

// Where a kernel puts the elements that it then hands to write(): in place, or scratch.
template <class T>
T* target(const Rows& rows, int64_t row, int64_t begin, T* scratch) {
  return in_place<T>(rows) ? address<T>(rows, row, begin) : scratch;
}

template <class T>
void write(const Rows& rows, int64_t row, int64_t begin, int64_t n, const T* computed) {
  if (in_place<T>(rows)) return;
  switch (rows.kind) {
    case Kind::kFloat64: scatter<double>(rows, row, begin, n, computed); break;
    case Kind::kFloat32: scatter<float>(rows, row, begin, n, computed); break;
    case Kind::kBFloat16: scatter<BFloat16>(rows, row, begin, n, computed); break;
    case Kind::kFloat16: scatter<Float16>(rows, row, begin, n, computed); break;
  }
}

// Sum of n <= kChunk terms by halving, in an order that depends on n alone: every capability gives
// the same bits. Clobbers terms, which has room for kChunk.
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
