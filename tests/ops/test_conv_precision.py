"""The tier in force, and what the fused convolutions do with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from vaekernels.ops._precision import conv_precision


@pytest.fixture(autouse=True)
def _the_default_comes_back() -> Iterator[None]:
    with vk.set_conv_precision("high"):
        yield


def in_force() -> str:
    return conv_precision("conv3x3", None)


def test_the_tier_is_set_at_once_and_comes_back_after_a_block() -> None:
    assert in_force() == "high"
    vk.set_conv_precision("highest")
    assert in_force() == "highest"
    with vk.set_conv_precision("high"):
        assert in_force() == "high"
        with vk.set_conv_precision("highest"):
            assert in_force() == "highest"
        assert in_force() == "high"
    assert in_force() == "highest"


def test_the_tier_comes_back_after_an_error() -> None:
    with pytest.raises(KeyError), vk.set_conv_precision("highest"):
        raise KeyError
    assert in_force() == "high"


def test_an_unknown_tier_changes_nothing() -> None:
    message = "set_conv_precision.*'medium', 'high' or 'highest'; got 'low'"
    with pytest.raises(ValueError, match=message):
        vk.set_conv_precision("low")
    assert in_force() == "high"


def test_a_new_thread_starts_with_the_default() -> None:
    vk.set_conv_precision("highest")
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(in_force()))
    thread.start()
    thread.join()
    assert seen == ["high"]


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_what_reaches_the_kernel(conv: convs.Conv, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument beats what is in force; the reference has one precision."""
    seen: list[str] = []

    def implementation(*_: object) -> object:
        def kernel(*arguments: object) -> Tensor:
            seen.append(str(arguments[-1]))
            return torch.zeros(())

        return kernel

    monkeypatch.setattr("vaekernels.registry.implementation", implementation)
    tensors = conv.tensors()
    conv(tensors)
    conv(tensors, precision="highest")
    conv(tensors, precision="medium")
    with vk.set_conv_precision("highest"):
        conv(tensors)
        conv(tensors, precision="high")
    assert seen == ["high", "highest", "medium", "highest", "high"]


@pytest.mark.parametrize("conv", convs.every_op((1, 64, 64, 32, 32)), ids=convs.name_of)
def test_medium_is_high_on_the_cpu(conv: convs.Conv) -> None:
    """The same bits, forward and backward, by the call and by what is in force."""
    convs.skip_if_refused("cpu")
    tensors = conv.tensors()
    high = conv.results(tensors, None, backend="cpu", precision="high")
    medium = conv.results(tensors, None, backend="cpu", precision="medium")
    for name, value in high.items():
        assert torch.equal(medium[name], value), name
    inference = conv(tensors, backend="cpu", precision="high")
    with vk.set_conv_precision("medium"):
        assert torch.equal(conv(tensors, backend="cpu"), inference)


def test_a_compiled_function_keeps_the_tier_of_its_tracing() -> None:
    convs.skip_if_refused("cpu")
    torch._dynamo.reset()
    tiers: list[object] = []
    op = torch.ops.vaekernels.conv3x3.default

    def collect(module: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        tiers.extend(node.args[-1] for node in module.graph.nodes if node.target is op)
        return module

    compiled = torch.compile(vk.conv3x3, fullgraph=True, backend=collect)
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3)
    with vk.set_conv_precision("highest"):
        compiled(x, weight, backend="cpu")
    compiled(x, weight, backend="cpu")
    compiled(x, weight, precision="medium", backend="cpu")
    assert tiers == ["highest", "high"]
