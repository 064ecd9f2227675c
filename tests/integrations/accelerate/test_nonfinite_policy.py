"""``vk.accelerate(..., on_nonfinite=)``: results in 16 bits that are not finite."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import vaekernels as vk
from tests.integrations.accelerate.models import diffusers_model, images, own_model
from vaekernels.runtime import nonfinite_policy
from vaekernels.utils.tree import tensors_of


def overflowing(dtype: torch.dtype = torch.float16) -> nn.Module:
    """Diffusers' AutoencoderKL; its activations are beyond the dtype's numbers, no result is."""
    model = diffusers_model("AutoencoderKL")
    with torch.no_grad():
        for half in (model.encoder, model.decoder):
            # What the first convolution makes is normalised again: only its size is large.
            half.conv_in.weight.mul_(2.5 * torch.finfo(dtype).max)
    return model.to(dtype)


def latents(model: nn.Module) -> Tensor:
    return torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1)).to(model.dtype)


@pytest.fixture(autouse=True)
def _warns_again() -> None:
    nonfinite_policy._warn_about_retry.cache_clear()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The results that were looked at."""
    seen: list[Tensor] = []
    is_finite = nonfinite_policy._is_finite

    def look(tensor: Tensor) -> bool:
        seen.append(tensor)
        return is_finite(tensor)

    monkeypatch.setattr(nonfinite_policy, "_is_finite", look)
    return seen


@torch.no_grad()
def test_nothing_is_looked_at_unless_asked_for(looks: list[Tensor]) -> None:
    model = overflowing()
    with vk.accelerate(model):
        assert not model.decode(latents(model)).sample.isfinite().all()
    with vk.accelerate(model.float(), on_nonfinite="raise"):
        model.decode(latents(model))  # float32 neither
    assert not looks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_raise_names_what_was_called(dtype: torch.dtype, looks: list[Tensor]) -> None:
    model = overflowing(dtype)
    name = str(dtype)
    with vk.accelerate(model, on_nonfinite="raise"):
        with pytest.raises(vk.NonFiniteError, match=rf"^Decoder\.forward: the result in {name}"):
            model.decode(latents(model))
        with pytest.raises(vk.NonFiniteError, match=rf"^Encoder\.forward: the result in {name}"):
            model.encode(images(model).to(dtype))
        with pytest.raises(vk.NonFiniteError, match="AutoencoderKL.forward: the result 'sample' "):
            model(images(model).to(dtype))
        assert len(looks) == 3  # once for each call, not for each layer
        calm = diffusers_model("AutoencoderKL").to(dtype)
        with vk.accelerate(calm, on_nonfinite="raise"):
            guarded = calm.decode(latents(calm)).sample
        assert torch.equal(guarded, calm.decode(latents(calm)).sample)
        assert len(looks) == 4
    assert not model.decode(latents(model)).sample.isfinite().all()


@torch.no_grad()
def test_retry_is_the_model_in_float32_rounded() -> None:
    model = overflowing()
    z = latents(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wide = copy.deepcopy(model).float()
    attributes = [list(vars(module)) for module in model.modules()]
    vk.accelerate(wide)
    with vk.accelerate(model, on_nonfinite="retry_fp32"):
        copied = copy.deepcopy(model)
        for _ in range(2):
            with pytest.warns(UserWarning, match=r"Decoder\.forward: .*computed again in float32"):
                got = model.decode(z).sample
            nonfinite_policy._warn_about_retry.cache_clear()
        assert got.dtype == torch.float16
        # The decoder's own result is rounded, as is the tensor that post_quant_conv gives it.
        x = model.post_quant_conv(z).float()
        assert torch.equal(got, wide.decoder(x).half())
        assert [list(vars(module)) for module in model.modules()] == attributes
    with pytest.warns(UserWarning, match="Decoder"):
        assert torch.equal(copied.decode(z).sample, got)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def _gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model(x).sample.half().float().square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:AutoencoderKL.forward")
def test_gradients_of_the_second_try_reach_the_weights() -> None:
    """They are those of the model in float32, rounded."""
    model = overflowing()
    x = images(model).half()
    wide = copy.deepcopy(model).float()
    vk.accelerate(wide)
    expected = _gradients(wide, x.float())
    with vk.accelerate(model, on_nonfinite="retry_fp32"):
        for name, gradient in _gradients(model, x).items():
            assert torch.equal(gradient, expected[name].half()), name
        assert model.decoder.conv_out.weight.grad.any()
        model.enable_gradient_checkpointing()
        with pytest.raises(RuntimeError, match="dtype"):
            _gradients(model.train(), x)


@pytest.mark.filterwarnings("ignore:Decoder.forward")
@torch.no_grad()
def test_autocast_is_left_and_an_input_may_be_to_blame() -> None:
    model = overflowing().float()
    z = latents(model)
    with vk.accelerate(model, on_nonfinite="retry_fp32"):
        with torch.autocast("cpu", dtype=torch.float16):
            got = model.decode(z).sample
        assert got.dtype == torch.float16
        assert got.isfinite().all()
        model.half()
        with pytest.raises(vk.NonFiniteError, match="and neither is that of float32"):
            model.decode(torch.full_like(z, torch.nan).half())


@dataclass
class Output(OrderedDict):
    """As diffusers' outputs, but unknown to pytree."""

    sample: Tensor
    kept: Tensor

    def __post_init__(self) -> None:
        self.update(sample=self.sample, kept=self.kept)


WRAPPERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "1": lambda y, x: (x, y),
    "deep.0": lambda y, x: {"x": x, "deep": [y]},
    "sample": Output,
}


