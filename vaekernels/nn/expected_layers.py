"""Conditions under which a step may use the parameters of a layer instead of calling it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from vaekernels.nn.unmodified import convolution_geometry, may_run_by_parameters

Form = Callable[[nn.Module], bool]
# A layer that is not called, and the condition for that.
Used = tuple[nn.Module, Form]


def is_form(used: Used) -> bool:
    """Whether the layer meets its condition."""
    layer, form = used
    return form(layer)


def conv_form(kernel: int, stride: int = 1, padding: int = 0) -> Form:
    """The condition that a layer is a convolution of this geometry, in both directions."""

    def is_conv(layer: nn.Module) -> bool:
        return (
            may_run_by_parameters(layer, nn.Conv2d)
            and isinstance(layer, nn.Conv2d)
            and convolution_geometry(layer) == (kernel, stride, padding)
        )

    return is_conv


is_conv1x1 = conv_form(1)
is_conv3x3 = conv_form(3, padding=1)


def is_group_norm(layer: nn.Module) -> bool:
    """Whether ``layer`` is a GroupNorm that the ops support: with scale and shift."""
    return (
        may_run_by_parameters(layer, nn.GroupNorm)
        and isinstance(layer, nn.GroupNorm)
        and layer.weight is not None
        and layer.bias is not None
        and layer.eps > 0
    )


def is_linear(layer: nn.Module) -> bool:
    """Whether ``layer`` is an unmodified ``nn.Linear``."""
    return may_run_by_parameters(layer, nn.Linear)


def is_relu(layer: nn.Module) -> bool:
    """Whether ``layer`` is an unmodified ``nn.ReLU``."""
    return may_run_by_parameters(layer, nn.ReLU)


def is_doubling(layer: nn.Module) -> bool:
    """Whether ``layer`` is nearest-neighbour upsampling by 2."""
    return (
        may_run_by_parameters(layer, nn.Upsample)
        and isinstance(layer, nn.Upsample)
        and layer.size is None
        and layer.scale_factor in (2.0, (2.0, 2.0))
        and layer.mode == "nearest"
    )


def _is_silu(layer: nn.Module) -> bool:
    return may_run_by_parameters(layer, nn.SiLU)


def _is_leaky_relu(layer: nn.Module) -> bool:
    return may_run_by_parameters(layer, nn.LeakyReLU)


def _is_padding(layer: nn.Module) -> bool:
    return may_run_by_parameters(layer, nn.ZeroPad2d)


# Functions of torch.nn.functional that forwards call. Layers that call the same functions stand for
# them, so that a patch of torch.nn.functional is detected.
SILU: Used = (nn.SiLU(), _is_silu)
RELU: Used = (nn.ReLU(), is_relu)
LEAKY_RELU: Used = (nn.LeakyReLU(), _is_leaky_relu)
INTERPOLATE: Used = (nn.Upsample(scale_factor=2), is_doubling)
PAD: Used = (nn.ZeroPad2d(1), _is_padding)


def is_sequence(layer: nn.Module) -> bool:
    """Whether ``layer`` is an unmodified ``nn.Sequential``."""
    return may_run_by_parameters(layer, nn.Sequential)


def sequence(layers: nn.Sequential, *forms: Form) -> Iterator[Used]:
    """The conditions that ``layers`` has exactly these layers, in order."""
    yield layers, is_sequence
    yield layers, lambda _: len(layers) == len(forms)
    yield from zip(layers, forms, strict=True)
