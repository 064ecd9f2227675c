#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "autograd.h"
#include "cpu/buffer_pool.h"
#include "cpu/group_norm.h"
#include "cpu/group_norm_ops.h"

namespace vaekernels::cpu {
namespace {

constexpr int64_t kPart = 65536;      // approximate number of elements of a part
constexpr int64_t kPartMultiple = 8;  // of the number of parts, to balance the threads' load
constexpr int64_t kGrain = 4096;      // elements; waking a thread costs about as much

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The shape of x and its partition.
GroupNormShape shape_of(const at::Tensor& x, int64_t groups, bool channels_last) {
  GroupNormShape shape;
  shape.batch = x.size(0);
  shape.channels = x.size(1);
  shape.length = 1;
  for (int64_t d = 2; d < x.dim(); ++d) shape.length *= x.size(d);
  shape.groups = groups;
  shape.channels_last = channels_last;
  const int64_t most = std::max<int64_t>(1, channels_last ? kPart / shape.channels : kPart);
  const int64_t wanted =
      quotient_up(quotient_up(shape.length, most), kPartMultiple) * kPartMultiple;
  const bool whole = shape.length <= most;
  shape.segment_length =
      std::max<int64_t>(1, whole ? shape.length : quotient_up(shape.length, wanted));
  shape.segments = std::max<int64_t>(1, quotient_up(shape.length, shape.segment_length));
  if (channels_last) {
    shape.planes_per_part = shape.channels;
  } else if (shape.segments == 1) {
    shape.planes_per_part = std::max<int64_t>(1, kPart / std::max<int64_t>(1, shape.length));
  }
  shape.parts = shape.segments * quotient_up(shape.unit_channels(), shape.planes_per_part);
  return shape;
}

// channels_last in any number of dims: (N, ..., C) is contiguous.
bool is_channels_last(const at::Tensor& x) { return x.movedim(1, -1).is_contiguous(); }

bool is_dense(const at::Tensor& x) { return x.is_contiguous() || is_channels_last(x); }

// The layout to read a dense tensor in. A tensor in both layouts has one channel, or one element
// per channel.
bool reads_channels_last(const at::Tensor& x) { return is_channels_last(x) && x.size(1) > 1; }

at::Tensor to_layout(const at::Tensor& x, bool channels_last) {
  return channels_last ? x.movedim(1, -1).contiguous().movedim(-1, 1) : x.contiguous();
}

constexpr const char* kOp = "group_norm_silu";

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups) {
  check_float32({kOp, "x", x});
  check_group_norm(x, {kOp, "weight", weight}, {kOp, "bias", bias}, groups);
}

bool is_silu(const std::optional<std::string>& activation) {
  TORCH_CHECK_VALUE(!activation.has_value() || *activation == "silu",
                    "group_norm_silu: activation must be \"silu\" or None; got ",
                    activation.value_or(""));
  return activation.has_value();
}

// Runs `first` over all parts, then `merge` over their units, then `second` over all parts. If
// there are enough units for the threads, each thread computes whole units, so that `second` finds
// the data in the cache; otherwise the threads share the parts of a unit.
template <class First, class Merge, class Second>
void run(const GroupNormShape& shape, const First& first, const Merge& merge,
         const Second& second) {
  const int64_t units = shape.units(), parts = shape.parts;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t size = std::max<int64_t>(1, shape.unit_size());
  if (parts == 1 || units % threads == 0 || units >= 4 * threads) {
    at::parallel_for(0, units, quotient_up(kGrain, size), [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        first(unit * parts, (unit + 1) * parts);
        merge(unit, unit + 1);
        second(unit * parts, (unit + 1) * parts);
      }
    });
    return;
  }
  for (int64_t unit = 0; unit < units; ++unit) {
    at::parallel_for(unit * parts, (unit + 1) * parts, 1, first);
    merge(unit, unit + 1);
    at::parallel_for(unit * parts, (unit + 1) * parts, 1, second);
  }
}

void affine(const GroupNormShape& shape, const float* mean, const float* rstd, const float* weight,
            const float* bias, int64_t first_group, int64_t last_group, float* scale,
            float* shift) {
  const int64_t width = shape.group_channels();
  for (int64_t group = first_group; group < last_group; ++group) {
    const int64_t channel = group % shape.groups * width, at = group * width;
    for (int64_t c = 0; c < width; ++c) {
      const GroupNormAffine affine =
          group_norm_affine_of(mean[group], rstd[group], weight[channel + c], bias[channel + c]);
      scale[at + c] = affine.scale;
      shift[at + c] = affine.shift;
    }
  }
}

at::Tensor float64s(std::initializer_list<int64_t> sizes, const at::Tensor& like) {
  return at::empty(sizes, like.options().dtype(at::kDouble));
}

