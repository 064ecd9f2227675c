"""The tier in force, and what the fused convolutions do with it."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from vaekernels.ops import _precision
from vaekernels.ops._precision import conv_precision


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_precision, "_process", deque(maxlen=_precision._KEPT))


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


def seen_in_a_thread() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(in_force).result()


def test_a_call_sets_the_tier_of_the_process() -> None:
    vk.set_conv_precision("highest")
    assert seen_in_a_thread() == "highest"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(vk.set_conv_precision, "medium").result()
    assert seen_in_a_thread() == "medium"


def test_a_block_sets_the_tier_of_its_thread() -> None:
    with vk.set_conv_precision("highest"):
        assert seen_in_a_thread() == "high"
        vk.set_conv_precision("medium")
        assert in_force() == seen_in_a_thread() == "medium"
    assert in_force() == seen_in_a_thread() == "high"


def test_blocks_of_two_threads_do_not_meet() -> None:
    entered, done = threading.Event(), threading.Event()

    def other() -> str:
        with vk.set_conv_precision("medium"):
            entered.set()
            done.wait()
            return in_force()

    with ThreadPoolExecutor(1) as pool:
        with vk.set_conv_precision("highest"):
            future = pool.submit(other)
            entered.wait()
        assert in_force() == "high"
        done.set()
        assert future.result() == "medium"
    assert in_force() == seen_in_a_thread() == "high"


def test_settings_without_end_are_not_kept() -> None:
    for _ in range(100):
        vk.set_conv_precision("highest")
    assert len(_precision._process) <= _precision._KEPT


def test_backward_has_the_tier_of_its_forward() -> None:
    """In whatever thread, and whatever is in force by then."""
    convs.skip_if_refused("cpu")
    conv = convs.Conv("conv3x3", (2, 24, 24, 17, 19))
    tensors = {name: tensor.requires_grad_() for name, tensor in conv.tensors().items()}
    grads = {}
    for tier in ("high", "highest"):
        with vk.set_conv_precision(tier):
            y = conv(tensors).square().sum()
        with ThreadPoolExecutor(1) as pool:
            grads[tier] = pool.submit(torch.autograd.grad, y, tensors["weight"]).result()[0]
        explicit = conv(tensors, precision=tier).square().sum()
        assert torch.equal(grads[tier], torch.autograd.grad(explicit, tensors["weight"])[0])
    assert not torch.equal(grads["high"], grads["highest"])


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_what_reaches_the_kernel(conv: convs.Conv, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument beats what is in force; the reference has one precision."""
    seen: list[str] = []

    def implementation(*_: object) -> object:
        def kernel(*arguments: object) -> Tensor:
            seen.append(str(arguments[-1]))
            return torch.zeros(())

        return kernel

    monkeypatch.setattr("vaekernels.backends.registry.implementation", implementation)
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
