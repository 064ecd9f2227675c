"""diffusers' ``Attention`` by this package's attention, where PyTorch has no fast kernel for it.

``Attention`` delegates its forward to a replaceable processor object, so it cannot be traced. The
computation of its default processor is known; each call checks that this processor is in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.integrations.accelerate.memory_format import is_supported_input
from vaekernels.nn.unmodified import forward_of_class, original_class
from vaekernels.ops._attention import attend, prefers_rows

_MODULE = "diffusers.models.attention_processor"
_MUST_BE_NONE = ("spatial_norm", "norm_q", "norm_k")  # autoencoders have none of them


def is_attention(kind: type[nn.Module]) -> bool:
    """Whether ``kind`` has the forward of diffusers' ``Attention``."""
    forward = forward_of_class(kind)
    name = f"{getattr(forward, '__module__', '')}.{getattr(forward, '__qualname__', '')}"
    return name == f"{_MODULE}.Attention.forward"


def forward_of(own: Callable[..., Any]) -> Callable[..., Any]:
    """``own``, the forward of an ``Attention``, computed by :func:`attend` where that applies."""

    @functools.wraps(own)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and all(value is None for value in kwargs.values()):
            (x,) = args
            supported = is_supported_input(x) and x.ndim == 4 and not torch.is_grad_enabled()
            if supported and _is_replaceable(self, x):
                return _over_pixels(self, x)
        return own(self, *args, **kwargs)

    return forward


def _is_replaceable(module: Any, x: Tensor) -> bool:
    processor = type(module.processor)
    return (
        is_attention(original_class(module))
        and f"{processor.__module__}.{processor.__qualname__}" == f"{_MODULE}.AttnProcessor2_0"
        and module.heads == 1
        and module.group_norm is not None
        and all(getattr(module, name) is None for name in _MUST_BE_NONE)
        and prefers_rows(x, module.to_q.out_features)
    )


def _over_pixels(module: Any, x: Tensor) -> Tensor:
    """What the processor computes; all children are called, so that hooks on them run."""
    tokens = module.group_norm(x.flatten(2)).transpose(1, 2)
    y = attend(module.to_q(tokens), module.to_k(tokens), module.to_v(tokens))
    for layer in module.to_out:
        y = layer(y)
    y = y.transpose(1, 2).unflatten(2, x.shape[2:])
    if module.residual_connection:
        y = y + x
    return y if module.rescale_output_factor == 1 else y / module.rescale_output_factor