// Arguments of the statistics kernels, and the memory that these point to.
struct Statistics {
  GroupNormStatistics args;
  at::Tensor mean, rstd, moments;

  Statistics(const at::Tensor& x, const GroupNormShape& shape, double eps)
      : mean(at::empty({shape.batch, shape.groups}, x.options())),
        rstd(at::empty_like(mean)),
        moments(float64s({shape.units() * shape.parts, 2, shape.channels_last ? shape.channels : 1},
                         x)) {
    args.shape = shape;
    args.x = x.const_data_ptr<float>();
    args.eps = eps;
    args.moments = moments.mutable_data_ptr<double>();
    args.mean = mean.mutable_data_ptr<float>();
    args.rstd = rstd.mutable_data_ptr<float>();
  }
};

// Sums the gradients of weight and bias over the batch.
void sum_images(const GroupNormShape& shape, const double* sums, at::Tensor& grad_weight,
                at::Tensor& grad_bias) {
  const int64_t channels = shape.channels;
  std::vector<double> total(2 * channels);
  for (int64_t n = 0; n < shape.batch; ++n) {
    for (int64_t c = 0; c < 2 * channels; ++c) total[c] += sums[n * 2 * channels + c];
  }
  const auto store = [&](at::Tensor& grad, const double* from) {
    if (grad.numel() == 0) return;
    std::copy(from, from + channels, grad.mutable_data_ptr<float>());
  };
  store(grad_bias, total.data());
  store(grad_weight, total.data() + channels);
}

}  // namespace

void check_group_norm(const at::Tensor& x, const Argument& weight, const Argument& bias,
                      int64_t groups) {
  TORCH_CHECK_VALUE(x.dim() >= 2, weight.op, ": x must have shape (N, C, ...); got ", x.sizes());
  const int64_t channels = x.size(1);
  TORCH_CHECK_VALUE(groups > 0 && channels > 0 && channels % groups == 0, weight.op,
                    ": groups must divide the channels of x, ", channels, "; got ", groups);
  for (const Argument* argument : {&weight, &bias}) {
    check_float32(*argument);
    check_shape(*argument, {channels});
  }
}

std::tuple<at::Tensor, at::Tensor> group_norm_statistics(const at::Tensor& x, int64_t groups,
                                                         double eps) {
  const at::Tensor in = is_dense(x) ? x : x.contiguous();
  Statistics statistics(in, shape_of(in, groups, reads_channels_last(in)), eps);
  run(statistics.args.shape, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_moments, statistics.args, first, last);
  }, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_merge, statistics.args, first, last);
  }, [](int64_t, int64_t) {});
  return {statistics.mean, statistics.rstd};
}

std::tuple<at::Tensor, at::Tensor> group_norm_affine(const at::Tensor& mean, const at::Tensor& rstd,
                                                     const at::Tensor& weight,
                                                     const at::Tensor& bias) {
  GroupNormShape shape;
  shape.batch = mean.size(0);
  shape.groups = mean.size(1);
  shape.channels = weight.size(0);
  at::Tensor scale = at::empty({shape.batch, shape.channels}, mean.options());
  at::Tensor shift = at::empty_like(scale);
  const at::Tensor w = weight.contiguous(), b = bias.contiguous();
  affine(shape, mean.const_data_ptr<float>(), rstd.const_data_ptr<float>(),
         w.const_data_ptr<float>(), b.const_data_ptr<float>(), 0, shape.batch * shape.groups,
         scale.mutable_data_ptr<float>(), shift.mutable_data_ptr<float>());
  return {scale, shift};
}

