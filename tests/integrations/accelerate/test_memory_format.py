"""channels_last results go where they are read as fast, and a slow dtype is said."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk
from tests.integrations.accelerate.models import (
    DIFFUSERS,
    diffusers_model,
    images,
    needs_kernels,
    result,
)
from vaekernels.integrations.accelerate import plan as planning
from vaekernels.integrations.accelerate.report import report
from vaekernels.runtime import nonfinite_policy


class Wrapped(nn.Module):
    """Calls a layer in a forward of its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(F.relu(x)))


ours = nn.Conv2d(16, 16, 3, padding=1)
# What follows on a convolution of ours -> whether it is given channels_last images.
FOLLOWING: dict[str, tuple[nn.Module, bool]] = {
    "5x5": (nn.Conv2d(16, 16, 5), False),
    "groups": (nn.Conv2d(16, 16, 3, padding=1, groups=16), False),
    "dilation": (nn.Conv2d(16, 16, 3, padding=2, dilation=2), False),
    "transposed": (nn.ConvTranspose2d(16, 16, 3), False),
    "1x1 with stride": (nn.Conv2d(16, 16, 1, 2), False),
    "1x1": (nn.Conv2d(16, 16, 1), True),
    "ours": (ours, True),
    "batch norm": (nn.BatchNorm2d(16), True),
    "wrapped 5x5": (Wrapped(nn.Conv2d(16, 16, 5)), False),
    "1x1, then 5x5": (nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 5)), False),
    "ours, then 5x5": (nn.Sequential(ours, nn.ReLU(), nn.Conv2d(16, 16, 5)), True),
    "wrapped ours": (Wrapped(ours), True),
}


@needs_kernels
@pytest.mark.parametrize("name", FOLLOWING)
@torch.no_grad()
def test_convolutions_of_pytorch_read_contiguous_images(name: str) -> None:
    layer, is_last = FOLLOWING[name]
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Mish(), layer).eval()
    x = torch.randn(1, 16, 12, 12)
    expected, seen = model(x), []
    with vk.accelerate(model):
        hook = model[2].register_forward_hook(lambda module, args, y: seen.append(args[0].clone()))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        hook.remove()
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is is_last
    assert seen[0].is_contiguous() is not is_last


@pytest.mark.parametrize("name", DIFFUSERS)
def test_layouts_inside_of_diffusers_models_stay(name: str) -> None:
    """Nothing there is slowed: all convolutions but 1x1 are ours, alone or behind a padding."""
    plan = planning.ModelPlan(diffusers_model(name))
    ours = {layer.path for layer in report(plan).accelerated}
    assert {p.path for p in plan.plans.values() if plan._is_slowed(p.module)} <= ours


def test_float16_on_a_cpu_is_said_once() -> None:
    nonfinite_policy._warn_about_slowness.cache_clear()
    model = diffusers_model("AutoencoderTiny")
    vk.accelerate(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result(model, images(model))
    model.half()
    with pytest.warns(
        UserWarning, match=r"accelerate: torch.float16 on the CPU .* model.float\(\)"
    ):
        result(model, images(model).half())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result(model, images(model).half())
    nonfinite_policy._warn_about_slowness.cache_clear()
    with pytest.warns(UserWarning, match="accelerate: torch.float16 on the CPU"):
        vk.accelerate(model)
