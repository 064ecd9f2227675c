"""Generated modules and forwards, accelerated: what a plain run gives in float64, within the bound.

``VAEKERNELS_FUZZ=N`` runs N models instead of a few; each has its seed in its name.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk

MODELS = int(os.environ.get("VAEKERNELS_FUZZ", "40"))
CHANNELS = 8


def _layer(pick: random.Random) -> nn.Module:
    """One that keeps the channels."""
    c = CHANNELS
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.Conv2d(c, c, 3, padding=1, bias=pick.random() < 0.7),
        lambda: nn.Conv2d(c, c, 3, padding=pick.choice((1, "same", 0)), groups=pick.choice((1, 2))),
        lambda: nn.Conv2d(c, c, 3, padding=2, dilation=2),
        lambda: nn.Conv2d(c, c, 3, padding=1, padding_mode=pick.choice(("circular", "reflect"))),
        lambda: nn.Conv2d(c, c, 3, stride=2, padding=1),
        lambda: nn.Conv2d(c, c, 4, 2, 1),
        lambda: nn.Conv2d(c, c, 1, stride=pick.choice((1, 1, 2))),
        lambda: nn.Conv2d(c, c, 5, padding=2),
        lambda: nn.ConvTranspose2d(c, c, 4, 2, 1),
        lambda: nn.ConvTranspose2d(c, c, 3, 2, 1),
        lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(c, c, 3, 2)),
        lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(c, c, 3, padding=1)),
        lambda: nn.GroupNorm(pick.choice((1, 2, 4, 8)), c, eps=pick.choice((1e-6, 1e-2))),
        lambda: nn.GroupNorm(2, c, affine=False),
        lambda: nn.BatchNorm2d(c),
        nn.SiLU,
        lambda: nn.ReLU(inplace=pick.random() < 0.3),
        lambda: nn.LeakyReLU(pick.choice((0.01, 0.2, -0.5, 1.5))),
        nn.GELU,
        nn.Identity,
        lambda: nn.Dropout(pick.choice((0.0, 0.5))),
        lambda: nn.ConstantPad2d((0, 1, 0, 1), pick.choice((0.0, 1.0))),
        lambda: nn.AvgPool2d(3, 1, 1),
    ]
    return pick.choice(kinds)()


# What a forward may do around its layers; n is a number or None.
_STEPS = (
    *("x = self.{0}(x)", "x = self.{0}(x)", "x = self.{0}(x)", "x = x + self.same(x)"),
    *("x = F.silu(self.{0}(x))", "x = F.relu(self.norm(x))", "x = self.same(F.silu(self.norm(x)))"),
    *("h = self.norm(x); x = self.same(h * torch.sigmoid(h)) + x", "x = self.same(x) + 1"),
    *("x = F.leaky_relu(self.same(x), 0.3)", "x = self.same(F.interpolate(x, scale_factor=2.0))"),
    *("x = self.narrow(F.pad(x, (0, 1, 0, 1)))", "x = self.narrow(F.pad(x, (1, 0, 1, 0)))"),
    *("x = x * (1 if n is None else n)", "x = x / self.divisor", "x = x.clone().mul_(0.5)"),
    *(
        "x += self.same(x)",
        "x = torch.add(self.same(x), x, alpha=2)",
        "x = self.same(x) + x.mean()",
    ),
    *("b, c, h, w = x.shape; x = x.view(b, c, h * w).flip(2).reshape(b, c, h, w)",),
    *("x = x.permute(0, 1, 3, 2).contiguous()", "x = torch.cat((x, x), 1)[:, ::2]"),
    *(
        "x = self.same(x.contiguous()) - x",
        "x = x if x.shape[0] else -x",
        "x = F.conv2d(x, WEIGHT)",
    ),
    *("x = self.same(x) if self.gain == 1.0 else x * self.gain", "x = helper(self.same(x))"),
    *("x = F.dropout(x, 0.5, self.training)", "x = F.avg_pool2d(x, 3, 1, padding=1)"),
    *("x = F.group_norm(x, 2)", "x = self.shared(self.shared(x))", "x = x[:, torch.arange(8)]"),
    *("x = x if isinstance(x, Tensor) else x[0]", "x = x + (x.numel() and x.new_ones(1))"),
)


class _Block(nn.Module):
    def __init__(self, pick: random.Random, count: int) -> None:
        super().__init__()
        for i in range(count):
            setattr(self, f"l{i}", _layer(pick))
        self.norm = nn.GroupNorm(4, CHANNELS)
        self.same = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.narrow = nn.Conv2d(CHANNELS, CHANNELS, 3, 2)
        self.shared = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.divisor, self.gain = pick.choice((1, 2.0)), 1.0


def _helper(x: Tensor) -> Tensor:
    return F.silu(x)


def _model(pick: random.Random, depth: int = 0) -> tuple[nn.Module, str]:
    """A model, and its source for the message of a failure."""
    if pick.random() < 0.3:
        made = nn.Sequential(*(_layer(pick) for _ in range(pick.randint(1, 6))))
        return made, repr(made)
    count = pick.randint(1, 3)
    lines = [pick.choice(_STEPS).format(f"l{pick.randrange(count)}") for _ in range(4)]
    body = "\n        ".join(lines)
    source = (
        f"class Made(Block):\n    def forward(self, x, n=None):\n        {body}\n        return x"
    )
    names: dict[str, Any] = {"Block": _Block, "F": F, "torch": torch, "Tensor": Tensor}
    names |= {"helper": _helper, "__name__": "made"}
    exec(source.replace("WEIGHT", "self.same.weight, self.same.bias, 1, 1"), names)
    block = names["Made"](pick, count)
    if depth == 0 and pick.random() < 0.4:
        inner, inner_source = _model(pick, 1)
        return nn.Sequential(block, inner, nn.ReLU()), source + inner_source + repr(block)
    return block, source + repr(block)


def _change(pick: random.Random) -> Callable[[nn.Module], Any]:
    """What users do to a model between two calls."""
    index, value = pick.random(), pick.uniform(0.5, 2.0)

    def any_of(model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> nn.Module:
        found = [m for m in model.modules() if isinstance(m, kind)] or [model]
        return found[int(index * len(found))]

    def write(model: nn.Module) -> None:
        parameters = list(model.parameters())
        if parameters:
            parameters[int(index * len(parameters))].data.mul_(value)

    def replace_forward(model: nn.Module) -> None:
        layer = any_of(model, (nn.Conv2d, nn.GroupNorm, nn.SiLU))
        if layer is not model:
            layer.forward = lambda x: x * value  # type: ignore[method-assign]

    def circular(model: nn.Module) -> None:
        layer: Any = any_of(model, nn.Conv2d)
        if layer is not model and layer.padding == (1, 1):
            layer.padding_mode, layer._reversed_padding_repeated_twice = "circular", [1] * 4

    def set_gain(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, _Block):
                module.gain = module.divisor = value

    changes: list[Callable[[nn.Module], Any]] = [
        lambda model: None,
        write,
        replace_forward,
        circular,
        set_gain,
        lambda model: model.train(),
        lambda model: model.double().float(),
        lambda model: model.to(memory_format=torch.channels_last),
        lambda model: any_of(model, nn.Conv2d).register_forward_hook(lambda m, a, y: y * value),
        lambda model: any_of(model, nn.Module).register_forward_pre_hook(
            lambda m, a: (a[0] * value,)
        ),
        lambda model: any_of(model, nn.Conv2d).register_forward_hook(lambda m, a, y: None),
        lambda model: model.load_state_dict(
            {name: tensor * value for name, tensor in model.state_dict().items()}
        ),
    ]
    return pick.choice(changes)


def _run(model: nn.Module, x: Tensor, args: tuple[Any, ...], grad: bool) -> list[Tensor] | str:
    """The result and the gradients, or the kind of error."""
    x = x.to(next((p.dtype for p in model.parameters()), x.dtype), copy=True).requires_grad_(grad)
    torch.manual_seed(7)
    try:
        with torch.set_grad_enabled(grad):
            y = model(x * 1, *args)
        if not grad or not y.requires_grad:
            return [y.detach()]
        parameters = [p for p in model.parameters() if p.requires_grad]
        direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        gradients = torch.autograd.grad((y * direction).sum(), [x, *parameters], allow_unused=True)
    except (RuntimeError, ValueError, TypeError) as error:
        return type(error).__name__
    return [y.detach(), *(g for g in gradients if g is not None)]


def _error(got: Tensor, exact: Tensor) -> float:
    if exact.numel() == 0:
        return 0.0
    size = exact.abs().max().clamp(min=1e-3)
    return ((got.double() - exact.double()).abs().max() / size).item()


@pytest.mark.parametrize("seed", range(MODELS))
def test_generated_models(seed: int) -> None:
    pick = random.Random(seed)
    torch.manual_seed(seed)
    model, source = _model(pick)
    model.eval()
    plain = copy.deepcopy(model)
    batch, side = pick.choice((1, 2, 3)), pick.choice((5, 8, 11, 16))
    x = torch.randn(batch, CHANNELS, side, pick.choice((side, 7)))
    if pick.random() < 0.3:
        x = x.to(memory_format=torch.channels_last)
    vk.accelerate(model)
    for _ in range(3):
        args = pick.choice(((), (), (2,), (torch.tensor(1.5),)))
        args = () if isinstance(model, nn.Sequential) else args
        grad = pick.random() < 0.4
        expected, got = (_run(m, x, args, grad) for m in (plain, model))
        message = f"seed {seed}, arguments {args}, gradients {grad}:\n{source}"
        if isinstance(expected, str) or isinstance(got, str):
            assert got == expected, message
        else:
            # Noise is drawn in float32: the exact run would have other draws.
            exact = (
                expected if model.training else _run(copy.deepcopy(plain).double(), x, args, grad)
            )
            for y, ours, eager in zip(exact, got, expected, strict=True):
                assert ours.shape == eager.shape, message
                assert ours.dtype == eager.dtype, message
                assert _error(ours, y) <= 20 * _error(eager, y) + 1e-4, message
        change, state = _change(pick), pick.getstate()
        for each in (plain, model):
            pick.setstate(state)
            change(each)
