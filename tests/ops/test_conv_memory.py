"""What the convolutions keep goes: with its weight, with its change, when asked."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from vaekernels.backends import extension as _extension
from vaekernels.ops import _filters

X = torch.randn(2, 16, 32, 32)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    convs.skip_if_refused("cpu")
    gc.collect()
    # Threads free what is theirs: as many as other tests have set.
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    vk.empty_cache()
    torch.set_num_threads(threads)
    yield
    vk.empty_cache()


def kept() -> int:
    return _extension.load().cached_filter_bytes()


def small() -> torch.nn.Parameter:
    """A filter that is kept: of few channels, for many pixels."""
    return torch.nn.Parameter(torch.randn(16, 16, 3, 3))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = small(), small()
        self.myself = [self]  # only the garbage collector frees it

    def forward(self, x: Tensor) -> Tensor:
        return vk.conv3x3(vk.conv3x3(x, self.first), self.second)


def test_filters_go_with_the_model() -> None:
    watched = set(_filters._tracked)  # weights of other tests may still live
    model = Model()
    with torch.no_grad():
        model(X)
    both = kept()
    assert both >= 2 * 36 * 16 * 16 * 4
    with torch.inference_mode():
        model(X)
    assert kept() == both
    del model
    gc.collect()
    assert kept() == 0
    assert _filters._tracked <= watched


def test_filters_of_a_frozen_weight_go_with_it() -> None:
    x, weight = X.clone().requires_grad_(), small().detach()
    vk.conv3x3(x, weight).sum().backward()
    forward_and_backward = kept()
    del weight
    assert kept() == 0
    weight = small()
    with torch.no_grad():
        vk.conv3x3(X, weight)
    assert 0 < kept() < forward_and_backward


def test_a_change_replaces_what_was_kept() -> None:
    weight = small()
    with torch.no_grad():
        vk.conv3x3(X, weight)
        once = kept()
        for _ in range(3):
            weight.add_(1.0)
            vk.conv3x3(X, weight)
            weight.data = weight.data.clone()
            vk.conv3x3(X, weight)
            assert kept() == once


@pytest.mark.parametrize("conv", convs.every_op((2, 16, 16, 32, 32)), ids=convs.name_of)
def test_training_keeps_nothing(conv: convs.Conv) -> None:
    tensors = {name: t.requires_grad_() for name, t in conv.tensors().items()}
    conv(tensors).square().mean().backward()
    assert kept() == 0


def test_compiled_training_keeps_nothing() -> None:
    weight = small()
    step = torch.compile(lambda x: vk.conv3x3(x, weight).square().mean())
    step(X).backward()
    assert kept() == 0


def test_filters_of_inference_tensors_go_with_them() -> None:
    watched = set(_filters._tracked)
    with torch.inference_mode():
        weight = torch.randn(16, 16, 3, 3)
        vk.conv3x3(X, weight)
    assert kept() > 0
    del weight
    assert kept() == 0
    assert _filters._tracked <= watched


def test_filters_stay_while_a_view_of_their_weight_lives() -> None:
    weight = torch.randn(16, 16, 3, 3)
    view = weight[:8]
    vk.conv3x3(X, weight)
    del weight
    assert kept() > 0
    del view
    assert kept() == 0


def test_one_weight_in_every_op_and_direction() -> None:
    """Each op and direction has its own form of the same filter."""
    with torch.no_grad():
        for kernel in (3, 4):
            weight = torch.randn(16, 16, kernel, kernel)
            calls = [
                conv
                for conv in convs.every_op((2, 16, 16, 32, 32), bias=False)
                if conv.tensors()["weight"].shape == weight.shape and conv.groups is None
            ]
            assert len(calls) == {3: 4, 4: 2}[kernel]
            for precision in convs.PRECISIONS:
                for _ in range(2):
                    for conv in calls:
                        _check_forward_and_gradient(conv, weight, precision)


def _check_forward_and_gradient(conv: convs.Conv, weight: Tensor, precision: str) -> None:
    x = conv.tensors()["x"]
    results = []
    for options in ({"backend": "cpu", "precision": precision}, {"backend": "reference"}):
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            y = conv({"x": leaf, "weight": weight}, **options)
            (gradient,) = torch.autograd.grad(y.sum(), leaf)
        results.append((y.detach(), gradient))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-3)


def test_a_weight_that_outlives_its_python_object() -> None:
    """The graph keeps the tensor; Python's object comes back from it, with what is kept."""
    weight = small()
    with torch.no_grad():
        expected = vk.conv3x3(X, weight)
    graph = (weight * 1.0).grad_fn
    del weight
    gc.collect()
    again = graph.next_functions[0][0].variable
    with torch.no_grad():
        assert torch.equal(vk.conv3x3(X, again), expected)
    assert kept() > 0
    del again, graph
    gc.collect()
    assert kept() == 0


