"""What happens to an accelerated model later: copies, moves, loading, changes of its layers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

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