at::Tensor group_norm_apply_silu(const at::Tensor& x, const at::Tensor& scale,
                                 const at::Tensor& shift) {
  at::Tensor y = pooled_empty_like(x);
  const GroupNormShape shape = shape_of(x, 1, reads_channels_last(x));
  const GroupNormApply args{shape,
                            x.const_data_ptr<float>(),
                            scale.const_data_ptr<float>(),
                            shift.const_data_ptr<float>(),
                            true,
                            y.mutable_data_ptr<float>()};
  at::parallel_for(0, shape.units() * shape.parts, 1, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_apply, args, first, last);
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_forward(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups,
    double eps, const std::optional<std::string>& activation) {
  check(x, weight, bias, groups);
  at::Tensor y = pooled_empty_like(x);
  if (x.numel() == 0) {  // as in PyTorch
    const at::Tensor mean = at::zeros({x.size(0), groups}, x.options());
    return {y, mean, at::full_like(mean, NAN)};
  }
  if (!is_dense(y)) {  // a permuted memory format
    auto [result, mean, rstd] =
        group_norm_silu_forward(x.contiguous(), weight, bias, groups, eps, activation);
    return {y.copy_(result), mean, rstd};
  }
  const bool channels_last = reads_channels_last(y);
  const at::Tensor in = to_layout(x, channels_last), w = weight.contiguous(), b = bias.contiguous();
  Statistics statistics(in, shape_of(in, groups, channels_last), eps);
  const GroupNormShape& shape = statistics.args.shape;
  at::Tensor factors = at::empty({2, shape.batch, shape.channels}, x.options());
  float* scale = factors.mutable_data_ptr<float>();
  float* shift = scale + shape.batch * shape.channels;
  const GroupNormApply args{shape, statistics.args.x,   scale,
                            shift, is_silu(activation), y.mutable_data_ptr<float>()};
  const int64_t unit_groups = channels_last ? groups : 1;
  run(shape, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_moments, statistics.args, first, last);
  }, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_merge, statistics.args, first, last);
    affine(shape, statistics.args.mean, statistics.args.rstd, w.const_data_ptr<float>(),
           b.const_data_ptr<float>(), first * unit_groups, last * unit_groups, scale, shift);
  }, [&](int64_t first, int64_t last) { VK_CPU_DISPATCH(group_norm_apply, args, first, last); });
  return {y, statistics.mean, statistics.rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_backward(
    const std::optional<at::Tensor>& grad, const at::Tensor& x, const at::Tensor& weight,
    const at::Tensor& bias, int64_t groups, double /*eps*/,
    const std::optional<std::string>& activation, const at::Tensor& mean, const at::Tensor& rstd,
    std::array<bool, 3> mask) {
  check(x, weight, bias, groups);
  TORCH_CHECK_VALUE(grad.has_value(), "group_norm_silu: grad must be a tensor; got None");
  check_float32({kOp, "grad", *grad});
  check_shape({kOp, "grad", *grad}, x.sizes());
  for (const Argument& statistics : {Argument{kOp, "mean", mean}, Argument{kOp, "rstd", rstd}}) {
    check_float32(statistics);
    check_shape(statistics, {x.size(0), groups});
  }
  const auto empty = [&](bool wanted, const at::Tensor& like) {
    return wanted ? pooled_empty_like(like) : at::empty({0}, x.options());
  };
  at::Tensor grad_x = empty(mask[0], x), grad_weight = empty(mask[1], weight),
             grad_bias = empty(mask[2], bias);
  if (x.numel() == 0) return {grad_x, grad_weight.zero_(), grad_bias.zero_()};
  const bool other_order = mask[0] && !is_dense(grad_x);
  const at::Tensor target = other_order ? at::empty_like(x, at::MemoryFormat::Contiguous) : grad_x;
  const bool channels_last = mask[0] ? reads_channels_last(target) : reads_channels_last(x);
  const at::Tensor in = to_layout(x, channels_last), upstream = to_layout(*grad, channels_last);
  const at::Tensor w = weight.contiguous(), m = mean.contiguous(), r = rstd.contiguous();
  const auto [scale, shift] = group_norm_affine(m, r, w, bias);

  GroupNormBackward args;
  const GroupNormShape shape = args.shape = shape_of(in, groups, channels_last);
  at::Tensor part_sums = float64s({shape.batch, shape.segments, 2, shape.channels}, x);
  at::Tensor sums = float64s({shape.batch, 2, shape.channels}, x);
  at::Tensor coefficients = at::empty({shape.batch, 3, shape.channels}, x.options());
  args.grad = upstream.const_data_ptr<float>();
  args.x = in.const_data_ptr<float>();
  args.weight = w.const_data_ptr<float>();
  args.mean = m.const_data_ptr<float>();
  args.rstd = r.const_data_ptr<float>();
  args.scale = scale.const_data_ptr<float>();
  args.shift = shift.const_data_ptr<float>();
  args.silu = is_silu(activation);
  args.part_sums = part_sums.mutable_data_ptr<double>();
  args.sums = sums.mutable_data_ptr<double>();
  args.coefficients = coefficients.mutable_data_ptr<float>();
  args.grad_x = mask[0] ? target.mutable_data_ptr<float>() : nullptr;
  run(shape, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_sums, args, first, last);
  }, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(group_norm_coefficients, args, first, last);
  }, [&](int64_t first, int64_t last) {
    if (mask[0]) VK_CPU_DISPATCH(group_norm_gradient, args, first, last);
  });
  sum_images(shape, args.sums, grad_weight, grad_bias);
  if (other_order) grad_x.copy_(target);
  return {grad_x, grad_weight, grad_bias};
}

TORCH_LIBRARY_IMPL(vaekernels, CPU, m) {
  m.impl("group_norm_silu", &group_norm_silu_forward);
  m.impl("group_norm_silu_backward", &group_norm_silu_backward);
}

TORCH_LIBRARY_IMPL(vaekernels, Autograd, m) { register_autograd(m, kOp); }

}  // namespace vaekernels::cpu
