"""Forwards that must not be fused, or not as they look: each runs as it did."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

import vaekernels as vk
from tests.integrations.accelerate.models import diffusers_model

UNFOLLOWED: dict[type[nn.Module], str] = {}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)


def unfollowed(reason: str):
    def mark(kind: type[nn.Module]) -> type[nn.Module]:
        UNFOLLOWED[kind] = reason
        return kind

    return mark


@unfollowed("symbolically traced variables cannot be used as inputs to control flow")
class BranchesOnValues(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.silu(self.norm(x)))
        return y if y.sum() > 0 else -y


@unfollowed("it draws random numbers")
class RollsDice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if random.random() < 0.5 else self.conv(x) * 2


@unfollowed("it calls rand on no input")
class RollsTensorDice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if torch.rand(()) < 0.5 else self.conv(x) * 2


@unfollowed("it sets self.count")
class Counts(Block):
    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.conv(x) * self.count


@unfollowed("it reads self.log, whose changes would go unseen")
class Logs(Block):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.log.append(1)
        return self.conv(x) * len(self.log)


@unfollowed("it reads conv.weight")
class LooksInside(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.conv.weight.mean()


@unfollowed("it reads the class of conv")
class AsksForClasses(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y[0] if isinstance(y, tuple) else y.relu()


@unfollowed("it does other things where gradients are recorded")
class AsksForGradients(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * (2 if torch.is_grad_enabled() else 3)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


_reverse = Reversed.apply


@unfollowed("it calls an autograd function")
class HasABackwardOfItsOwn(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(_reverse(x))


@unfollowed("it calls an autograd function")
class HasOneBehindALayer(Block):
    def forward(self, x: Tensor) -> Tensor:
        return Reversed.apply(self.conv(x))


@unfollowed("it calls an autograd function")
class KeepsLittleForBackward(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(checkpoint(self.conv, x, use_reentrant=True))


@unfollowed("it changes what is kept for backward for a part of itself")
class KeepsLittle(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(checkpoint(self.conv, x, use_reentrant=False))


@unfollowed("it changes autocast for a part of itself")
class CastsAPart(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.conv(x)
        return self.norm(y.float())


@unfollowed("it calls _set_grad_enabled on no input")
class RecordsAPart(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.conv(x)
        return self.norm(y)


def _same(model: nn.Module, x: Tensor) -> vk.Report:
    def run() -> tuple[Tensor, Tensor]:
        random.seed(3)
        torch.manual_seed(3)
        copy = x.clone()
        return model(copy), copy

    expected, changed = run()
    if isinstance(model, Counts):
        model.count = 0
    elif isinstance(model, Logs):
        model.log.clear()
    handle = vk.accelerate(model)
    got, changed_too = run()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(changed_too, changed, rtol=1e-4, atol=1e-5)
    handle.restore()
    return handle.report


@pytest.mark.parametrize("kind", UNFOLLOWED, ids=lambda kind: kind.__name__)
def test_what_cannot_be_followed_runs_layer_by_layer(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    report = _same(kind(), torch.randn(2, 16, 9, 9))
    assert report.unfollowed[""].startswith(UNFOLLOWED[kind])
    assert all(len(layer.parts) < 2 for layer in report.layers)
    assert f"the model: layers run one by one; {UNFOLLOWED[kind]}" in str(report)


def test_a_backward_of_its_own_is_kept() -> None:
    model, x = HasABackwardOfItsOwn(), torch.randn(1, 16, 5, 5, requires_grad=True)
    (expected,) = torch.autograd.grad(model(x).sum(), x)
    with vk.accelerate(model):
        (got,) = torch.autograd.grad(model(x).sum(), x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_checkpoints_of_diffusers_stay() -> None:
    """A block that keeps only its input for backward still does."""
    model = diffusers_model("AutoencoderKL").train()
    model.enable_gradient_checkpointing()
    reason = "it changes what is kept for backward for a part of itself"
    assert vk.explain(model).unfollowed["encoder"] == reason
    image = torch.randn(1, 3, 16, 16)

    def saved_bytes() -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.encode(image).latent_dist.mean.sum().backward()
        return sum(sizes.values())

    with vk.accelerate(model):
        checkpointed = saved_bytes()
    model.disable_gradient_checkpointing()
    with vk.accelerate(model):
        assert saved_bytes() > 1.5 * checkpointed


class ChangesInputBetween(Block):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        x.mul_(2)
        return x + self.conv(F.silu(h))


class AddsInPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y
        y += 1
        x += y
        return z * y


class UsesTheMiddle(Block):
    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm(x))
        return self.conv(h) + h


class AddsToItself(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.norm(x))
        return F.relu(y + y)


class Broadcasts(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x.mean(dim=(2, 3), keepdim=True))


@pytest.mark.parametrize(
    "kind", [ChangesInputBetween, AddsInPlace, UsesTheMiddle, AddsToItself, Broadcasts]
)
def test_order_and_sharing_are_kept(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    _same(kind(), torch.randn(2, 16, 9, 9))


class TwoInputs(Block):
    def forward(self, x: Tensor, skip: Tensor, *, scale: float = 1.0) -> Tensor:
        return F.relu(self.conv(F.silu(self.norm(x))) + skip) * scale


def test_several_arguments() -> None:
    torch.manual_seed(0)
    model = TwoInputs()
    x, skip = torch.randn(2, 2, 16, 9, 9).unbind()
    for args, kwargs in (
        ((x, skip), {}),
        ((x,), {"skip": skip}),
        ((), {"skip": skip, "x": x, "scale": 1.0}),
        ((x, skip), {"scale": 3.0}),
    ):
        expected = model(*args, **kwargs)
        with vk.accelerate(model) as handle:
            torch.testing.assert_close(model(*args, **kwargs), expected, rtol=1e-4, atol=1e-5)
    assert handle.report.layers[0].parts == ("norm", "silu", "conv", "residual", "relu")
    with vk.accelerate(model), pytest.raises(TypeError, match="unexpected keyword argument 'sk'"):
        model(x, sk=skip)
    with vk.accelerate(model), pytest.raises(TypeError, match="missing 1 required positional"):
        model(x)


def test_tracing_changes_nothing() -> None:
    class Buffers(Block):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(16, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(1)
            return self.conv(x) - self.mean

    model = Buffers()
    vk.explain(model)
    assert torch.equal(model.mean, torch.zeros(16, 1, 1))
    x = torch.randn(1, 16, 9, 9)
    expected = model(x)
    model.mean.zero_()
    with vk.accelerate(model):
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert model.mean.unique().tolist() == [1.0]


class MakesContiguous(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x.contiguous()) + self.conv(x)

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(16, 16, 1)


class ChangesWhatItCopied(MakesContiguous):
    def forward(self, x: Tensor) -> Tensor:
        copy = x.contiguous()
        x.mul_(2)
        return self.shortcut(copy) + self.conv(x)


class Flattens(MakesContiguous):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x.contiguous().view(len(x), -1).sum()


@pytest.mark.parametrize(
    ("kind", "kept"), [(MakesContiguous, False), (ChangesWhatItCopied, True), (Flattens, True)]
)
def test_copies_for_layers_that_read_any_layout_are_dropped(
    kind: type[nn.Module], kept: bool
) -> None:
    torch.manual_seed(0)
    model = kind()
    x = torch.randn(2, 16, 9, 9).to(memory_format=torch.channels_last)
    expected = model(x.clone())
    with (
        vk.accelerate(model),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as events,
    ):
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    clones = [event for event in events.events() if event.name == "aten::clone"]
    assert any(event.input_shapes[0] == [2, 16, 9, 9] for event in clones) == kept


@pytest.mark.parametrize("followed", [True, False])
def test_results_may_be_changed_in_place(followed: bool) -> None:
    class InPlace(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += x
            y = self.norm(F.relu(y, inplace=True))
            y.mul_(2.0)
            if not followed and x.sum() > 1e9:
                return y
            return F.silu(self.conv(y), inplace=True)

    torch.manual_seed(0)
    model = InPlace()
    x = torch.randn(2, 16, 9, 9)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(x).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    expected = gradients()
    with vk.accelerate(model) as handle:
        got = gradients()
    assert bool(handle.report.unfollowed) != followed
    for gradient, value in zip(got, expected, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-4, atol=1e-3)


class HasAChildThatAMethodHides(Block):
    def __init__(self) -> None:
        super().__init__()
        self.half = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if callable(self.half) else self.half(x)


def test_a_child_that_a_method_hides() -> None:
    model = HasAChildThatAMethodHides()
    x = torch.randn(1, 16, 9, 9)
    expected = model(x)
    assert vk.explain(model, x).accelerated
    with vk.accelerate(model):
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
