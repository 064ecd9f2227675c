#include "cpu/conv/conv.h"

#include <ATen/Parallel.h>

#include "cpu/buffer_pool.h"
#include "cpu/checks.h"
#include "cpu/conv/epilogue.h"
#include "cpu/conv/filter_cache.h"
#include "cpu/conv/library.h"
#include "cpu/conv/scratch.h"
#include "cpu/conv/small_channels_run.h"
#include "cpu/conv/winograd_run.h"
#include "cpu/group_norm_ops.h"

namespace vaekernels::cpu {
namespace {

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast;

Activation activation_of(const char* op, std::optional<std::string_view> name) {
  if (!name.has_value()) return Activation::kNone;
  if (*name == "relu") return Activation::kRelu;
  if (*name == "leaky_relu") return Activation::kLeakyRelu;
  TORCH_CHECK_VALUE(*name == "silu", op,
                    ": activation must be relu, leaky_relu, silu or None; got ", *name);
  return Activation::kSilu;
}

Precision precision_of(const char* op, std::string_view name) {
  if (name == "high") return Precision::kHigh;
  TORCH_CHECK_VALUE(name == "highest", op, ": precision must be high or highest; got ", name);
  return Precision::kHighest;
}

bool is_transposed(Form form) { return form == Form::kUp4x4; }

void check(const ConvCall& call) {
  check_float32({call.op, "x", call.x});
  check_float32({call.op, "weight", call.weight});
  const int64_t smallest = call.form == Form::kDown4x4 || call.form == Form::kDown3x3 ? 2 : 1;
  TORCH_CHECK_VALUE(call.x.dim() == 4 && call.x.size(2) >= smallest && call.x.size(3) >= smallest,
                    call.op, ": x must have shape (N, C, H, W) with at least ", smallest,
                    " pixels each way; got ", call.x.sizes());
  const int64_t kernel = geometry(call.form).kernel, channels = call.x.size(1);
  const int64_t in = is_transposed(call.form) ? 0 : 1, out = 1 - in;
  const at::IntArrayRef w = call.weight.sizes();
  TORCH_CHECK_VALUE(w.size() == 4 && channels > 0 && w[in] == channels && w[out] > 0 &&
                        w[2] == kernel && w[3] == kernel,
                    call.op, ": weight must have ", kernel, "x", kernel, " taps and, as dimension ",
                    in, ", the ", channels, " channels of x; got ", w);
  if (!call.bias.defined()) return;
  check_float32({call.op, "bias", call.bias});
  check_shape({call.op, "bias", call.bias}, {w[out]});
}

int64_t out_channels(const ConvCall& call) {
  return call.weight.size(is_transposed(call.form) ? 1 : 0);
}

ImageSizes sizes_of(const at::Tensor& image) {
  return {image.size(0), image.size(1), image.size(2), image.size(3)};
}

ImageSizes output_sizes(const ConvCall& call) {
  const auto size = [&](int64_t n) {
    switch (call.form) {
      case Form::kUpsample:
      case Form::kUp4x4: return 2 * n;
      case Form::kDown4x4:
      case Form::kDown3x3: return (n - 2) / 2 + 1;  // kernel less padding is 2
      case Form::kDown3x3Symmetric: return (n - 1) / 2 + 1;
      default: return n;
    }
  };
  return {call.x.size(0), out_channels(call), size(call.x.size(2)), size(call.x.size(3))};
}

// Checks a tensor that has the shape of the result.
void check_image(const ConvCall& call, const char* name, const at::Tensor& image) {
  const ImageSizes y = output_sizes(call);
  check_float32({call.op, name, image});
  check_shape({call.op, name, image}, {y.batch, y.channels, y.height, y.width});
}

at::Tensor empty_image(const ImageSizes& sizes) {
  return pooled_empty({sizes.batch, sizes.channels, sizes.height, sizes.width}, kNhwc);
}

template <class Problem>
void set_sizes(Problem& conv, const ImageSizes& in, const ImageSizes& out) {
  conv.batch = in.batch;
  conv.in_channels = in.channels;
  conv.in_height = in.height;
  conv.in_width = in.width;
  conv.out_channels = out.channels;
  conv.out_height = out.height;
  conv.out_width = out.width;
}

// The Winograd problem of a form from `in` to `out`.
Convolution problem(Form form, Precision precision, const ImageSizes& in, const ImageSizes& out) {
  Convolution conv;
  conv.geometry = geometry(form);
  conv.algorithm = algorithm(form, precision);
  set_sizes(conv, in, out);
  layout(conv);
  return conv;
}

// The filters of a contiguous weight whose first dim is the output's, or the input's.
Filters filters_of(const at::Tensor& weight, bool out_first) {
  Filters filters;
  filters.w = weight.const_data_ptr<float>();
  filters.out_stride = weight.stride(out_first ? 0 : 1);
  filters.in_stride = weight.stride(out_first ? 1 : 0);
  return filters;
}

// Runs conv with the transformed filters of the weight, from the cache where that is allowed.
void run(Convolution& conv, const at::Tensor& weight, bool out_first) {
  const at::Tensor contiguous = weight.contiguous();
  const Filters filters = filters_of(contiguous, out_first);
  if (cacheable(weight)) {
    const at::Tensor u = cached_filters(weight, contiguous, conv, filters);
    conv.u = u.const_data_ptr<float>();
    convolve(conv);
    return;
  }
  float* u = scratch(Scratch::kFilters, filter_floats(conv));
  transform(conv, filters, u);
  conv.u = u;
  convolve(conv);
}

void set_prologue(Convolution& conv, const ConvCall& call) {
  if (!call.scale.defined()) return;
  conv.scale = call.scale.const_data_ptr<float>();
  conv.shift = call.shift.const_data_ptr<float>();
}

// The whole result of the prologue, where it cannot be fused.
at::Tensor prologue(const ConvCall& call, const at::Tensor& x) {
  return call.scale.defined() ? group_norm_apply_silu(x, call.scale, call.shift) : x;
}

at::Tensor forward_by_library(const ConvCall& call, const at::Tensor& x) {
  const std::optional<at::Tensor> bias =
      call.bias.defined() ? std::optional<at::Tensor>(call.bias) : std::nullopt;
  const bool keeps =
      cacheable(call.weight) && call.weight.is_contiguous() && !call.weight.is_contiguous(kNhwc);
  const at::Tensor weight = keeps ? cached_channels_last(call.weight) : call.weight;
  at::Tensor y = library_forward(call.form, prologue(call, x), weight, bias);
  y = y.contiguous(kNhwc);
  if (call.residual.defined()) y.add_(call.residual);
  switch (call.activation) {
    case Activation::kNone: return y;
    case Activation::kRelu: return y.relu_();
    case Activation::kLeakyRelu: return at::leaky_relu_(y, call.negative_slope);
    default: return at::silu_(y);
  }
}

// Returns the gradient before the activation; sets that of the bias if wants_bias.
at::Tensor epilogue_gradient(const ConvCall& call, const at::Tensor& dy, const at::Tensor& y,
                             bool wants_bias, at::Tensor& bias_gradient) {
  TORCH_CHECK_NOT_IMPLEMENTED(call.activation != Activation::kSilu, call.op,
                              ": backward of the fused silu is composed in Python");
  const bool masked = call.activation != Activation::kNone;
  if (!masked && !wants_bias) return dy;
  const at::Tensor signs = masked ? y.contiguous(kNhwc) : at::Tensor();
  EpilogueBackward args;
  args.channels = dy.size(1);
  args.rows = dy.size(0) * dy.size(2) * dy.size(3);
  args.dy = dy.const_data_ptr<float>();
  const at::Tensor g = masked ? at::empty_like(dy) : dy;
  if (masked) {
    args.y = signs.const_data_ptr<float>();
    args.leaky = call.activation == Activation::kLeakyRelu;
    args.negative_slope = call.negative_slope;
    args.g = g.mutable_data_ptr<float>();
  }
  const int64_t chunks = (args.rows + kEpilogueRows - 1) / kEpilogueRows;
  std::vector<double> sums(chunks * args.channels);
  args.sums = sums.data();
  at::parallel_for(0, chunks, 4, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(epilogue_backward, args, first, last);
  });
  if (wants_bias) {
    bias_gradient = at::empty({args.channels}, dy.options());
    float* out = bias_gradient.mutable_data_ptr<float>();
    for (int64_t c = 0; c < args.channels; ++c) {
      double sum = 0.0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += sums[chunk * args.channels + c];
      out[c] = static_cast<float>(sum);
    }
  }
  return g;
}

// The problem of a form to or from few channels, with its sizes and filters set.
SmallChannelsConvolution small_channels_problem(Method method, Form form, const ImageSizes& in,
                                                const ImageSizes& out, const Filters& filters) {
  const bool few_outputs = method == Method::kFewOutputs;
  const Geometry g = geometry(form);
  SmallChannelsConvolution conv;
  set_sizes(conv, in, out);
  conv.stride = few_outputs ? g.out_stride : g.in_stride;
  conv.padding = -std::min(g.start[0], g.start[1]);
  conv.kernel = g.kernel;
  // A convolution to few outputs is computed in its transposed form.
  conv.flipped = form == (few_outputs ? Form::kSame : Form::kSameAdjoint);
  conv.w = filters.w;
  conv.out_stride = filters.out_stride;
  conv.in_stride = filters.in_stride;
  return conv;
}

void run(Method method, const SmallChannelsConvolution& conv) {
  if (method == Method::kFewOutputs) {
    few_outputs_convolve(conv);
  } else {
    few_inputs_convolve(conv);
  }
}

at::Tensor input_gradient(const ConvCall& call, Method method, const at::Tensor& g) {
  const at::Tensor dx = empty_image(sizes_of(call.x));
  const Form form = adjoint(call.form);
  if (method != Method::kWinograd) {
    const at::Tensor weight = call.weight.contiguous();
    SmallChannelsConvolution conv = small_channels_problem(
        method, form, sizes_of(g), sizes_of(dx), filters_of(weight, is_transposed(call.form)));
    conv.x = g.const_data_ptr<float>();
    conv.y = dx.mutable_data_ptr<float>();
    run(method, conv);
    return dx;
  }
  Convolution conv = problem(form, call.precision, sizes_of(g), sizes_of(call.x));
  conv.x = g.const_data_ptr<float>();
  conv.y = dx.mutable_data_ptr<float>();
  run(conv, call.weight, is_transposed(call.form));
  return dx;
}

// The weight's gradient in the strides of the weight, as its fake declares and as in PyTorch.
at::Tensor to_layout_of_weight(const ConvCall& call, const at::Tensor& gradient) {
  if (gradient.strides() == call.weight.strides()) return gradient;
  return at::empty_like(call.weight).copy_(gradient);
}

at::Tensor filter_gradient(const ConvCall& call, const at::Tensor& x, const at::Tensor& g) {
  const at::Tensor dw = at::empty(call.weight.sizes(), call.weight.options());
  // A transposed convolution has the filters of the convolution from y to x.
  const bool transposed = is_transposed(call.form);
  const at::Tensor& in = transposed ? g : x;
  const at::Tensor& out = transposed ? x : g;
  Convolution conv = problem(transposed ? adjoint(call.form) : call.form, call.precision,
                             sizes_of(in), sizes_of(out));
  conv.x = in.const_data_ptr<float>();
  set_prologue(conv, call);
  filter_gradient(conv, out.const_data_ptr<float>(), dw.mutable_data_ptr<float>(), dw.stride(0),
                  dw.stride(1));
  return dw;
}

// As above where x or g has few channels; that one becomes the input of the computation.
at::Tensor few_inputs_gradient(const ConvCall& call, const at::Tensor& x, const at::Tensor& g) {
  const at::Tensor dw = at::empty(call.weight.sizes(), call.weight.options());
  const at::Tensor normalised = prologue(call, x);
  const bool transposed = is_transposed(call.form);
  const bool exchanged = transposed || x.size(1) > kFewChannels;
  const at::Tensor& in = exchanged ? g : normalised;
  const at::Tensor& out = exchanged ? normalised : g;
  SmallChannelsConvolution conv =
      small_channels_problem(Method::kFewInputs, exchanged ? adjoint(call.form) : call.form,
                             sizes_of(in), sizes_of(out), filters_of(dw, transposed == exchanged));
  conv.x = in.const_data_ptr<float>();
  few_inputs_filter_gradient(conv, out.const_data_ptr<float>(), dw.mutable_data_ptr<float>());
  return dw;
}

}  // namespace

