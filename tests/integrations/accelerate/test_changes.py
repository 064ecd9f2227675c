"""What happens to an accelerated model later: copies, moves, loading, changes of its layers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import vaekernels as vk
from tests.integrations.accelerate.models import (
    ConvVAE,
    ResBlock,
    diffusers_model,
    images,
    needs_kernels,
    own_model,
    result,
)
from vaekernels.integrations.accelerate import chains
from vaekernels.integrations.accelerate.patterns import LayerKind, match_layer


def _is_accelerated(model: nn.Module) -> bool:
    return any(hasattr(type(module), "_vaekernels_original") for module in model.modules())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[LayerKind]]:
    """The kinds of the layers of the chains that ran as ops."""
    done: list[list[LayerKind]] = []
    fused = chains.fused

    def recorded(steps: object, *args: object) -> Tensor | None:
        y = fused(steps, *args)  # type: ignore[arg-type]
        if y is not None:
            done.append([match_layer(step) for step in steps])  # type: ignore[attr-defined]
        return y

    monkeypatch.setattr(chains, "fused", recorded)
    return done


@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy])
def test_a_copy_is_accelerated_and_stands_by_itself(copier, calls) -> None:
    model = own_model("ResBlock")
    x = images(model)
    handle = vk.accelerate(model)
    expected = model(x)
    twin = copier(model)
    handle.restore()
    calls.clear()
    assert torch.equal(twin(x), expected)
    conv = [LayerKind.GROUP_NORM, LayerKind.SILU, LayerKind.CONV3X3]
    dropout = LayerKind.IDENTITY
    assert calls == [conv, [*conv[:2], dropout, conv[2], LayerKind.RESIDUAL]]
    if copier is copy.deepcopy:
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert torch.equal(twin(x), x)
        assert not torch.equal(model(x), x)
        vk.accelerate(twin).restore()
        assert not _is_accelerated(twin)


def test_a_copy_of_diffusers_model() -> None:
    model = diffusers_model("AutoencoderKL")
    x = images(model)
    with vk.accelerate(model):
        twin = copy.deepcopy(model)
        expected = result(model, x)
    assert not _is_accelerated(model)
    assert torch.equal(result(twin, x), expected)
    assert type(twin).__name__ == "AutoencoderKL"
    assert isinstance(twin, type(model))


def test_pickling_says_what_to_do() -> None:
    model = own_model("ConvVAE")
    handle = vk.accelerate(model)
    for save in (pickle.dumps, lambda m: torch.save(m, io.BytesIO())):
        with pytest.raises(TypeError, match=r"save model.state_dict\(\), or call restore\(\)"):
            save(model)
    handle.restore()
    pickle.loads(pickle.dumps(model))


@needs_kernels
def test_accelerating_twice_is_the_last_one(calls) -> None:
    model = own_model("ResBlock")
    x = images(model)
    first = vk.accelerate(model)
    default = model(x)
    vk.accelerate(model, precision="highest")
    assert not torch.equal(model(x), default)
    inner = vk.accelerate(model.conv1)
    inner.restore()
    first.restore()
    assert not _is_accelerated(model)
    vk.accelerate(model)
    assert torch.equal(model(x), default)


@needs_kernels
def test_the_precision_in_force_is_that_of_the_call() -> None:
    model = own_model("Updown")
    x = images(model)
    with vk.accelerate(model):
        high = model(x)
        with vk.set_conv_precision("highest"):
            highest = model(x)
    with vk.accelerate(model, precision="highest"):
        assert torch.equal(model(x), highest)
        assert not torch.equal(high, highest)
    with vk.accelerate(model, precision="medium"):  # on CPUs the same as "high"
        assert torch.equal(model(x), high)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_run_as_before(dtype: torch.dtype, calls) -> None:
    model = own_model("ResBlock")
    x = images(model)
    expected = copy.deepcopy(model).to(dtype)(x.to(dtype))
    vk.accelerate(model)
    model.to(dtype)
    assert torch.equal(model(x.to(dtype)), expected)
    assert not calls
    model.float()
    model(x)
    assert calls


def test_a_loaded_state_counts() -> None:
    model, other = own_model("ConvVAE"), ConvVAE().eval()
    x = images(model)
    expected = other(x)
    vk.accelerate(model)
    with torch.no_grad():
        model(x)  # filters are kept
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        model.load_state_dict(
            {k: v.clone() for k, v in own_model("ConvVAE").state_dict().items()}, assign=True
        )
        assert not torch.allclose(model(x), expected, rtol=1e-4, atol=1e-5)


class Switches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.act: nn.Module | None = nn.ReLU()
        self.gain = 1.0
        self.layers = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        x = self.conv(x)
        if self.act is not None:
            x = self.act(x)
        return x if self.gain == 1.0 else x * self.gain


@pytest.mark.parametrize(
    "change", ["gain", "act", "none", "append", "stride", "circular", "forward"]
)
def test_changes_of_a_model_count(change: str) -> None:
    torch.manual_seed(0)
    model = Switches()
    x = torch.randn(2, 16, 9, 9)
    handle = vk.accelerate(model)
    before = model(x)
    if change == "gain":
        model.gain = 3.0
    elif change == "act":
        model.act = nn.Mish()
    elif change == "none":
        model.act = None
    elif change == "append":
        model.layers.append(nn.Conv2d(16, 16, 1))
    elif change == "stride":
        model.conv.stride = (2, 2)
    elif change == "circular":
        model.conv.padding_mode = "circular"
        model.conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    else:
        model.conv.forward = lambda t: t  # type: ignore[method-assign]
    got = model(x)
    handle.restore()
    torch.testing.assert_close(got, model(x), rtol=1e-4, atol=1e-5)
    assert got.shape != before.shape or not torch.allclose(got, before, atol=1e-3)


class Block(nn.Module):
    """A residual block with a projection, whose layers are all in chains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 16)
        nn.init.uniform_(self.norm.weight)
        nn.init.uniform_(self.norm.bias)
        self.act: nn.Module = nn.SiLU()
        self.conv = nn.Conv2d(16, 24, 3, padding=1)
        self.leaky = nn.LeakyReLU(0.1)
        self.shortcut = nn.Conv2d(16, 24, 1)
        self.tail = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.shortcut(x) + self.conv(self.act(self.norm(x)))
        return self.tail(self.leaky(self.tail[0](y)))


