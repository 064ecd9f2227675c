"""``vk.explain`` of a model with an example: its convolutions' calls and algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaekernels as vk
from tests.integrations.accelerate.models import (
    DIFFUSERS,
    images,
    model_of,
    needs_kernels,
    own_model,
)
from tests.models import autoencoders
from vaekernels.backends import registry
from vaekernels.integrations.accelerate import LayerCall, Report
from vaekernels.ops._conv import CONVOLUTIONS


def calls(report: Report) -> dict[str, tuple[LayerCall, ...]]:
    return {layer.path: layer.calls for layer in report.layers if layer.calls is not None}


def without_calls(report: Report) -> Report:
    layers = tuple(replace(layer, calls=None) for layer in report.layers)
    return replace(report, layers=layers, unmatched=())


@needs_kernels
@pytest.mark.parametrize("name", [*DIFFUSERS, "ConvVAE", "ResBlock"])
def test_every_convolution_of_other_people(name: str) -> None:
    model = model_of(name).train()
    modules = dict(model.named_modules())
    kinds = {path: type(module) for path, module in modules.items()}
    state = torch.get_rng_state()
    report = vk.explain(model, images(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in modules.values())
    assert {path: type(module) for path, module in model.named_modules()} == kinds
    assert without_calls(report) == vk.explain(model)
    assert report.unmatched == ()
    of_layers = {layer.path: layer for layer in report.layers}
    found = calls(report)
    assert found.keys() == {
        path for path, m in modules.items() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    }
    for path, made in found.items():
        runs = of_layers[path].op is not None and "condition_encoder" not in path  # for masks
        assert bool(made) == runs
        for call in made:
            weight = modules[path].weight
            assert (call.op, call.backend) == (of_layers[path].op, "cpu")
            assert (call.dtype, call.weight) == (torch.float32, tuple(weight.shape))
            options = {"padding": "symmetric"} if call.op == "downsample_conv3x3" else {}
            with torch.no_grad():
                expected = vk.explain(call.op, torch.empty(call.x), weight, **options)
            assert call.weight_gradient == expected.weight_gradient
            if not options:  # the other padding may have another algorithm
                assert (call.forward, call.x_gradient) == (expected.forward, expected.x_gradient)


OURS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "kl": lambda: (autoencoders.kl(), autoencoders.images(3, 16, 16)),
    "tiny": lambda: (autoencoders.tiny(), autoencoders.images(3, 16, 16)),
    "pooled": lambda: (vk.nn.TinyBlock(16, pooled=True), torch.randn(1, 16, 8, 8)),
    "vae": lambda: (
        vk.models.VAE(vk.models.VAEConfig(image_shape=(3, 16, 16), latent_dim=4)),
        torch.rand(2, 3, 16, 16),
    ),
    "attention": lambda: (vk.nn.AttentionBlock(32), torch.randn(1, 32, 4, 4)),
    "mixed": lambda: (
        nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1),
            vk.nn.GroupNormSiLU(2, 8),
            vk.nn.ResnetBlock(8, 16, groups=4),
            vk.nn.Downsample(16, padding="symmetric"),
            vk.nn.ConvTranspose4x4(16, 8, activation="relu"),
        ),
        torch.randn(1, 8, 8, 8),
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_our_own_layers_say_what_they_run(name: str) -> None:
    """What is said without running is what is seen when they run: of norms and filters."""
    torch.manual_seed(0)
    model, x = OURS[name]()
    said = {layer.path: layer.op for layer in vk.explain(model).layers if layer.op is not None}
    with vk.accelerate(model), torch.no_grad(), registry.recorded_choices() as choices:
        model(x)
    seen: dict[str, str] = {}
    paths = {id(p): path.rpartition(".")[0] for path, p in model.named_parameters()}
    for choice in choices:
        for argument in ("weight", "norm_weight"):
            if choice.arguments.get(argument) is not None:
                seen[paths[id(choice.arguments[argument])]] = choice.op
    alone = [choice for choice in choices if choice.op == "group_norm_silu"]
    assert {path: op for path, op in said.items() if op != "group_norm_silu"} == seen
    assert sum(op == "group_norm_silu" for op in said.values()) == len(alone)
    report = vk.explain(model, x)
    assert without_calls(report) == vk.explain(model)
    assert report.unfollowed == {}
    for path, made in calls(report).items():
        assert {call.op for call in made} == ({said[path]} if path in said else set())


def test_our_own_layers_are_left_alone() -> None:
    model = nn.Sequential(vk.nn.ResnetBlock(16, groups=4), nn.Conv2d(16, 16, 3, padding=1))
    with vk.accelerate(model):
        changed = [path for path, m in model.named_modules() if "_vaekernels" in str(vars(type(m)))]
    assert changed == ["", "1"]

    class Mine(vk.nn.ResnetBlock):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(self.conv1(x))

    assert [layer.parts for layer in vk.explain(Mine(16, groups=4)).layers][1] == ("conv1",)


@needs_kernels
def test_an_accelerated_model_runs_as_it_is() -> None:
    model = own_model("ResBlock")
    x = images(model)
    usual = vk.explain(model, x)
    assert "F(4x4, 3x3)" in str(usual)
    with vk.accelerate(model, precision="highest"):
        kinds = [type(module) for module in model.modules()]
        exact = vk.explain(model, x)
        assert [type(module) for module in model.modules()] == kinds
    assert "F(2x2, 3x3)" in str(exact)
    assert "F(4x4, 3x3)" not in str(exact)
    with vk.accelerate(model.conv1):
        part = vk.explain(model, x)
        assert "_vaekernels_original" in vars(type(model.conv1))
    assert [bool(made) for made in calls(part).values()] == [True, False]


@needs_kernels
def test_the_printed_lines_and_several_sizes() -> None:
    model = own_model("Updown")
    report = vk.explain(model, x=images(model))
    small, large = calls(report)["up"]
    assert (small.x, large.x) == ((2, 16, 4, 4), (2, 16, 8, 8))
    *_, first, second = str(report).splitlines()
    together = "upsample_conv3x3 (upsampling + up + leaky_relu)"
    assert first == f"  up              {together} on cpu, (2, 16, 4, 4): {small.forward}"
    assert second == f"                  upsample_conv3x3 on cpu, (2, 16, 8, 8): {large.forward}"
    with vk.use_backend("reference"):
        assert "on reference, (2, 16, 4, 4): library: the reference is" in str(
            vk.explain(model, images(model))
        )


def test_what_is_not_called_is_said() -> None:
    model = own_model("Updown").bfloat16()
    report = vk.explain(model, images(model).bfloat16())
    assert set(calls(report).values()) == {()}
    assert "  down_symmetric  downsample_conv3x3, not called on this input" in str(report)


class _Own(nn.Module):
    """Calls an op itself, with filters that accelerate could not run, and with others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, stride=2)
        self.other = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.other(vk.downsample_conv3x3(x, self.conv.weight, self.conv.bias))


