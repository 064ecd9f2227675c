"""A convolution in a chain of layers: what it learns of its result saves the next one a pass.

For ``vaekernels.nn`` and ``vk.accelerate``, not public. On Triton the tiles of a product leave the
statistics of their results, from which the next normalisation is made without reading the image;
and the 1x1 convolution of a residual is one more tap. It is an op of its own, so that the public
ones keep the one result that every backend gives. Inference only: training takes the public ops,
whose backward wants the statistics for itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.definitions import LIBRARIES, STATISTICS_PARTS
from vaekernels.ops._conv import (
    autocast_dtype,
    check_conv,
    check_residual,
    empty_result,
    record_call,
    wants_gradient,
)
from vaekernels.ops._precision import conv_precision
from vaekernels.ops.conv3x3 import NormPrologue, check_norm, conv3x3
from vaekernels.ops.downsample_conv3x3 import PADDINGS, downsample_conv3x3
from vaekernels.ops.upsample_conv3x3 import upsample_conv3x3

# Filters (Co, Ci, 1, 1) and bias (Co,) of a residual.
Projection = tuple[Tensor, Tensor | None]

CHAINED = ("conv3x3", "upsample_conv3x3", "downsample_conv3x3")
_NAME = "chained_conv"
_SCHEMA = (
    "(str op, Tensor x, Tensor weight, Tensor? bias, Tensor? residual, Tensor? projection, "
    "Tensor? projection_bias, Tensor? statistics, Tensor? norm_weight, Tensor? norm_bias, "
    "int norm_groups, float norm_eps, str? padding, str precision, bool emit_statistics) "
    "-> (Tensor y, Tensor statistics)"
)


def _fake(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    projection: Tensor | None,
    projection_bias: Tensor | None,
    statistics: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_groups: int,
    norm_eps: float,
    padding: str | None,
    precision: str,
    emit_statistics: bool,
) -> tuple[Tensor, Tensor]:
    channels = weight.shape[0]
    y = empty_result(x, channels, *_size(op, x, padding))
    shape = (x.shape[0], STATISTICS_PARTS, 3, channels) if emit_statistics else (0,)
    return y, x.new_empty(shape, dtype=torch.float32 if emit_statistics else x.dtype)


def _size(op: str, x: Tensor, padding: str | None) -> list[int]:
    if op == "upsample_conv3x3":
        return [2 * side for side in x.shape[2:]]
    if padding is not None:
        return [(side + PADDINGS[padding] - 3) // 2 + 1 for side in x.shape[2:]]
    return list(x.shape[2:])


_library = LIBRARIES["vaekernels_triton"]
_library.define(_NAME + _SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
torch.library.register_fake(f"vaekernels_triton::{_NAME}", _fake, lib=_library)


def chained_conv(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    norm: NormPrologue | None = None,
    residual: Tensor | None = None,
    projection: Projection | None = None,
    padding: str | None = None,
    statistics: Tensor | None = None,
    emit_statistics: bool = False,
    precision: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The result of ``op``, and its statistics if they are requested and need no extra pass.

    Args:
        op: one of ``CHAINED``.
        x: the images.
        weight: the filters.
        bias: per channel of the result, or None.
        norm: of conv3x3.
        residual: of conv3x3.
        projection: of the residual, which then has the height and width of the result alone.
        padding: of downsample_conv3x3; None elsewhere.
        statistics: those of x from the convolution before; None: ``norm`` takes them itself.
        emit_statistics: whether to return the result's statistics, which a normalisation uses.
        precision: a tier; None is the one in force.
    """
    norm_weight, norm_bias, groups, eps = norm or (None, None, 1, 1e-6)
    filters, shift = projection or (None, None)
    tensors = (x, weight, bias, residual, filters, shift, norm_weight, norm_bias)
    gains = emit_statistics or statistics is not None or projection is not None
    if not gains or not _runs_on_triton(op, tensors):
        if residual is not None and filters is not None:
            residual = F.conv2d(residual, filters, shift)
        if op == "conv3x3":
            y = conv3x3(x, weight, bias, norm=norm, residual=residual, precision=precision)
        elif op == "upsample_conv3x3":
            y = upsample_conv3x3(x, weight, bias, precision=precision)
        else:
            sides = padding or "asymmetric"
            y = downsample_conv3x3(x, weight, bias, padding=sides, precision=precision)
        return y, None
    check_conv(op, x, weight, bias, kernel=3, smallest=3 - PADDINGS[padding] if padding else 1)
    if norm is not None:
        check_norm(norm, x)
    if residual is not None:
        if filters is not None:
            check_conv(f"{op}: projection", residual, filters, shift, kernel=1)
        channels = weight.shape[0] if filters is None else residual.shape[1]
        check_residual(op, residual, (x.shape[0], channels, *x.shape[2:]), x)
    kernel = torch.ops.vaekernels_triton.chained_conv.default
    arguments = (
        *(op, x, weight, bias, residual, filters, shift, statistics),
        *(
            norm_weight,
            norm_bias,
            groups,
            eps,
            padding,
            conv_precision(op, precision),
            emit_statistics,
        ),
    )
    if not torch.compiler.is_compiling() and registry.is_recording():
        names = [argument.name for argument in kernel._schema.arguments]
        record_call(op, dict(zip(names, arguments, strict=True)))
    y, found = kernel(*arguments)
    return y, found if emit_statistics else None


def _runs_on_triton(op: str, tensors: tuple[Tensor | None, ...]) -> bool:
    x = tensors[0]
    if not isinstance(x, Tensor) or wants_gradient(tensors) or autocast_dtype(x) is not None:
        return False
    # conv3x3 stands for all three: its kernels are in the module that has this op's.
    return registry.select("conv3x3", x.device.type, x.dtype) == "triton"
