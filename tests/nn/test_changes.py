"""Modified layers: every modification has the effect that it has in PyTorch."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune, spectral_norm

import vaekernels as vk
from tests.models import autoencoders
from vaekernels.models import VAE, AutoencoderKL, AutoencoderKLConfig, VAEConfig
from vaekernels.models.autoencoder import base
from vaekernels.models.vae.likelihoods import Likelihood
from vaekernels.nn import layer_chain


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers as small as these are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def kl() -> AutoencoderKL:
    """A model with every kind of layer."""
    torch.manual_seed(0)
    config = AutoencoderKLConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
    return autoencoders.randomised(AutoencoderKL(config)).eval()


@functools.cache
def tiny() -> Any:
    torch.manual_seed(0)
    fields = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    config = vk.models.AutoencoderTinyConfig(**fields, pooled_bottleneck=True)
    return autoencoders.randomised(vk.models.AutoencoderTiny(config)).eval()


@functools.cache
def vae(activation: str) -> VAE:
    torch.manual_seed(0)
    config = VAEConfig((2, 8, 8), 3, "conv", (4, 6), activation=activation)
    return VAE(config).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "kl": kl,
    "tiny": tiny,
    **{f"vae {name}": functools.partial(vae, name) for name in ("relu", "silu", "leaky_relu")},
}


def run(model: Any, name: str = "", gradients: bool = False) -> Tensor:
    """Run the encoder or decoder that contains ``name``; ``gradients``: the input requires one."""
    generator = torch.Generator().manual_seed(1)
    encodes = name.startswith(("encoder", "quant_conv"))
    if not encodes:
        shape = (2, 3) if isinstance(model, VAE) else (2, 4, 4, 4)
        return model.decode(torch.randn(shape, generator=generator).requires_grad_(gradients)).raw
    x = torch.rand(2, 2 if isinstance(model, VAE) else 3, 8, 8, generator=generator)
    found = model.encode(x.requires_grad_(gradients))
    return found.latents if hasattr(found, "latents") else found.latent_dist.mean


@contextlib.contextmanager
def changed(
    model: Any, name: str, change: Callable[[Any, pytest.MonkeyPatch], object]
) -> Iterator[pytest.MonkeyPatch]:
    """Change the module ``name`` and restore it at the end."""
    module = model.get_submodule(name)
    kind = module.__class__
    state = {k: copy.copy(v) if isinstance(v, dict) else v for k, v in module.__dict__.items()}
    with pytest.MonkeyPatch.context() as patch:
        change(module, patch)
        yield patch
    module.__class__ = kind
    module.__dict__.clear()
    module.__dict__.update(state)


def called(model: nn.Module) -> list[str]:
    """The modules that a forward calls: all except lists and modules without a forward."""
    lists = (nn.ModuleList, Likelihood)
    return [name for name, m in model.named_modules() if name and not isinstance(m, lists)]


def test_every_module_is_called_once() -> None:
    """With hooks on all modules at once, each module is called exactly once."""
    seen: list[str] = []
    for make in MODELS.values():
        model = make()
        handles = [
            model.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
            for name in called(model)
        ]
        for half in ("encoder", "decoder"):
            run(model, half)
        for handle in handles:
            handle.remove()
        assert sorted(seen) == sorted(called(model))
        seen.clear()


def everything_is_called(patch: pytest.MonkeyPatch) -> None:
    """Make all chains call their layers, as plain PyTorch does."""
    for module in (layer_chain, base):
        patch.setattr(module, "first_modified", lambda used: nn.Identity())


def _squashed(module: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: forward(*args, **kwargs).tanh()


def _own_forward(m: Any, patch: pytest.MonkeyPatch) -> None:
    m.forward = _squashed(m, m.forward)


def _class_forward(m: Any, patch: pytest.MonkeyPatch) -> None:
    forward = type(m).forward
    patch.setattr(type(m), "forward", lambda self, *args: forward(self, *args).tanh())


def _subclass(m: Any, patch: pytest.MonkeyPatch) -> None:
    kind = type(m)
    m.__class__ = type("Own", (kind,), {"forward": lambda self, *a: kind.forward(self, *a).tanh()})


def _compiled(m: Any, patch: pytest.MonkeyPatch) -> None:
    m._compiled_call_impl = _squashed(m, m._call_impl)


CHANGES: dict[str, Callable[[Any, pytest.MonkeyPatch], object]] = {
    "forward hook": lambda m, _: m.register_forward_hook(lambda m, args, y: y.tanh()),
    "forward pre-hook": lambda m, _: m.register_forward_pre_hook(lambda m, args: (args[0].tanh(),)),
    "forward": _own_forward,
    "forward of the class": _class_forward,
    "subclass": _subclass,
    "compile": _compiled,
}


# Changes with the same effect.
SQUASHED = [name for name in CHANGES if name not in ("forward pre-hook", "forward of the class")]


@torch.no_grad()
def check(
    model: Any, name: str, change: Callable[..., object], expected: Tensor | None = None
) -> Tensor:
    """Check that ``change`` has its effect in plain PyTorch; returns the result with the change."""
    before = run(model, name)
    with changed(model, name, change) as patch:
        got = run(model, name)
        if expected is None:
            everything_is_called(patch)
            expected = run(model, name)
    scale = torch.maximum(before.abs().max(), expected.abs().max())
    assert (got - expected).abs().max() <= 2e-5 * scale, name
    assert (before - expected).abs().max() > 2e-5 * scale, name
    assert torch.equal(run(model, name), before)
    return expected


@pytest.mark.parametrize("model", MODELS)
def test_every_module_of_every_model(model: str) -> None:
    module = MODELS[model]()
    for name in called(module):
        squashed = check(module, name, CHANGES["forward hook"])
        for kind, change in CHANGES.items():
            check(module, name, change, squashed if kind in SQUASHED else None)


def _circular(m: Any, patch: pytest.MonkeyPatch) -> None:
    m.padding_mode, m._reversed_padding_repeated_twice = "circular", [1] * 4


def _dilated(m: Any, patch: pytest.MonkeyPatch) -> None:
    m.dilation = (2, 2)
    m.padding = tuple(p + k // 2 for p, k in zip(m.padding, m.kernel_size, strict=True))


def _conv_forward(m: Any, patch: pytest.MonkeyPatch) -> None:
    m._conv_forward = lambda x, weight, bias: F.conv2d(x, 2 * weight, bias, m.stride, m.padding)


def _class_conv_forward(m: Any, patch: pytest.MonkeyPatch) -> None:
    own = nn.Conv2d._conv_forward
    patch.setattr(nn.Conv2d, "_conv_forward", lambda m, x, w, b: own(m, x, 2 * w, b))


def _norm_without_affine(m: Any, patch: pytest.MonkeyPatch) -> None:
    m.weight = m.bias = None


def _exchanged(m: Any, patch: pytest.MonkeyPatch) -> None:
    m.__class__ = LoRA
    m.inner = nn.Conv2d(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding)


class LoRA(nn.Module):
    """A replacement of a layer, without its attributes."""

    def forward(self, x: Tensor) -> Tensor:
        return 3.0 * self.inner(x)


def _pruned(m: Any, patch: pytest.MonkeyPatch) -> None:
    prune.random_unstructured(m, "weight", 0.5)


def _parametrized(m: Any, patch: pytest.MonkeyPatch) -> None:
    parametrize.register_parametrization(m, "weight", Half())


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


OF_CONVOLUTIONS: dict[str, Callable[[Any, pytest.MonkeyPatch], object]] = {
    "padding_mode": _circular,
    "dilation": _dilated,
    "_conv_forward": _conv_forward,
    "_conv_forward of the class": _class_conv_forward,
    "another module": _exchanged,
}
OF_WEIGHTS: dict[str, Callable[[Any, pytest.MonkeyPatch], object]] = {
    "prune": _pruned,
    "parametrization": _parametrized,
    "spectral norm": lambda m, _: spectral_norm(m),
    "weight": lambda m, _: setattr(m, "weight", nn.Parameter(-m.weight)),
}


def _named(model: str, kind: type[nn.Module], larger: int = 1) -> list[str]:
    """Modules of ``kind``; of convolutions those with kernels of at least this size."""
    found = MODELS[model]().named_modules()
    return [
        name
        for name, m in found
        if isinstance(m, kind) and (not isinstance(m, nn.Conv2d) or m.kernel_size[0] >= larger)
    ]


@pytest.mark.parametrize("change", OF_CONVOLUTIONS)
@pytest.mark.parametrize("model", ["kl", "tiny", "vae relu"])
def test_every_convolution(model: str, change: str) -> None:
    for name in _named(model, nn.Conv2d, larger=3):
        padded = MODELS[model]().get_submodule(name).padding != (0, 0)
        if padded or change != "padding_mode":
            check(MODELS[model](), name, OF_CONVOLUTIONS[change])


@pytest.mark.parametrize("change", OF_WEIGHTS)
@pytest.mark.parametrize("model", ["kl", "tiny", "vae relu"])
def test_every_weight(model: str, change: str) -> None:
    for name in _named(model, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
        check(MODELS[model](), name, OF_WEIGHTS[change])


def test_every_normalisation() -> None:
    for model in ("kl", "tiny"):
        for name in _named(model, nn.GroupNorm):
            check(MODELS[model](), name, _norm_without_affine)
            check(MODELS[model](), name, lambda m, _: setattr(m, "eps", 0.1))


FUNCTIONS = {
    "conv2d": ("kl", "tiny", "vae relu"),
    "conv_transpose2d": ("vae relu", "vae silu"),
    "group_norm": ("kl", "tiny"),
    "silu": ("kl", "vae silu"),
    "relu": ("tiny", "vae relu"),
    "leaky_relu": ("vae leaky_relu",),
    "linear": ("kl", "vae relu"),
    "interpolate": ("kl", "tiny"),
    "pad": ("kl",),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_torch(function: str) -> None:
    """PyTorch's function is replaced by another one."""
    for model in FUNCTIONS[function]:
        half = "encoder" if function == "pad" else "decoder"
        if (function, model) == ("conv2d", "vae relu"):
            half = "encoder"

        def replace(m: Any, patch: pytest.MonkeyPatch) -> None:
            patch.setattr(F, function, _squashed(m, getattr(F, function)))

        check(MODELS[model](), half, replace)


