"""``on_nonfinite`` of the autoencoders."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import vaekernels as vk
from tests.models import autoencoders
from vaekernels.models import AutoencoderKL
from vaekernels.runtime import nonfinite_policy

SIZES = {torch.float16: 65504.0, torch.bfloat16: 3.3e38}


def overflowing(dtype: torch.dtype) -> AutoencoderKL:
    """A model whose activations overflow ``dtype`` in both halves, but not its float32 results."""
    model = autoencoders.kl("without_attention")
    with torch.no_grad():
        for half in (model.encoder, model.decoder):
            # The result of the first convolution is normalised again: only its magnitude is large.
            half.conv_in.weight.mul_(2.5 * SIZES[dtype])
    return model.to(dtype)


def inputs(model: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    return autoencoders.images(1, 8, 8).to(model.dtype), torch.randn(2, 3, 4, 4).to(model.dtype)


@pytest.fixture(autouse=True)
def _warns_again() -> None:
    nonfinite_policy._warn_about_retry.cache_clear()


def test_the_default_checks_nothing() -> None:
    model = overflowing(torch.float16)
    image, latent = inputs(model)
    assert model.on_nonfinite is None
    with torch.no_grad():
        assert not model.decode(latent).sample.isfinite().all()
        assert not model.encode(image).latent_dist.mean.isfinite().all()


def test_raise_names_model_method_and_dtype() -> None:
    model = overflowing(torch.float16)
    model.on_nonfinite = "raise"
    image, latent = inputs(model)
    with torch.no_grad():
        with pytest.raises(vk.NonFiniteError, match=r"AutoencoderKL\.decode: .*float16.*retry"):
            model.decode(latent)
        with pytest.raises(vk.NonFiniteError, match=r"AutoencoderKL\.encode: .*float16.*bfloat16"):
            model.reconstruct(image)
        with pytest.raises(vk.NonFiniteError, match=r"AutoencoderKL\.decode"):
            model.decode_scaled(latent, max_memory="1GiB")


def test_retry_is_the_model_in_float32_rounded() -> None:
    model = overflowing(torch.float16)
    model.on_nonfinite = "retry_fp32"
    wide = copy.deepcopy(model).float()
    image, latent = inputs(model)
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    with torch.no_grad():
        with pytest.warns(UserWarning, match=r"AutoencoderKL\.decode: .*computed again in float32"):
            got = model.decode(latent).sample
        assert got.dtype == torch.float16
        assert torch.equal(got, wide.decode(latent.float()).sample.half())
        with pytest.warns(UserWarning, match=r"AutoencoderKL\.encode"):
            mean = model.encode(image).latent_dist.mean
        assert torch.equal(mean, wide.encode(image.float()).latent_dist.mean.half())
        assert model.decode(latent, max_memory="64MiB").sample.isfinite().all()
    assert model.dtype == torch.float16
    for name, p in model.state_dict().items():
        assert torch.equal(p, weights[name]), name


def test_bfloat16() -> None:
    model = overflowing(torch.bfloat16)
    _, latent = inputs(model)
    with torch.no_grad():
        assert not model.decode(latent).sample.isfinite().all()
        model.on_nonfinite = "raise"
        with pytest.raises(vk.NonFiniteError, match="bfloat16"):
            model.decode(latent)


@pytest.mark.filterwarnings("ignore:AutoencoderKL.decode")
def test_gradients_of_the_second_try_reach_the_weights() -> None:
    model = overflowing(torch.float16)
    model.on_nonfinite = "retry_fp32"
    _, latent = inputs(model)
    model.decode(latent).sample.float().square().mean().backward()
    grad = model.decoder.conv_out.weight.grad
    assert grad is not None
    assert grad.dtype == torch.float16
    assert grad.isfinite().all()
    assert grad.any()


@pytest.mark.filterwarnings("ignore:AutoencoderKL.decode")
def test_autocast_is_left() -> None:
    model = overflowing(torch.float16).float()
    model.on_nonfinite = "retry_fp32"
    _, latent = inputs(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        got = model.decode(latent).sample
    assert got.dtype == torch.float16
    with torch.no_grad():
        assert torch.equal(got, model.decode(latent).sample.half())


@pytest.mark.filterwarnings("ignore:AutoencoderKL.decode")
def test_an_input_that_is_not_finite_is_said_to_be_it() -> None:
    model = autoencoders.kl("without_attention", torch.float16)
    model.on_nonfinite = "retry_fp32"
    latent = torch.full((1, 3, 4, 4), torch.nan, dtype=torch.float16)
    with torch.no_grad(), pytest.raises(vk.NonFiniteError, match="neither is that of float32"):
        model.decode(latent)


def partly_overflowing() -> tuple[AutoencoderKL, torch.Tensor]:
    """A model whose first activation overflows for the last two latents of four alone."""
    model = overflowing(torch.float16)
    with torch.no_grad():
        model.post_quant_conv.bias.zero_()
    _, latent = inputs(model)
    latents = latent.repeat(2, 1, 1, 1)
    latents[:2] *= 1e-3
    return model, latents


@pytest.mark.filterwarnings("ignore:AutoencoderKL.decode")
@pytest.mark.parametrize("bound", [None, "64MiB"])
def test_only_the_images_that_are_not_finite_are_computed_again(
    bound: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, latents = partly_overflowing()
    retried = []
    in_float32 = nonfinite_policy._in_float32

    def counted(model: Any, call: Any, args: Any, *rest: Any) -> Any:
        retried.append(len(args[0]))
        return in_float32(model, call, args, *rest)

    monkeypatch.setattr(nonfinite_policy, "_in_float32", counted)
    with torch.no_grad():
        half = model.decode(latents, max_memory=bound).sample
        wide = copy.deepcopy(model).float().decode(latents.float(), max_memory=bound).sample
        assert half.isfinite().flatten(1).all(1).tolist() == [True, True, False, False]
        model.on_nonfinite = "retry_fp32"
        got = model.decode(latents, max_memory=bound).sample
    assert torch.equal(got[:2], half[:2])
    assert torch.equal(got[2:], wide[2:].half())
    assert got.stride() == half.stride()
    assert retried == [2]


@pytest.mark.filterwarnings("ignore:AutoencoderKL.decode")
def test_gradients_of_a_batch_of_which_a_part_is_computed_again() -> None:
    model, latents = partly_overflowing()
    model.on_nonfinite = "retry_fp32"
    latents.requires_grad_()
    image = model.decode(latents).sample
    image.float().square().mean().backward()
    gradients = [latents.grad, *(p.grad for p in model.decoder.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert latents.grad.abs().amax((1, 2, 3)).gt(0).all()


@pytest.mark.filterwarnings("ignore:AutoencoderKL.decode")
def test_finite_results_beyond_float16_are_said_to_be_that() -> None:
    model = autoencoders.kl("without_attention", torch.float16)
    with torch.no_grad():
        model.decoder.conv_out.bias.fill_(6.5e4)
        model.decoder.conv_out.weight.mul_(3e4)
        model.on_nonfinite = "retry_fp32"
        with pytest.raises(vk.NonFiniteError, match=r"up to \S+ are beyond 65504, .*float16"):
            model.decode(inputs(model)[1])


def test_finite_results_and_float32_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float16, torch.float32):
        model = autoencoders.kl("without_attention", dtype)
        _, latent = inputs(model)
        with torch.no_grad():
            expected = model.decode(latent).sample
            for choice in ("raise", "retry_fp32"):
                model.on_nonfinite = choice
                assert torch.equal(model.decode(latent).sample, expected)
    monkeypatch.setattr(nonfinite_policy, "_is_finite", None)  # float32 is not even looked at
    with torch.no_grad():
        model.decode(latent)


def test_other_choices_are_refused_and_tiny_autoencoders_have_it_too() -> None:
    for model in (autoencoders.kl("without_attention"), autoencoders.tiny()):
        with pytest.raises(ValueError, match="on_nonfinite must be None, 'raise' or 'retry_fp32'"):
            model.on_nonfinite = "retry"
        model.on_nonfinite = "raise"
        assert copy.deepcopy(model).on_nonfinite == "raise"
