// Tensors for exercise.cpp: heap buffers that end with their last element.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "cuda/kernels.h"

namespace exercise {

using vaekernels::DType;
using vaekernels::cuda::RowView;
using vaekernels::cuda::ViewKind;

constexpr char kUnwritten = '\xFF';  // NaN in every dtype
constexpr char kInput = 0x3C;        // 0.01 to 1.1, in float64 1e-18

inline size_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

class HeapTensor {
 public:
  // Dense rows start at multiples of 16 bytes. Strided ones are transposed where their length
  // allows it, else every other element.
  HeapTensor(DType dtype, int64_t rows, int64_t length, bool strided, char fill) : rows_(rows) {
    view.dtype = dtype;
    view.kind = strided ? ViewKind::kStrided : ViewKind::kDense;
    const bool transposed = strided && length % 3 == 0;
    view.dims = transposed ? 2 : 1;
    view.sizes[0] = transposed ? length / 3 : length;
    view.sizes[1] = transposed ? 3 : 1;
    view.strides[0] = strided && !transposed ? 2 : 1;
    view.strides[1] = view.sizes[0];
    view.row_stride = (length * view.strides[0] + 7) / 8 * 8;
    for_each_offset([&](size_t offset) { bytes_ = std::max(bytes_, offset + size_of(dtype)); });
    memory_ = std::make_unique<char[]>(bytes_);
    std::memset(memory_.get(), fill, bytes_);
    view.data = memory_.get();
  }

  // Whether every element was written and nothing between them; forgets it.
  bool written() {
    const auto unwritten = [](char byte) { return byte == kUnwritten; };
    bool all = true;
    for_each_offset([&](size_t offset) {
      char* const element = memory_.get() + offset;
      all = all && !std::all_of(element, element + size_of(view.dtype), unwritten);
      std::memset(element, kUnwritten, size_of(view.dtype));
    });
    return all && std::all_of(memory_.get(), memory_.get() + bytes_, unwritten);
  }

  RowView view;

 private:
  template <class Body>
  void for_each_offset(const Body& body) const {
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t i = 0; i < view.sizes[0]; ++i) {
        for (int64_t j = 0; j < view.sizes[1]; ++j) {
          const int64_t element = row * view.row_stride + i * view.strides[0] + j * view.strides[1];
          body(element * size_of(view.dtype));
        }
      }
    }
  }

  int64_t rows_;
  size_t bytes_ = 0;
  std::unique_ptr<char[]> memory_;
};

}  // namespace exercise