def _halve(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output * 0.5


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _scaled_class(layer: nn.Module) -> type[nn.Module]:
    """The class of ``layer``, with a property that shadows the parameter ``weight``."""
    weight = property(lambda self: self._parameters["weight"] * 3)
    return type(type(layer).__name__, (type(layer),), {"weight": weight})


# What users change between two calls, in the ways in which it can be done.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "attribute of a norm": lambda m: setattr(m.norm, "eps", 1.0),
    "groups": lambda m: setattr(m.norm, "num_groups", 2),
    "slope": lambda m: setattr(m.leaky, "negative_slope", 0.5),
    "slope that no op has": lambda m: setattr(m.leaky, "negative_slope", -0.5),
    "attribute in __dict__": lambda m: m.tail[0].__dict__.update(stride=(2, 2)),
    "stride in a list": lambda m: setattr(m.tail[0], "stride", [2, 2]),
    "child by attribute": lambda m: setattr(m, "act", nn.Identity()),
    "child in _modules": lambda m: m._modules.__setitem__("act", nn.Mish()),
    "child in __dict__": lambda m: m.__dict__.__setitem__("act", torch.tanh),
    "child without a child": lambda m: m._modules.__setitem__("act", nn.Sequential()),
    "child of a sequence": lambda m: m.tail.__setitem__(1, nn.Tanh()),
    "longer sequence": lambda m: m.tail.append(nn.Tanh()),
    "shorter sequence": lambda m: m.tail.__delitem__(1),
    "no weight": lambda m: setattr(m.norm, "weight", None),
    "no bias": lambda m: m.conv.register_parameter("bias", None),
    "another parameter": lambda m: setattr(m.conv, "weight", nn.Parameter(m.conv.weight * 2)),
    "parameter in place": lambda m: m.conv.weight.data.mul_(2),
    "parameter in _parameters": lambda m: m.norm._parameters.__setitem__(
        "weight", nn.Parameter(m.norm.weight * 2)
    ),
    "parameter.data": lambda m: setattr(m.norm.bias, "data", m.norm.bias.data + 1),
    "plain tensor": lambda m: (
        m.conv._parameters.pop("weight"),
        setattr(m.conv, "weight", torch.ones(24, 16, 3, 3)),
    ),
    "property": lambda m: setattr(m.conv, "__class__", _scaled_class(m.conv)),
    "hook": lambda m: m.act.register_forward_hook(_halve),
    "hook on a projection": lambda m: m.shortcut.register_forward_hook(_halve),
    "pre-hook": lambda m: m.conv.register_forward_pre_hook(lambda module, args: args[0] * 2),
    "hook on a sequence": lambda m: m.tail.register_forward_hook(_halve),
    "hook in the dict": lambda m: m.norm._forward_hooks.__setitem__(1 << 40, _halve),
    "hook on the model": lambda m: m.register_forward_hook(_halve),
    "parametrization": lambda m: parametrize.register_parametrization(m.conv, "weight", Doubled()),
    "parametrized norm": lambda m: parametrize.register_parametrization(m.norm, "bias", Doubled()),
    "spectral norm": lambda m: nn.utils.spectral_norm(m.conv).eval(),
    "pruning": lambda m: prune.l1_unstructured(m.conv, "weight", 0.5),
    "forward": lambda m: setattr(m.act, "forward", lambda x: x * 0.5),
    "forward of the model": lambda m: setattr(m, "forward", lambda x: x * 0.5),
    "class": lambda m: setattr(m.act, "__class__", nn.Tanh),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_the_second_call_sees_what_changed(change: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = Block().eval()
    plain = copy.deepcopy(model)
    x = torch.randn(2, 16, 9, 9).to(memory_format=layout)
    handle = vk.accelerate(model)
    assert not handle.report.unfollowed
    before = [model(x) for _ in range(2)][-1]
    torch.testing.assert_close(before, plain(x), rtol=1e-4, atol=1e-5)
    for each in (plain, model):
        torch.manual_seed(1)
        CHANGES[change](each)
    expected = plain(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape != before.shape or not torch.allclose(expected, before, rtol=1e-3)


@torch.no_grad()
def test_a_hook_on_a_projection_whose_layout_is_observed() -> None:
    class Permuted(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = self.shortcut(x) + self.conv(self.act(self.norm(x)))
            return y.permute(0, 2, 3, 1)

    torch.manual_seed(0)
    model = Permuted()
    x = torch.randn(2, 16, 9, 9)
    expected = model(x)
    vk.accelerate(model)
    model.shortcut.register_forward_hook(lambda module, args, output: None)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_dropout_drops_in_training() -> None:
    torch.manual_seed(0)
    model = ResBlock(dropout=0.5)
    x = images(model)
    for training in (True, False):
        model.train(training)
        torch.manual_seed(3)
        expected = model(x)
        with vk.accelerate(model):
            torch.manual_seed(3)
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_a_parametrized_layer() -> None:
    model = own_model("ResBlock")
    x = images(model)
    nn.utils.parametrizations.weight_norm(model.conv1)
    expected = model(x)
    with vk.accelerate(model) as handle:
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        nn.utils.parametrizations.weight_norm(model.conv2)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(RuntimeError, match="the class of conv2, ParametrizedConv2d, was"):
            handle.restore()
        nn.utils.parametrize.remove_parametrizations(model.conv2, "weight")
    assert not _is_accelerated(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_wrong_inputs_have_the_errors_of_the_original() -> None:
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    for x in (torch.zeros(2, 3, 9, 9), torch.zeros(2, 16, 9, 9).double(), torch.zeros(3)):
        with pytest.raises(RuntimeError) as expected:
            model(x)
        with vk.accelerate(model), pytest.raises(RuntimeError) as got:
            model(x)
        assert str(got.value) == str(expected.value)
    unbatched = torch.ones(16, 9, 9)
    with vk.accelerate(model):
        assert model(unbatched).shape == unbatched.shape


@pytest.mark.parametrize("index", [0, 1], ids=["block", "layer"])
@pytest.mark.parametrize("then", ["restore", "with", "again", "otherwise", "guarded"])
@torch.no_grad()
def test_a_bound_forward_that_was_kept_works_whatever_the_class_is_later(
    index: int, then: str
) -> None:
    """Adapters replace ``module.forward`` by one that calls the one that they found."""
    model = nn.Sequential(own_model("ResBlock"), nn.Conv2d(16, 16, 3, padding=1))
    x = images(model[0])
    y = model[0](x)
    expected = model[1](y * 2) if index == 0 else model[1](y) * 2
    handle = vk.accelerate(model, on_nonfinite="raise" if then == "guarded" else None)
    old = model[index].forward
    model[index].forward = lambda t: old(t) * 2
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    if then == "with":
        with handle:
            pass
    elif then in ("again", "otherwise"):
        vk.accelerate(model, precision="highest" if then == "otherwise" else None)
    else:
        handle.restore()
        assert torch.equal(model(x), expected)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("around", [False, True])
@torch.no_grad()
def test_scripting_is_refused_until_the_model_is_restored(around: bool) -> None:
    block = own_model("ResBlock")
    x = images(block)
    expected = block(x)
    model = nn.Sequential(block) if around else block
    handle = vk.accelerate(block)
    with pytest.raises(TypeError, match="restore\\(\\) of the handle first"):
        torch.jit.script(model)
    assert _is_accelerated(model)
    handle.restore()
    torch.testing.assert_close(torch.jit.script(model)(x), expected)
