#include "cpu/conv/library.h"

namespace vaekernels::cpu {
namespace {

struct Settings {
  int64_t stride, padding;
  bool transposed;
};

Settings settings_of(Form form) {
  switch (form) {
    case Form::kDown4x4: return {2, 1, false};
    case Form::kUp4x4: return {2, 1, true};
    case Form::kDown3x3: return {2, 0, false};
    case Form::kDown3x3Symmetric: return {2, 1, false};
    default: return {1, 1, false};
  }
}

// The tensor in unambiguous channels_last strides. With one channel or one pixel, strides can match
// both layouts, and PyTorch's convolution would choose the other one and copy.
at::Tensor channels_last(const at::Tensor& tensor) {
  const at::Tensor nhwc = tensor.contiguous(at::MemoryFormat::ChannelsLast);
  if (nhwc.suggest_memory_format() == at::MemoryFormat::ChannelsLast) return nhwc;
  const int64_t channels = nhwc.size(1), row = nhwc.size(3) * channels;
  return nhwc.as_strided(nhwc.sizes(), {nhwc.size(2) * row, 1, row, channels});
}

// Upsamples or pads x as the form requires.
at::Tensor prepared(Form form, const at::Tensor& x) {
  if (form == Form::kUpsample) {
    return at::upsample_nearest2d(x, at::IntArrayRef{2 * x.size(2), 2 * x.size(3)});
  }
  if (form == Form::kDown3x3) return at::constant_pad_nd(x, {0, 1, 0, 1});
  return x;
}

at::Tensor prepared_backward(Form form, const at::Tensor& grad, const at::Tensor& x) {
  if (form == Form::kUpsample) {
    return at::upsample_nearest2d_backward(grad, {2 * x.size(2), 2 * x.size(3)}, x.sizes());
  }
  if (form == Form::kDown3x3) {
    return grad.slice(2, 0, x.size(2)).slice(3, 0, x.size(3));
  }
  return grad;
}

}  // namespace

at::Tensor library_forward(Form form, const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias) {
  const Settings s = settings_of(form);
  return at::convolution(channels_last(prepared(form, x)), channels_last(weight), bias,
                         {s.stride, s.stride}, {s.padding, s.padding}, {1, 1}, s.transposed, {0, 0},
                         1);
}

std::array<at::Tensor, 2> library_backward(Form form, const at::Tensor& dy, const at::Tensor& x,
                                           const at::Tensor& weight, std::array<bool, 2> mask) {
  const Settings s = settings_of(form);
  auto [dx, dw, db] = at::convolution_backward(channels_last(dy), channels_last(prepared(form, x)),
                                               channels_last(weight), at::OptionalIntArrayRef(),
                                               {s.stride, s.stride}, {s.padding, s.padding}, {1, 1},
                                               s.transposed, {0, 0}, 1, {mask[0], mask[1], false});
  if (mask[0]) dx = prepared_backward(form, dx, x);
  return {dx, dw};
}

}  // namespace vaekernels::cpu
