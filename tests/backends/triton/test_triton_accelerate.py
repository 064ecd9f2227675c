"""Models of others on Triton: statistics go from layer to layer, shortcuts are taps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk
from tests.integrations.accelerate.models import ResBlock, diffusers_model
from vaekernels.bench.op_inputs import error
from vaekernels.integrations.accelerate.statistics import attach_statistics, statistics_of

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.usefixtures("poisoned_memory", "on_triton"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]


class Widening(nn.Module):
    """A residual block with a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.silu(self.norm(x)))
        return h + self.shortcut(x)


class Stack(nn.Module):
    """A convolution, blocks, a normalisation and a convolution, as the halves of autoencoders."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock(8), Widening(8, 12), ResBlock(12)])
        self.norm = nn.GroupNorm(2, 12)
        self.last = nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(F.silu(self.norm(x)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Stack().eval()


@pytest.fixture
def passes(counted: Any) -> list[Any]:
    """The normalisations that read an image for its statistics."""
    from vaekernels.backends.triton.conv import chained

    return counted(chained, "normalisation")


X = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))


def accelerated(model: nn.Module, x: Tensor = X) -> tuple[Tensor, Tensor]:
    """What an accelerated model returns, and what the original does."""
    with vk.use_backend("reference"):
        expected = model(x)
    with vk.accelerate(model):
        return model(x), expected


def test_no_normalisation_reads_an_image(model: nn.Module, passes: list[Any]) -> None:
    y, expected = accelerated(model)
    assert error(y, expected) <= 1e-5
    assert not passes


def test_in_inference_mode_neither(model: nn.Module, passes: list[Any]) -> None:
    with torch.inference_mode():
        y, expected = accelerated(model)
    assert error(y, expected) <= 1e-5
    assert not passes


@pytest.mark.parametrize("mode", (torch.no_grad, torch.inference_mode))
def test_a_tensor_that_was_changed_has_no_statistics(
    model: nn.Module, passes: list[Any], mode: Callable[[], Any]
) -> None:
    """By a hook, of which nobody knows when the forward is followed."""

    def double(module: nn.Module, args: Any, y: Tensor) -> None:
        y[:, :3].mul_(2)

    model.blocks[0].register_forward_hook(double)
    with mode():
        y, expected = accelerated(model)
    assert error(y, expected) <= 1e-5
    assert [x.shape[1] for x, *_ in passes] == [8]


def test_with_gradients_the_public_ops_run(model: nn.Module, counted: Any) -> None:
    from vaekernels.backends.triton.conv import chained

    calls = counted(chained, "ConvCall")
    with torch.enable_grad():
        y, expected = accelerated(model)
    assert y.requires_grad
    assert error(y, expected) <= 1e-5
    assert not calls


def test_results_that_nobody_normalises_have_none(counted: Any) -> None:
    from vaekernels.backends.triton.conv import forward_backward

    merged = counted(forward_backward, "merge")
    block = Widening(16, 12).eval()
    y, expected = accelerated(block, torch.randn(1, 16, 4, 5))
    assert error(y, expected) <= 1e-5
    assert not merged


def test_a_shortcut_is_a_tap(model: nn.Module, counted: Any) -> None:
    from vaekernels.backends.triton.conv import forward_backward

    products = counted(forward_backward, "convolve")
    accelerated(model)
    epilogues = [arguments[6] for arguments in products]
    shortcut = model.blocks[1].shortcut.weight
    assert [each.projection is shortcut for each in epilogues] == [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize("change", ("hook", "stride", "dtype"))
def test_a_shortcut_that_must_be_called_is(model: nn.Module, counted: Any, change: str) -> None:
    from vaekernels.backends.triton.conv import forward_backward

    products, seen = counted(forward_backward, "convolve"), []
    shortcut = model.blocks[1].shortcut
    with vk.accelerate(model):
        if change == "hook":
            shortcut.register_forward_hook(lambda module, args, y: seen.append(y))
        if change == "stride":
            shortcut.stride = (2, 2)
        if change == "dtype":
            shortcut.double()
        try:
            model(X)
        except RuntimeError:
            assert change != "hook"
        else:
            assert change == "hook"
    assert len(seen) == (1 if change == "hook" else 0)
    assert not any(arguments[6].projection is not None for arguments in products)


def test_statistics_stay_with_a_tensor_and_its_values() -> None:
    x, statistics = torch.ones(3), torch.ones(2)
    assert statistics_of(x) is None
    assert attach_statistics(x, None) is x
    assert statistics_of(x) is None
    assert statistics_of(attach_statistics(x, statistics)) is statistics
    assert statistics_of(x.view(3)) is None
    x.view(3).add_(1)  # the same memory
    assert statistics_of(x) is None


def test_a_tensor_that_counts_no_changes_has_none() -> None:
    """As a copy in another layout, made in inference mode."""
    with torch.inference_mode():
        x = torch.ones(3)
        assert statistics_of(attach_statistics(x, torch.ones(2))) is None


def test_diffusers(counted: Any, passes: list[Any]) -> None:
    """Statistics are taken of what comes from attention and from the user, no more."""
    from vaekernels.backends.triton.conv import forward_backward

    products = counted(forward_backward, "convolve")
    model = diffusers_model("AutoencoderKL").eval()
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with vk.use_backend("reference"):
        latent = model.encode(image).latent_dist.mean
        expected = model.decode(latent).sample
    with vk.accelerate(model):
        got = model.encode(image).latent_dist.mean
        image = model.decode(latent).sample
    assert error(got, latent) <= 1e-5
    assert error(image, expected) <= 1e-5
    assert [x.shape[1:] for x, *_ in passes] == [(32, 4, 4)] * 2
    shortcuts = [name for name, _ in model.named_modules() if name.endswith("conv_shortcut")]
    projected = [arguments for arguments in products if arguments[6].projection is not None]
    assert len(projected) == len(shortcuts) == 2