def test_threads_share_what_is_kept() -> None:
    weight = small()

    def work(weight: Tensor) -> None:
        with torch.no_grad():
            for _ in range(20):
                vk.conv3x3(X[:1], weight)
                vk.conv3x3(X[:1], small())

    threads = [threading.Thread(target=work, args=(weight,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del weight, threads, thread
    gc.collect()
    assert kept() == 0


def test_compiled_whole() -> None:
    torch._dynamo.reset()
    weight = small()
    compiled = torch.compile(vk.conv3x3, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(X, weight), vk.conv3x3(X, weight))
    assert kept() > 0
    torch._dynamo.reset()
    del weight, compiled
    gc.collect()
    assert kept() == 0  # the call without a compiler saw to it


def test_memory_is_freed_when_asked() -> None:
    extension = _extension.load()
    assert extension.scratch_bytes() == 0
    weight = small()
    y = vk.conv3x3(X, weight)
    y.sum().backward()
    trained = extension.scratch_bytes()
    assert trained > 0
    with torch.no_grad():
        first = vk.conv3x3(X, weight)
    assert extension.scratch_bytes() >= trained
    assert kept() > 0
    vk.upsample_conv3x3(torch.randn(1, 16, 128, 256), torch.randn(64, 16, 3, 3))  # 32 MB
    assert extension.pool_bytes() > 0
    vk.empty_cache()
    assert extension.scratch_bytes() == extension.pool_bytes() == kept() == 0
    with torch.no_grad():
        assert torch.equal(vk.conv3x3(X, weight), first)


def test_what_a_block_keeps_is_freed_behind_it_and_nothing_else() -> None:
    extension = _extension.load()
    mine, other, unused = small(), small(), torch.nn.Parameter(torch.empty(2, 2, device="meta"))
    image, wide = torch.randn(1, 16, 128, 256), torch.randn(64, 16, 3, 3)
    with torch.no_grad():
        vk.conv3x3(X, other)
        one = kept()
        vk.upsample_conv3x3(image, wide)  # 32 MB
        filters, pool = kept(), extension.pool_bytes()
        assert filters > one > 0
        assert pool > 0
        with _filters.released_after([mine, unused]):
            vk.conv3x3(X, mine)
            assert kept() == filters + one
            results = [vk.upsample_conv3x3(image, wide) for _ in range(2)]
            del results
            assert extension.pool_bytes() == 2 * pool
        assert (kept(), extension.pool_bytes()) == (filters, pool)


def test_the_end_of_the_interpreter() -> None:
    program = (
        "import torch, vaekernels as vk\n"
        "weight = torch.nn.Parameter(torch.randn(16, 16, 3, 3))\n"
        "with torch.no_grad(): vk.conv3x3(torch.randn(2, 16, 32, 32), weight)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_freed_results_serve_again_and_are_bounded() -> None:
    extension = _extension.load()
    vk.empty_cache()
    x, weight = torch.randn(1, 16, 128, 128), torch.randn(16, 16, 3, 3)  # results of 1 MB
    address = vk.conv3x3(x, weight).data_ptr()
    assert extension.pool_bytes() == 1 << 20
    assert vk.conv3x3(x, weight).data_ptr() == address
    images = torch.randn(20, 16, 128, 128)
    del x
    held = [vk.conv3x3(images, weight) for _ in range(14)]  # 280 MB
    del held
    assert 200 << 20 < extension.pool_bytes() <= 256 << 20
    # The one of 1 MB was not used for longest: it is the first to go.
    before = extension.pool_bytes()
    y = vk.conv3x3(images[:1], weight)
    assert extension.pool_bytes() == before
    del y
    vk.empty_cache()
    assert extension.pool_bytes() == 0
