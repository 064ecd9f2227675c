"""Patches count, before and after ``vk.accelerate``: of classes, functions, globals, closures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vaekernels as vk
from tests.integrations.accelerate.models import (
    diffusers_model,
    images,
    needs_kernels,
    own_model,
    result,
)
from vaekernels.integrations.accelerate import chains
from vaekernels.nn import unmodified

SCALE = 1.0


def act(x: Tensor) -> Tensor:
    return F.silu(x)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 16, 4, 2, 1)
        self.up = nn.ConvTranspose2d(16, 16, 4, 2, 1)
        self.upsample = nn.Upsample(scale_factor=2)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.narrow = nn.Conv2d(16, 16, 3, 2)
        self.drop = nn.Dropout(0.5)
        self.silu, self.relu, self.leaky = nn.SiLU(), nn.ReLU(), nn.LeakyReLU(0.1)

    def head(self, x: Tensor) -> Tensor:
        return self.conv(act(self.norm(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv(self.drop(self.silu(self.norm(x))))
        x = self.leaky(self.up(self.relu(self.down(x))))
        x = self.narrow(self.pad(self.conv(self.upsample(x))))
        return F.relu(self.conv(F.interpolate(F.pad(x, (0, 0)), scale_factor=2.0)))


class Net(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x)) * SCALE


def halved(function: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) * 0.5

    return changed


# Where something may be replaced; what the model computes then is half of it somewhere.
PLACES: list[tuple[Any, str]] = [
    *((kind, "forward") for kind in (nn.Conv2d, nn.ConvTranspose2d, nn.GroupNorm, nn.SiLU)),
    *((kind, "forward") for kind in (nn.ReLU, nn.LeakyReLU, nn.Upsample, nn.Dropout)),
    *((kind, "forward") for kind in (nn.ZeroPad2d, nn.Module, Base, Net)),
    *((nn.Conv2d, "_conv_forward"), (nn.Conv2d, "__call__"), (nn.Module, "__call__")),
    *((F, "conv2d"), (F, "conv_transpose2d"), (F, "group_norm"), (torch, "group_norm")),
    *((F, "silu"), (F, "relu"), (F, "leaky_relu"), (F, "interpolate"), (F, "pad")),
    *((F, "dropout"), (torch._C._nn, "silu"), (torch, "relu"), (torch._C._nn, "leaky_relu")),
    *((torch._C._nn, "upsample_nearest2d"), (Base, "head"), (Net, "head")),
    *((sys.modules[__name__], "act"), (sys.modules[__name__], "SCALE")),
]
X = torch.randn(1, 16, 9, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0].__name__}.{place[1]}")
@torch.no_grad()
def test_what_is_replaced_counts(
    place: tuple[Any, str], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = place
    torch.manual_seed(0)
    model = Net().eval()
    unchanged = model(X)
    patch = SCALE * 0.5 if name == "SCALE" else halved(getattr(owner, name))
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, patch)
        expected = model(X)
    assert place == (nn.Module, "forward") or not torch.allclose(expected, unchanged, rtol=1e-3)
    with monkeypatch.context() as patched:
        if when == "before":
            patched.setattr(owner, name, patch)
        handle = vk.accelerate(model)
        for _ in range(2):
            patched.setattr(owner, name, patch)
            torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(X), unchanged, rtol=1e-4, atol=1e-5)
    handle.restore()


def scaled(x: Tensor, factor: float = 2.0) -> Tensor:
    return F.relu(x) * factor


class Reloaded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def head(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return scaled(self.conv(self.head(x)))


def _other(self: nn.Module, x: Tensor) -> Tensor:
    return x * 3


# What hot reload replaces in functions.
PARTS: list[tuple[Any, str, object]] = [
    (Reloaded.forward, "__code__", _other.__code__),
    (Reloaded.head, "__code__", _other.__code__),
    (scaled, "__code__", (lambda x, factor: x * factor).__code__),
    (scaled, "__defaults__", (3.0,)),
]


@pytest.mark.parametrize("child", [False, True])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part[0].__name__}.{part[1]}")
@torch.no_grad()
def test_code_that_is_replaced_counts(
    part: tuple[Any, str, object], child: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(Reloaded(), nn.Conv2d(16, 16, 3, padding=1)) if child else Reloaded()
    with vk.accelerate(model) as handle:
        assert not handle.report.unfollowed
        unchanged = model(X)
        monkeypatch.setattr(*part)
        got = model(X)
    torch.testing.assert_close(got, model(X), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, unchanged, rtol=1e-3)


def doubled(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def changed(self: nn.Module, x: Tensor) -> Tensor:
        return method(self, x) * 2

    return changed


class Decorated(Base):
    @doubled
    def head(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x))

    @doubled
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.head(x)))


@pytest.mark.parametrize("name", ["head", "forward"])
@torch.no_grad()
def test_functions_that_one_decorator_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Decorated()
    with vk.accelerate(model) as handle:
        assert not handle.report.unfollowed
        unchanged = model(X)
        (cell,) = getattr(Decorated, name).__closure__
        monkeypatch.setattr(cell, "cell_contents", halved(cell.cell_contents))
        got = model(X)
    torch.testing.assert_close(got, model(X), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, unchanged, rtol=1e-3)


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Whole(Half):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


@pytest.mark.parametrize("name", ["relu", "silu"])
@torch.no_grad()
def test_functions_of_a_namespace_that_several_forwards_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Whole()
    with vk.accelerate(model):
        unchanged = model(X)
        monkeypatch.setattr(F, name, halved(getattr(F, name)))
        got = model(X)
    torch.testing.assert_close(got, model(X), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, unchanged, rtol=1e-3)


class Operators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv(x)
        x = self.conv(x).relu()
        x = x.add(self.conv(x.contiguous()))
        h = self.norm(x)
        h = self.conv(h * h.sigmoid())
        h += x
        return (h + self.conv(h)) / 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", unmodified.TENSOR_METHODS)
@torch.no_grad()
def test_methods_of_tensors_that_are_replaced_count(
    name: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = getattr(Tensor, name)
    model = nn.Sequential(Operators(), Operators()).eval()
    unchanged = model(X)

    def patch(self: Tensor, *args: Any) -> Tensor:
        y = method(self, *args)
        # The ops make contiguous copies too.
        own = name != "contiguous" or sys._getframe(1).f_code is Operators.forward.__code__
        return torch.mul(y, 0.5) if own else y

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, name, patch)
        expected = model(X)
    assert not torch.allclose(expected, unchanged, rtol=1e-3)
    with monkeypatch.context() as patched:
        if when == "before":
            patched.setattr(Tensor, name, patch)
        handle = vk.accelerate(model)
        patched.setattr(Tensor, name, patch)
        got = model(X)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(X), unchanged, rtol=1e-4, atol=1e-5)
    assert not handle.report.unfollowed or when == "before"
    handle.restore()


@pytest.mark.parametrize("kind", ["subclass", "instance", "conv_forward", "method"])
@torch.no_grad()
def test_what_is_set_later_counts(kind: str) -> None:
    class Own(nn.Conv2d):
        pass

    def change(model: Any) -> None:
        if kind == "subclass":
            Own.forward = halved(nn.Conv2d.forward)  # type: ignore[method-assign]
        elif kind == "instance":
            model.conv.forward = lambda x: x * 0.5
        elif kind == "conv_forward":
            model.conv._conv_forward = halved(model.conv._conv_forward)
        else:
            model.head = lambda x: x * 0.5

    torch.manual_seed(0)
    model: Any = Net().eval()
    model.conv = Own(16, 16, 3, padding=1)
    unchanged = model(X)
    handle = vk.accelerate(model)
    torch.testing.assert_close(model(X), unchanged, rtol=1e-4, atol=1e-5)
    change(model)
    got = model(X)
    handle.restore()
    torch.testing.assert_close(got, model(X), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, unchanged, rtol=1e-3)


@torch.no_grad()
def test_functions_that_a_mode_changes() -> None:
    class Circular(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
            y = function(*args, **(kwargs or {}))
            return y * 0.5 if function is F.conv2d else y

    model = own_model("ResBlock")
    x = images(model)
    with vk.accelerate(model):
        with Circular():
            got = model(x)
        # PyTorch's own modes change nothing: what runs is what ran.
        accelerated = model(x)
        with torch.device("cpu"):
            assert torch.equal(model(x), accelerated)
    with Circular():
        torch.testing.assert_close(got, model(x), rtol=1e-4, atol=1e-5)


def counting(start: int) -> type[nn.Module]:
    count = start

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return self.conv(x) * count

    return Counts


def reading(factor: float) -> tuple[type[nn.Module], Callable[[float], None]]:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x)) * factor

    def change(value: float) -> None:
        nonlocal factor
        factor = value

    return Reads, change


@torch.no_grad()
def test_variables_around_a_forward() -> None:
    kind, change = reading(2.0)
    model = kind()
    expected = model(X)
    with vk.accelerate(model) as handle:
        assert not handle.report.unfollowed
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)
        change(3.0)
        torch.testing.assert_close(model(X), expected * 1.5, rtol=1e-4, atol=1e-5)
    reason = vk.explain(counting(1)()).unfollowed[""]
    assert reason == "it sets count of the function around it"


@needs_kernels
@torch.no_grad()
def test_unpatched_models_run_their_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of PyTorch is what is there, also for diffusers' modules."""
    for kind, methods in unmodified._METHODS.items():
        assert all(getattr(kind, name) is method for name, method in methods.items())
    done: list[object] = []
    fused = chains.fused

    def recorded(*args: Any) -> Tensor | None:
        y = fused(*args)
        done.append(y)
        return y

    monkeypatch.setattr(chains, "fused", recorded)
    model = diffusers_model("AutoencoderKL")
    with vk.accelerate(model):
        result(model, images(model))
    assert done
    assert all(y is not None for y in done)