def test_what_was_seen_counts() -> None:
    model, x = _Own(), torch.randn(1, 8, 8, 8)
    assert {layer.path: layer.op for layer in vk.explain(model).layers}["conv"] is None
    with vk.use_backend("reference"):
        report = vk.explain(model, x)
    (conv,) = (layer for layer in report.layers if layer.path == "conv")
    assert (conv.op, conv.reason) == ("downsample_conv3x3", "")
    assert conv.calls is not None
    assert [call.x for call in conv.calls] == [(1, 8, 8, 8)]


@needs_kernels
def test_filters_that_are_no_parameter() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))
    report = vk.explain(model, torch.randn(1, 8, 4, 4))
    (call,) = report.unmatched
    assert call.x == (1, 8, 4, 4)
    assert f"  filters that are no parameter: {call}" in str(report).splitlines()


def test_autocast_is_seen_and_filters_are_still_known() -> None:
    model, x = autoencoders.kl("without_attention"), autoencoders.images(1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = vk.explain(model, x)
    assert report.unmatched == ()
    on_ops = [layer for layer in report.layers if layer.op in CONVOLUTIONS and layer.calls]
    assert {(c.backend, c.dtype) for layer in on_ops for c in layer.calls or ()} == {
        ("reference", torch.bfloat16)
    }


@needs_kernels
def test_a_compiled_model_runs_as_python() -> None:
    torch._dynamo.reset()
    model = own_model("ResBlock")
    x = images(model)
    expected = calls(vk.explain(model, x))
    model.compile(backend="eager")
    assert calls(vk.explain(model, x)) == expected
    with vk.accelerate(model), registry.recorded_choices():
        torch.compile(model.forward, backend="eager", fullgraph=True)(x)
    torch._dynamo.reset()


def test_an_error_of_the_model_leaves_it_as_it_was() -> None:
    model = own_model("ConvVAE")
    with pytest.raises(RuntimeError, match="channels"):
        vk.explain(model, images(own_model("ResBlock")))
    assert not any("_vaekernels_original" in vars(type(m)) for m in model.modules())
    arguments: dict[str, Any] = {"y": 1}
    with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
        vk.explain(model, **arguments)