ConvCall::ConvCall(Form form, const at::Tensor& x, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias,
                   std::optional<std::string_view> activation, double negative_slope,
                   std::string_view precision)
    : op(op_of(form)),
      form(form),
      x(x),
      weight(weight),
      bias(bias.value_or(at::Tensor())),
      activation(activation_of(op, activation)),
      negative_slope(static_cast<float>(negative_slope)),
      precision(precision_of(op, precision)) {
  check(*this);
}

Plan plan_of(const ConvCall& call, Direction direction) {
  return plan_of(call, direction, cacheable(call.weight));
}

Plan plan_of(const ConvCall& call, Direction direction, bool filters_ready) {
  return plan(call.form, direction, sizes_of(call.x), output_sizes(call), call.precision,
              filters_ready);
}

at::Tensor conv_forward(const ConvCall& call) {
  if (call.residual.defined()) check_image(call, "residual", call.residual);
  const at::Tensor input = call.x.contiguous(kNhwc);
  const Method method =
      input.numel() == 0 ? Method::kLibrary : plan_of(call, Direction::kForward).method;
  if (method == Method::kLibrary) return forward_by_library(call, input);

  const at::Tensor y = empty_image(output_sizes(call));
  const at::Tensor bias = call.bias.defined() ? call.bias.contiguous() : call.bias;
  const at::Tensor residual =
      call.residual.defined() ? call.residual.contiguous(kNhwc) : call.residual;
  const auto set_epilogue = [&](auto& conv) {
    if (bias.defined()) conv.bias = bias.const_data_ptr<float>();
    if (residual.defined()) conv.residual = residual.const_data_ptr<float>();
    conv.activation = call.activation;
    conv.negative_slope = call.negative_slope;
  };
  const bool out_first = !is_transposed(call.form);
  if (method != Method::kWinograd) {
    const at::Tensor x = prologue(call, input), weight = call.weight.contiguous();
    SmallChannelsConvolution conv = small_channels_problem(
        method, call.form, sizes_of(x), sizes_of(y), filters_of(weight, out_first));
    conv.x = x.const_data_ptr<float>();
    conv.y = y.mutable_data_ptr<float>();
    set_epilogue(conv);
    run(method, conv);
    return y;
  }
  Convolution conv = problem(call.form, call.precision, sizes_of(input), sizes_of(y));
  conv.x = input.const_data_ptr<float>();
  conv.y = y.mutable_data_ptr<float>();
  set_epilogue(conv);
  set_prologue(conv, call);
  run(conv, call.weight, out_first);
  return y;
}

