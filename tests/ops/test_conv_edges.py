"""Sizes at which a kernel's last group, panel or register is only partly filled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.ops import convs
from tests.ops.convs import Conv

pytestmark = pytest.mark.usefixtures("poisoned_memory", "capability")


def compare(conv: Conv) -> None:
    """Result and gradients of the kernels against the reference."""
    tensors = conv.tensors()
    expected = conv.results(tensors, None, backend="reference")
    for name, value in conv.results(tensors, None, backend="cpu").items():
        bound = 2 * convs.HIGH * expected[name].abs().max().item()
        torch.testing.assert_close(value, expected[name], rtol=0, atol=bound, msg=f"{conv} {name}")


@pytest.fixture(params=(1, 2, 4))
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("size", ((65, 2), (33, 1), (8, 2), (1, 16), (16, 1), (5, 5), (4, 9)))
def test_strips_of_few_pixels(size: tuple[int, int]) -> None:
    """Of fewer than the product's rows: forward to few channels, and the gradient from few."""
    for channels in ((16, 3), (8, 1), (32, 4), (3, 16)):
        compare(Conv("conv3x3", (1, *channels, *size), "leaky_relu"))
    for channels in ((16, 3), (8, 1), (32, 4)):
        compare(Conv("conv_transpose4x4", (2, *channels, *size), "leaky_relu"))


@pytest.mark.parametrize("outputs", range(1, 35))
def test_every_remainder_of_channels(outputs: int) -> None:
    """Panels of 8, 16 and 32 channels, of which the last is full or partly so."""
    for inputs in (3, 16):
        compare(Conv("conv3x3", (1, inputs, outputs, 5, 4), "relu", residual=True))
    compare(Conv("downsample_conv4x4", (1, 1, outputs, 4, 4)))
    compare(Conv("conv_transpose4x4", (1, outputs, 16, 4, 4)))
