"""What accelerate must not fuse: attributes that an op does not know keep their effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk

X = torch.randn(2, 16, 10, 10, generator=torch.Generator().manual_seed(1))


def conv(*args: Any, **kwargs: Any) -> nn.Module:
    return nn.Conv2d(16, 16, *args, **kwargs)


def transposed(*args: Any, **kwargs: Any) -> nn.Module:
    return nn.ConvTranspose2d(16, 16, *args, **kwargs)


NARROW = {"kernel_size": 3, "stride": 2}
# Each differs in one attribute from a layer or a chain that is fused.
LAYERS: dict[str, Callable[[], list[nn.Module]]] = {
    "dilation": lambda: [conv(3, padding=1, dilation=2)],
    "dilation of one side": lambda: [conv(3, padding=1, dilation=(1, 2))],
    "groups": lambda: [conv(3, padding=1, groups=2)],
    "padding": lambda: [conv(3, padding=2)],
    "paddings": lambda: [conv(3, padding=(1, 0))],
    "no padding": lambda: [conv(3)],
    "strides": lambda: [conv(3, stride=(1, 2), padding=1)],
    "stride": lambda: [conv(3, stride=3, padding=1)],
    "kernel": lambda: [conv((3, 1), padding=1)],
    "4x4, same": lambda: [conv(4, padding="same")],
    "4x4, padding": lambda: [conv(4, 2, 2)],
    "4x4, dilation": lambda: [conv(4, 2, 1, dilation=2)],
    **{
        f"3x3, {mode}": lambda mode=mode: [conv(3, padding=1, padding_mode=mode)]
        for mode in ("reflect", "replicate", "circular")
    },
    "transposed, dilation": lambda: [transposed(4, 2, 1, dilation=2)],
    "transposed, groups": lambda: [transposed(4, 2, 1, groups=4)],
    "transposed, output padding": lambda: [transposed(4, 2, 1, output_padding=1)],
    "transposed, stride": lambda: [transposed(4, 1, 1)],
    "transposed, kernel": lambda: [transposed(3, 2, 1)],
    "pad value": lambda: [nn.ConstantPad2d((0, 1, 0, 1), 1.0), conv(**NARROW)],
    "pad sides": lambda: [nn.ZeroPad2d((1, 0, 1, 0)), conv(**NARROW)],
    "pad of all sides": lambda: [nn.ZeroPad2d(1), conv(**NARROW)],
    "pad before stride 1": lambda: [nn.ZeroPad2d((0, 1, 0, 1)), conv(3, padding=1)],
    "pad, then padding": lambda: [nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 2, 1)],
    "reflection": lambda: [nn.ReflectionPad2d((0, 1, 0, 1)), conv(**NARROW)],
    "upsampling by 3": lambda: [nn.Upsample(scale_factor=3), conv(3, padding=1)],
    "upsampling of a side": lambda: [nn.Upsample(scale_factor=(2, 1)), conv(3, padding=1)],
    "upsampling to a size": lambda: [nn.Upsample(size=(21, 20)), conv(3, padding=1)],
    "bilinear": lambda: [nn.Upsample(scale_factor=2, mode="bilinear"), conv(3, padding=1)],
    "negative slope": lambda: [conv(3, padding=1), nn.LeakyReLU(-0.5)],
    "steep slope": lambda: [conv(3, padding=1), nn.LeakyReLU(1.5)],
    "slope": lambda: [conv(3, padding=1), nn.LeakyReLU(0.25)],
    "no affine": lambda: [nn.GroupNorm(4, 16, affine=False), nn.SiLU(), conv(3, padding=1)],
    "no bias of a norm": lambda: [nn.GroupNorm(4, 16, bias=False), nn.SiLU(), conv(3, padding=1)],
    "eps": lambda: [nn.GroupNorm(4, 16, eps=0.5), nn.SiLU(), conv(3, padding=1)],
    "eps of 0": lambda: [nn.GroupNorm(4, 16, eps=0.0), nn.SiLU(), conv(3, padding=1)],
    "other activation": lambda: [nn.GroupNorm(4, 16), nn.GELU(), conv(3, padding=1)],
    "no bias": lambda: [nn.GroupNorm(4, 16), nn.SiLU(), conv(3, padding=1, bias=False)],
    "relu before": lambda: [nn.GroupNorm(4, 16), nn.ReLU(), conv(3, padding=1)],
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_attributes_keep_their_effect(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*LAYERS[name]())
    expected = model(X)
    with vk.accelerate(model):
        got = model(X)
        alone = [layer(X) for layer in model]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)
    for y, layer in zip(alone, model, strict=True):
        torch.testing.assert_close(y, layer(X), rtol=1e-4, atol=2e-5)


FUNCTIONS: dict[str, Callable[[nn.Conv2d, Tensor], Tensor]] = {
    "pad value": lambda narrow, x: narrow(F.pad(x, (0, 1, 0, 1), value=1.0)),
    "pad mode": lambda narrow, x: narrow(F.pad(x, (0, 1, 0, 1), "replicate")),
    "pad sides": lambda narrow, x: narrow(F.pad(x, (1, 0, 1, 0))),
    "alpha": lambda narrow, x: torch.add(narrow(x), narrow(x), alpha=2),
    "scalar": lambda narrow, x: narrow(x) + 1.0,
    "halved": lambda narrow, x: narrow(x) / 2,
    "slope": lambda narrow, x: F.leaky_relu(narrow(x), 0.25),
    "negative slope": lambda narrow, x: F.leaky_relu(narrow(x), -0.5),
    "another gate": lambda narrow, x: narrow(x) * torch.sigmoid(narrow(x) * 2),
    "interpolation": lambda narrow, x: narrow(F.interpolate(x, scale_factor=1.5)),
    "interpolation mode": lambda narrow, x: narrow(F.interpolate(x, None, 2, "bilinear")),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("layer", [{"stride": 2}, {"padding": 1}], ids=str)
@torch.no_grad()
def test_arguments_keep_their_effect(name: str, layer: dict[str, int]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(16, 16, 3, **layer)

        def forward(self, x: Tensor) -> Tensor:
            return function(self.layer, x)

    function = FUNCTIONS[name]
    model = Model()
    expected = model(X)
    with vk.accelerate(model):
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=2e-5)


HOOKS: dict[str, Callable[[nn.Module, Callable[..., None]], Any]] = {
    "forward": lambda layer, hook: layer.register_forward_hook(hook),
    "forward, pre": lambda layer, hook: layer.register_forward_pre_hook(hook),
    "forward, always": lambda layer, hook: layer.register_forward_hook(hook, always_call=True),
    "backward": lambda layer, hook: layer.register_full_backward_hook(hook),
    "backward, pre": lambda layer, hook: layer.register_full_backward_pre_hook(hook),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_each_kind_of_hook_sees_each_layer(kind: str) -> None:
    model = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), conv(3, padding=1), nn.ReLU())
    seen: list[nn.Module] = []
    for layer in model:
        seen.clear()
        hook = HOOKS[kind](layer, lambda module, *others: seen.append(module))
        with vk.accelerate(model):
            model(X.clone().requires_grad_()).sum().backward()
        hook.remove()
        assert seen == [layer]


@pytest.mark.parametrize("shape", [(1, 16), (1, 16, 1), (1, 16, 1, 1), (2, 16, 1, 1), (16,)])
@pytest.mark.parametrize("groups", [16, 4])
def test_a_norm_refuses_what_pytorch_refuses(shape: tuple[int, ...], groups: int) -> None:
    x = torch.randn(shape)
    for layers in ([], [nn.SiLU(), conv(3, padding=1)]):
        model = nn.Sequential(nn.GroupNorm(groups, 16), *layers)
        results = []
        for accelerated in (False, True):
            if accelerated:
                vk.accelerate(model)
            try:
                results.append(model(x))
            except (ValueError, RuntimeError) as error:
                results.append(str(error))
        expected, got = results
        if isinstance(expected, str):
            assert got == expected
        else:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
