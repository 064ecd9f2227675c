"""Accelerated models inside of what calls models: hooks, autocast, compilers, transforms, DDP."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import vaekernels as vk
from tests.integrations.accelerate.models import (
    diffusers_model,
    images,
    needs_kernels,
    own_model,
    result,
)


def test_hooks_see_what_they_saw() -> None:
    model = own_model("ResBlock")
    x = images(model)
    seen: dict[str, Tensor] = {}

    def note(name: str):
        return lambda module, args, output: seen.__setitem__(name, output.detach().clone())

    for accelerated_first in (False, True):
        for name, layer in model.named_children():
            if accelerated_first:
                handle = vk.accelerate(model)
            hook = layer.register_forward_hook(note(name))
            model(x)
            got = seen.pop(name)
            if accelerated_first:
                handle.restore()
            model(x)
            torch.testing.assert_close(got, seen.pop(name), rtol=1e-4, atol=1e-5)
            hook.remove()


def test_hooks_on_a_sequence_and_those_that_change_inputs() -> None:
    model = own_model("ConvVAE")
    x = images(model)
    calls = []
    hooks = [
        model.encoder.register_forward_hook(lambda *args: calls.append("sequence")),
        model.decoder[3].register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
        model.encoder[4].register_full_backward_hook(lambda *args: calls.append("backward")),
    ]
    expected = model(x)
    calls.clear()
    with vk.accelerate(model):
        got = model(x)
        got.sum().backward()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert calls == ["sequence", "backward"]
    for hook in hooks:
        hook.remove()


def test_global_hooks() -> None:
    model = own_model("ResBlock")
    x = images(model)
    seen: list[str] = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: seen.append(type(module).__name__)
    )
    try:
        model(x)
        expected, seen[:] = list(seen), []
        with vk.accelerate(model):
            model(x)
    finally:
        hook.remove()
    assert seen == expected


def test_autocast() -> None:
    model = diffusers_model("AutoencoderKL")
    x = images(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = result(model, x)
        with vk.accelerate(model):
            got = result(model, x)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)


@needs_kernels
@pytest.mark.parametrize("name", ["ConvVAE", "ResBlock", "Updown"])
def test_compiled_callers(name: str) -> None:
    model = own_model(name)
    x = images(model)
    expected = model(x)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with vk.accelerate(model):
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        assert compiled(images(model, batch=3)).shape[0] == 3
        compiled(images(model, batch=5))
    called = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert any("vaekernels" in target for target in called)
    assert len(graphs) == 2  # a number of images of its own, then any
    torch._dynamo.reset()


@pytest.mark.slow
def test_compiled_training_of_diffusers() -> None:
    model = diffusers_model("AutoencoderKL")
    x = images(model)
    with vk.accelerate(model):
        expected = result(model, x)
        expected.sum().backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        y = compiled(x).sample
        y.sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-3)
    torch._dynamo.reset()


def test_transforms_of_functions() -> None:
    """The kernels have no rules for them: PyTorch's layers run."""
    model = own_model("ResBlock")
    x = images(model)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x[None],)).square().sum()

    def all_of_them() -> tuple[Tensor, ...]:
        per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
        return torch.func.jvp(model, (x,), (x,))[1], per_sample["conv1.weight"]

    expected = all_of_them()
    with vk.accelerate(model):
        for got, value in zip(all_of_them(), expected, strict=True):
            assert torch.equal(got, value)


def test_checkpointing_of_activations() -> None:
    model = diffusers_model("AutoencoderKL").train()
    x = images(model)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        result(model, x).sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    expected = gradients()
    with vk.accelerate(model):
        model.enable_gradient_checkpointing()
        for got, value in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(got, value, rtol=1e-3, atol=2e-3)


def test_two_processes_train_as_one() -> None:
    """Gradients of DistributedDataParallel are the mean of those of the shares."""
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2"
    done = subprocess.run(
        [sys.executable, *launch.split(), "-m", "tests.integrations.accelerate.ddp_process"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