ConvGradients conv_backward(const ConvCall& call, const std::optional<at::Tensor>& dy,
                            const at::Tensor& y, std::array<bool, 4> mask) {
  TORCH_CHECK_VALUE(dy.has_value(), call.op, ": grad must be a tensor; got None");
  check_image(call, "grad", *dy);
  check_image(call, "y", y);
  if (call.residual.defined()) check_image(call, "residual", call.residual);
  const auto none = [&] { return at::empty({0}, call.x.options()); };
  ConvGradients grads{none(), none(), none(), none()};
  const at::Tensor g = epilogue_gradient(call, dy->contiguous(kNhwc), y, mask[2], grads.bias);
  // A result of an op must not be its argument.
  if (mask[3]) grads.residual = g.is_alias_of(*dy) ? g.clone() : g;

  const auto method_of = [&](Direction direction) {
    return call.x.numel() == 0 ? Method::kLibrary : plan_of(call, direction).method;
  };
  const Method method_x = method_of(Direction::kInputGradient);
  const Method method_w = method_of(Direction::kFilterGradient);
  const at::Tensor x = call.x.contiguous(kNhwc);
  const std::array<bool, 2> by_library = {mask[0] && method_x == Method::kLibrary,
                                          mask[1] && method_w == Method::kLibrary};
  if (by_library[0] || by_library[1]) {
    const at::Tensor input = by_library[1] ? prologue(call, x) : x;
    auto [dx, dw] = library_backward(call.form, g, input, call.weight, by_library);
    if (by_library[0]) grads.x = dx.contiguous(kNhwc);
    if (by_library[1]) grads.weight = dw;
  }
  if (mask[0] && !by_library[0]) grads.x = input_gradient(call, method_x, g);
  if (mask[1] && !by_library[1]) {
    const bool few_inputs = method_w == Method::kFewInputs;
    grads.weight = few_inputs ? few_inputs_gradient(call, x, g) : filter_gradient(call, x, g);
  }
  if (mask[1]) grads.weight = to_layout_of_weight(call, grads.weight);
  return grads;
}

}  // namespace vaekernels::cpu
