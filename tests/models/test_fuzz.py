"""Random autoencoders, changed at random between calls, against diffusers' on equal weights."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from tests.models.autoencoders import randomised
from vaekernels.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    AutoencoderTiny,
    AutoencoderTinyConfig,
)

diffusers = pytest.importorskip("diffusers")

SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))]
# Of the largest magnitude: results in float32 of some 60 layers.
BOUND, GRADIENT_BOUND = 2e-4, 2e-3


def _kl(rng: random.Random) -> AutoencoderKL:
    groups = rng.choice((1, 2, 4))
    return AutoencoderKL(
        AutoencoderKLConfig(
            block_out_channels=tuple(groups * rng.randint(1, 6) for _ in range(rng.randint(1, 3))),
            layers_per_block=rng.randint(1, 2),
            norm_num_groups=groups,
            in_channels=rng.randint(1, 4),
            out_channels=rng.randint(1, 4),
            latent_channels=rng.randint(1, 5),
            mid_block_add_attention=rng.random() < 0.7,
            use_quant_conv=rng.random() < 0.5,
            use_post_quant_conv=rng.random() < 0.5,
        )
    )


def _tiny(rng: random.Random) -> AutoencoderTiny:
    levels, width = rng.randint(1, 3), rng.choice((3, 8, 17))
    blocks = tuple(rng.randint(1, 2) for _ in range(levels))
    return AutoencoderTiny(
        AutoencoderTinyConfig(
            in_channels=rng.randint(1, 4),
            out_channels=rng.randint(1, 4),
            latent_channels=rng.randint(1, 5),
            encoder_block_out_channels=(width,) * levels,
            decoder_block_out_channels=(width,) * levels,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
        )
    )


def _twin(ours: Any) -> Any:
    values = {k: v for k, v in ours.config.to_dict().items() if k != "pooled_bottleneck"}
    if isinstance(ours, AutoencoderTiny):
        del values["block_out_channels"]
    theirs = getattr(diffusers, type(ours).__name__)(**values)
    theirs.load_state_dict(ours.state_dict())
    return theirs


class _Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


class _Wrapper(nn.Module):
    """In the place of a layer, as adapters are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner(*args, **kwargs).tanh()


def _wrap(model: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, _Wrapper(model.get_submodule(name)))


def _write(layer: Any, seed: int) -> None:
    """Into one element, past PyTorch's version counter."""
    index = seed % layer.weight.numel()
    layer.weight.data.view(-1)[index] += 1.0


def _grow(layer: Any, seed: int) -> None:
    layer.weight = nn.Parameter(layer.weight.detach() * 1.5)


def _circular(layer: Any, seed: int) -> None:
    layer.padding_mode = "circular"
    layer._reversed_padding_repeated_twice = [p for p in reversed(layer.padding) for _ in "12"]


def _prune(layer: Any, seed: int) -> None:
    torch.manual_seed(seed)
    prune.random_unstructured(layer, "weight", 0.5)


def _forward(layer: Any, seed: int) -> None:
    own = layer.forward
    layer.forward = lambda *args, **kwargs: own(*args, **kwargs).sin()


OF_ANY: tuple[Callable[[Any, int], object], ...] = (
    lambda m, _: m.register_forward_hook(lambda m, args, y: y.tanh()),
    lambda m, _: m.register_forward_pre_hook(lambda m, args: (args[0].tanh(), *args[1:])),
    _forward,
)
OF_WEIGHTS: tuple[Callable[[Any, int], object], ...] = (
    _write,
    _write,
    _grow,
    _prune,
    lambda m, _: parametrize.register_parametrization(m, "weight", _Halved()),
)


def _change(rng: random.Random, models: tuple[Any, Any]) -> str:
    """One change of the same module of both; what it is."""
    # Lists are not called, and a block of diffusers has one ReLU in two places.
    others = (nn.ModuleList, nn.ReLU)
    names = [name for name, m in models[0].named_modules() if name and not isinstance(m, others)]
    name, seed = rng.choice(names), rng.getrandbits(30)
    layer = models[0].get_submodule(name)
    kinds = list(OF_ANY)
    if isinstance(getattr(layer, "weight", None), nn.Parameter):
        kinds += OF_WEIGHTS * 2
    if type(layer) is nn.Conv2d:
        kinds.append(_circular)
    if rng.random() < 0.15:
        for model in models:
            _wrap(model, name)
        return f"wrapper of {name}"
    kind = rng.choice(kinds)
    for model in models:
        kind(model.get_submodule(name), seed)
    return f"{getattr(kind, '__name__', kind)} of {name}"


def _results(model: Any, half: str, x: Tensor, gradients: bool) -> list[Tensor]:
    x = x.clone().requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        found = getattr(model, half)(x)
        if half == "decode":
            y = found.sample
        elif hasattr(found, "latents"):
            y = found.latents
        else:
            y = torch.cat((found.latent_dist.mean, found.latent_dist.logvar), 1)
    if not gradients:
        return [y]
    named = dict(sorted(model.named_parameters()))
    weights = torch.linspace(-1.0, 1.0, y.numel()).view_as(y)
    made = torch.autograd.grad((y * weights).sum(), [x, *named.values()], allow_unused=True)
    return [y.detach(), *(gradient for gradient in made if gradient is not None)]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models_and_changes(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    ours = randomised((_kl, _tiny)[seed % 2](rng)).train(rng.random() < 0.5)
    models = (ours, _twin(ours).train(ours.training))
    done: list[str] = []
    for _ in range(5):
        half = rng.choice(("encode", "decode"))
        # PyTorch refuses to normalise one number.
        least = 2 * ours.downscaling if half == "encode" else 2
        size = rng.randint(least, least + 13), rng.randint(least, least + 13)
        channels = ours.image_channels if half == "encode" else ours.latent_channels
        x = torch.rand(rng.randint(1, 3), channels, *size) * 2 - 1
        gradients = rng.random() < 0.3
        got, expected = (_results(model, half, x, gradients) for model in models)
        # Some gradients are zero but for rounding, as of a bias before a normalisation.
        largest = max(float(gradient.abs().max()) for gradient in expected[1:] or expected)
        for index, (a, b) in enumerate(zip(got, expected, strict=True)):
            scale = max(float(b.abs().max()), 0.01 * largest if index else 0.0)
            error = float((a - b).abs().max()) / scale
            bound = GRADIENT_BOUND if index else BOUND
            assert error <= bound, (seed, half, tuple(x.shape), done, index, error)
        done.append(_change(rng, models))