@pytest.mark.parametrize("model", MODELS)
def test_global_hooks(model: str) -> None:
    """Global hooks are called for every module."""
    module, seen = MODELS[model](), set()
    handle = register_module_forward_hook(lambda m, args, y: seen.add(id(m)))
    try:
        with torch.no_grad():
            for half in ("encoder", "decoder"):
                run(module, half)
    finally:
        handle.remove()
    missed = [name for name in called(module) if id(module.get_submodule(name)) not in seen]
    assert missed == []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("hook", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_backward_hooks(model: str, hook: str) -> None:
    module, seen = MODELS[model](), set()
    for name in called(module):
        with changed(
            module, name, lambda m, _, name=name: getattr(m, hook)(lambda *_: seen.add(name))
        ):
            run(module, name, gradients=True).square().sum().backward()
    module.zero_grad()
    assert seen == set(called(module))


def test_exchanged_layers() -> None:
    """Children that were exchanged, inserted, appended or removed."""
    model = copy.deepcopy(tiny())
    with torch.no_grad():
        z = torch.randn(1, 4, 4, 4)
        layers = model.decoder.layers
        for change in (
            lambda: layers.insert(2, nn.Tanh()),
            lambda: layers.append(nn.Tanh()),
            lambda: layers.__setitem__(1, nn.SiLU()),
            lambda: layers[3].conv.__setitem__(1, nn.SiLU()),
            lambda: layers[3].conv.append(nn.Tanh()),
            lambda: layers.insert(-1, nn.Upsample(scale_factor=2)),
            lambda: setattr(model.decoder, "layers", nn.Sequential(*layers)[:-1]),
        ):
            before = model.decode(z).sample
            change()
            x = torch.tanh(z / 3) * 3
            for layer in model.decoder.layers:
                x = layer(x)
            got = model.decode(z).sample
            torch.testing.assert_close(got, x * 2 - 1, atol=1e-5, rtol=0)
            assert got.shape != before.shape or not torch.allclose(got, before, atol=1e-4)
        model = copy.deepcopy(kl())
        block = model.decoder.mid_block.resnets[0]
        model.decoder.mid_block.resnets[0] = nn.Sequential(block, nn.Tanh())
        got = model.decode(z).sample
        model.decoder.mid_block.resnets[0] = block
        block.register_forward_hook(lambda m, args, y: y.tanh())
        torch.testing.assert_close(got, model.decode(z).sample)
        model.decoder = nn.Conv2d(4, 3, 1)
        expected = model.decoder(model.post_quant_conv(z))
        assert torch.equal(model.decode(z).sample, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("decoder.mid_block.resnets.0.conv1", r"decoder\.mid_block\.resnets\.0\.conv1 was changed"),
        ("decoder.up_blocks.0", r"decoder\.up_blocks\.0 was changed"),
        ("post_quant_conv", "post_quant_conv was changed"),
        ("decoder.mid_block.attentions.0.to_q", r"to_q was changed"),
    ],
)
def test_tiled_execution_rejects_modified_layers(name: str, message: str) -> None:
    model, z = kl(), torch.randn(1, 4, 4, 4)
    with changed(model, name, CHANGES["forward hook"]):
        for bound in ("1GiB", "1KiB"):
            with pytest.raises(ValueError, match=f"AutoencoderKL: max_memory .*{message}"):
                model.decode(z, max_memory=bound)
        with pytest.raises(ValueError, match=message):
            model.plan_decode(z.shape, "1GiB")
        model.encode(torch.zeros(1, 3, 8, 8), max_memory="1GiB")
    model.decode(z, max_memory="1GiB")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "silu", lambda x: x)
        with pytest.raises(
            ValueError, match=r"torch\.nn\.functional's function of SiLU was changed"
        ):
            model.decode(z, max_memory="1GiB")


def test_changes_before_compilation_are_compiled() -> None:
    torch._dynamo.reset()
    model, z = kl(), torch.randn(1, 4, 4, 4)
    with torch.no_grad(), changed(model, "decoder.conv_in", CHANGES["forward"]):
        compiled = torch.compile(lambda z: model.decode(z).sample, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(z), model.decode(z).sample)
    torch._dynamo.reset()


@pytest.mark.parametrize("place", ((nn.GroupNorm, "forward"), (F, "silu")), ids=("norm", "silu"))
def test_either_half_of_a_fused_layer_may_be_replaced(
    place: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, layer = torch.randn(2, 8, 5, 5), vk.nn.GroupNormSiLU(4, 8)
    unchanged, original = layer(x), getattr(*place)
    monkeypatch.setattr(*place, lambda *args, **options: 2.0 * original(*args, **options))
    expected = F.silu(nn.GroupNorm.forward(layer, x))
    torch.testing.assert_close(layer(x), expected)
    assert not torch.allclose(unchanged, expected)
