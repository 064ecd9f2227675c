"""diffusers' attention by ours, where PyTorch has no fast kernel for its head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaekernels as vk
from vaekernels.bench.op_inputs import error
from vaekernels.integrations.accelerate import attention

attention_processor = pytest.importorskip("diffusers.models.attention_processor")


class Block(nn.Module):
    """Calls its attention as diffusers' blocks do."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        settings = {"heads": 1, "dim_head": 32, "norm_num_groups": 4, "residual_connection": True}
        self.attention = attention_processor.Attention(32, **(settings | {"bias": True} | options))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, temb=None)


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The queries that ours was called with, on a device whose kernels take no head of 32."""
    done: list[Tensor] = []
    attend = attention.attend

    def recorded(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        done.append(queries)
        return attend(queries, keys, values)

    monkeypatch.setattr(attention, "prefers_rows", lambda like, channels: channels >= 32)
    monkeypatch.setattr(attention, "attend", recorded)
    return done


X = torch.randn(2, 32, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize(
    "options", ({}, {"residual_connection": False}, {"rescale_output_factor": 2.0}), ids=str
)
def test_over_pixels(attended: list[Tensor], options: dict[str, Any], layout: Any) -> None:
    model, x = Block(**options).eval(), X.contiguous(memory_format=layout)
    with torch.no_grad():
        expected = model(x)
        with vk.accelerate(model):
            y = model(x)
    assert len(attended) == 1
    assert attended[0].is_contiguous()
    assert error(y, expected) <= 1e-6
    assert y.is_contiguous(memory_format=layout)  # the original's always are channels_last


@pytest.mark.parametrize(
    ("options", "gradients"),
    [
        ({"heads": 2}, False),
        ({"norm_num_groups": None}, False),
        ({"qk_norm": "layer_norm"}, False),
        ({"dim_head": 16}, False),
        ({"processor": "AttnProcessor"}, False),
        ({}, True),
    ],
)
def test_everything_else_is_the_originals(
    attended: list[Tensor], options: dict[str, Any], gradients: bool
) -> None:
    if "processor" in options:
        options = {"processor": getattr(attention_processor, options["processor"])()}
    model = Block(**options).eval()
    with torch.set_grad_enabled(gradients):
        expected = model(X)
        with vk.accelerate(model):
            y = model(X)
    assert not attended
    assert error(y, expected) <= 1e-6


def test_what_is_changed_afterwards_counts(attended: list[Tensor]) -> None:
    """Another processor, a mask, a hook on a layer."""
    model, seen = Block().eval(), []
    with torch.no_grad(), vk.accelerate(model):
        model.attention.to_v.register_forward_hook(lambda layer, args, y: seen.append(y))
        model(X)
        assert len(attended) == len(seen) == 1
        model.attention.set_processor(attention_processor.AttnProcessor())
        model(X)
        assert len(attended) == 1
        model.attention.set_processor(attention_processor.AttnProcessor2_0())
        tokens = X.flatten(2).transpose(1, 2)
        model.attention(tokens)
        model.attention(X, attention_mask=torch.zeros(2, 1, 30))
    assert len(attended) == 1