class Large(nn.Module):
    """No layer of it is for the ops; the product is beyond float16."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any] = lambda y, x: y) -> None:
        super().__init__()
        self.wrap = wrap
        self.linear = nn.Linear(8, 8)
        nn.init.constant_(self.linear.weight, 60000.0)

    def forward(self, x: Tensor, *, scale: float = 1e-5) -> Any:
        return self.wrap(self.linear(x) * scale, x)


@pytest.mark.filterwarnings("ignore:Large.forward")
@pytest.mark.parametrize("place", WRAPPERS)
@torch.no_grad()
def test_results_of_any_structure(place: str) -> None:
    model = Large(WRAPPERS[place]).half()
    x = torch.ones(2, 8).half()
    named = pytest.raises(vk.NonFiniteError, match=rf"the result '{place}' in torch.float16")
    with vk.accelerate(model, on_nonfinite="raise"), named:
        model(x)
    with vk.accelerate(model, on_nonfinite="retry_fp32"):
        made = model(x, scale=1e-6)
        assert type(made) is type(WRAPPERS[place](x, x))
        found = dict(tensors_of(made))
        assert {tensor.dtype for tensor in found.values()} == {torch.float16}
        assert len(found) == 2
        torch.testing.assert_close(found[place], torch.full((2, 8), 0.48).half())
        with pytest.raises(vk.NonFiniteError, match="up to 480000 are beyond 65504"):
            model(x, scale=1.0)


class _Calls(nn.Module):
    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        self.call()
        return x


@torch.no_grad()
def test_a_thread_has_an_outermost_call_of_its_own() -> None:
    inner, x = Large().half(), torch.ones(2, 8).half()
    vk.accelerate(inner, on_nonfinite="raise")
    raised: list[BaseException] = []

    def call() -> None:
        try:
            inner(x)
        except vk.NonFiniteError as error:
            raised.append(error)

    def in_a_thread() -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    for function, times in ((call, 0), (in_a_thread, 1)):
        outer = _Calls(function)
        with vk.accelerate(outer, on_nonfinite="raise"):
            raised.clear()  # following the forward called it too
            outer(x)
        assert len(raised) == times
    call()  # no call is left open
    assert len(raised) == 2


def test_compilers_and_transforms_do_not_look(looks: list[Tensor]) -> None:
    torch._dynamo.reset()
    model = Large().half()
    x = torch.ones(2, 8).half()
    with vk.accelerate(model, on_nonfinite="raise"), torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert not compiled(x).isfinite().all()
        assert not torch.vmap(model)(x[None]).isfinite().all()
        assert not looks
        with pytest.raises(vk.NonFiniteError):
            model(x)
    torch._dynamo.reset()


def test_what_a_backward_computes_again_is_not_looked_at(looks: list[Tensor]) -> None:
    model = diffusers_model("AutoencoderKL").bfloat16().train()
    model.enable_gradient_checkpointing()
    with vk.accelerate(model, on_nonfinite="raise"):
        # Else it stops before a block has a result.
        with torch.utils.checkpoint.set_checkpoint_early_stop(False):
            sample = model(images(model).bfloat16()).sample
        assert len(looks) == 1
        sample.sum().backward()
    assert len(looks) == 1


def test_a_wrong_choice_and_a_failed_parity_leave_the_model_as_it_was() -> None:
    model = own_model("ResBlock")
    with pytest.raises(ValueError, match=r"accelerate: on_nonfinite must be .*; got 'retry'"):
        vk.accelerate(model, on_nonfinite="retry")
    with pytest.raises(TypeError, match="on_nonfinite needs a model whose forward is Python"):
        vk.accelerate(torch.jit.script(nn.Linear(2, 2)), on_nonfinite="raise")
    large = Large().half()
    with pytest.raises(vk.NonFiniteError):
        vk.accelerate(large, verify=torch.ones(1, 8).half(), on_nonfinite="raise")
    for module in (*model.modules(), *large.modules()):
        assert "_vaekernels_original" not in vars(type(module))
