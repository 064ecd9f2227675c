"""Base class of the image autoencoders: input checks and memory bounds."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekernels.models.config_base import Config
from vaekernels.models.image_range import check_range
from vaekernels.models.pretrained import PretrainedModel
from vaekernels.nn.expected_layers import is_conv1x1
from vaekernels.nn.layer_chain import (
    Chain,
    Step,
    first_modified,
    is_unmodified_chain,
    pointwise_step,
    run_steps,
)
from vaekernels.runtime.nonfinite_policy import checked_choice, guarded_images, warn_if_slow
from vaekernels.tiling import MemoryModel, Plan, make_plan, parse_bytes, run_plan

# Pixels of a batch; at one megapixel the decoder's activations take gigabytes in float32.
_LARGE = 1024 * 1024
_IMAGE_RANGE = (-1.0, 1.0)


class Autoencoder(PretrainedModel):
    """An autoencoder of images in [-1, 1] whose encoder and decoder are chains of steps.

    Layers that were modified (hooks, another ``forward`` or attribute, another module in their
    place) are called as modules; ``max_memory`` then raises an error.

    Attributes:
        check_range: whether :meth:`encode` checks that images are in [-1, 1], in one pass that
            synchronises with a GPU. NaN propagates to the result, and the other values are checked
            all the same; ``encode_scaled`` raises an error for NaN. Set it to False if all images
            are known to be in range. Replays of :func:`vk.graph` do not check.
        on_nonfinite: the action if a result of encoding or decoding in float16 or bfloat16 is not
            finite. None (default): no check. ``"raise"``: raise ``vk.NonFiniteError``.
            ``"retry_fp32"``: repeat the call in float32, with copies of the weights and without
            autocast, round the result, and warn once. The check is one pass over the result and
            synchronises with a GPU. Replays of :func:`vk.graph` do not check.
    """

    # diffusers' file names; save_pretrained writes the first.
    weights_names = (
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.fp16.bin",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.check_range = True
        self._on_nonfinite: str | None = None

    @property
    def on_nonfinite(self) -> str | None:
        """See :class:`Autoencoder`."""
        return self._on_nonfinite

    @on_nonfinite.setter
    def on_nonfinite(self, choice: str | None) -> None:
        self._on_nonfinite = checked_choice(type(self).__name__, choice)

    def encoding_layers(self) -> list[nn.Module]:
        """The layers from an image to the encoder's result: chains and 1x1 convolutions."""
        raise NotImplementedError

    def decoding_layers(self) -> list[nn.Module]:
        """The layers from latents to an image: chains and 1x1 convolutions."""
        raise NotImplementedError

    @property
    def downscaling(self) -> int:
        """The height of an image divided by the height of its latents."""
        raise NotImplementedError

    @property
    def image_channels(self) -> int:
        """Number of channels of the images that are encoded."""
        raise NotImplementedError

    @property
    def latent_channels(self) -> int:
        """Number of channels of the latents that are decoded."""
        raise NotImplementedError

    def plan_encode(self, shape: Sequence[int], max_memory: int | str) -> Plan:
        """The plan with which ``encode`` runs on images of this shape within ``max_memory``.

        Args:
            shape: (B, C, H, W), the shape of the images.
            max_memory: number of bytes, or a string such as ``"2GiB"``.

        Returns:
            A :class:`Plan` with estimates of memory and work, and the tiles.

        Raises:
            ValueError: no plan fits (the error names the smallest bound that has one), or a layer
                was modified (the error names it).
        """
        return self._plan(self.encoding_layers(), shape, self.image_channels, max_memory)

    def plan_decode(self, shape: Sequence[int], max_memory: int | str) -> Plan:
        """The plan with which ``decode`` runs on latents of this shape; see :meth:`plan_encode`."""
        return self._plan(self.decoding_layers(), shape, self.latent_channels, max_memory)

    def _plan(
        self, layers: list[nn.Module], shape: Sequence[int], channels: int, max_memory: int | str
    ) -> Plan:
        bound = parse_bytes(max_memory)
        if len(shape) != 4 or shape[1] != channels or min(shape[2:]) < 1:
            raise ValueError(
                f"{type(self).__name__}: shape must be (B, {channels}, H, W); got {tuple(shape)}"
            )
        batch, _, height, width = shape
        model = MemoryModel.of(batch, self.device.type, self.dtype)
        changed = _first_modified(layers)
        if changed is not None:
            name = next((name for name, module in self.named_modules() if module is changed), None)
            what = name or f"torch.nn.functional's function of {type(changed).__name__}"
            raise ValueError(
                f"{type(self).__name__}: max_memory requires layers that can be tiled; "
                f"{what} was changed (hooks, a forward, an attribute, another module in its place) "
                "and runs on whole images: call without max_memory"
            )
        return make_plan(_steps(layers), channels, height, width, model, bound)

    def _encoded(self, x: Tensor, max_memory: int | str | None) -> Tensor:
        self._check("x", x, self.image_channels, least=self.downscaling)
        if self.check_range:
            check_range(type(self).__name__, "x", x, _IMAGE_RANGE, allows_nan=True)
        return self._run("encode", self.encoding_layers(), x, x.shape, max_memory)

    def _refuse_nan(self, x: Tensor) -> None:
        """Raise an error if an image has a NaN, or a value outside of the range."""
        self._check("x", x, self.image_channels, least=self.downscaling)
        if self.check_range:
            check_range(type(self).__name__, "x", x, _IMAGE_RANGE)

    def _decoded(self, z: Tensor, max_memory: int | str | None) -> Tensor:
        self._check("z", z, self.latent_channels, least=1)
        batch, _, height, width = z.shape
        shape = (batch, height * self.downscaling, width * self.downscaling)
        return self._run("decode", self.decoding_layers(), z, shape, max_memory)

    def _run(
        self,
        method: str,
        layers: list[nn.Module],
        x: Tensor,
        image: Sequence[int],
        max_memory: int | str | None,
    ) -> Tensor:
        warn_if_slow(type(self).__name__, x)
        large = image[0] * image[-2] * image[-1] >= _LARGE
        at_once = max_memory is None
        if at_once and large and not self.training and not torch.compiler.is_compiling():
            self._check_graph(method, x)

        def call(x: Tensor) -> Tensor:
            if max_memory is not None:
                # Planned here, because a retry has another dtype.
                plan = self._plan(layers, x.shape, x.shape[1], max_memory)
                return run_plan(plan, _steps(layers), x)
            if _first_modified(layers) is None:
                return run_steps(_steps(layers), x)
            for layer in layers:
                x = layer(x)
            return x

        name = f"{type(self).__name__}.{method}"
        return guarded_images(self, name, call, x, self._on_nonfinite)

    def _check_graph(self, method: str, x: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        if x.requires_grad or any(p.requires_grad for p in self.parameters()):
            _warn_about_graph(type(self).__name__, method)

    def _check(self, name: str, tensor: Tensor, channels: int, *, least: int) -> None:
        """Check shape, dtype and device of a (B, channels, H, W) tensor."""
        owner = type(self).__name__
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{owner}: {name} must be a tensor; got {type(tensor).__name__}")
        if tensor.ndim != 4 or tensor.shape[1] != channels:
            raise ValueError(
                f"{owner}: {name} must have shape (B, {channels}, H, W); got {tuple(tensor.shape)}"
            )
        if min(tensor.shape[2:]) < least:
            raise ValueError(
                f"{owner}: {name} must be at least {least} pixels high and wide; "
                f"got {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise TypeError(
                f"{owner}: {name} must be {self.dtype}, as the parameters; got {tensor.dtype} "
                "(images of 8 bits: divide by 127.5 and subtract 1)"
            )
        if tensor.device != self.device:
            raise ValueError(
                f"{owner}: {name} must be on the device of the parameters, {self.device}; "
                f"got {tensor.device}"
            )
        if tensor.dtype != self.dtype and not torch.is_autocast_enabled(tensor.device.type):
            raise TypeError(
                f"{owner}: {name} must be {self.dtype}, as the parameters; got {tensor.dtype}"
            )

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.parameters()).dtype


def _first_modified(layers: list[nn.Module]) -> nn.Module | None:
    """The first modified layer, also inside of chains, or None."""
    return first_modified(
        (x, is_unmodified_chain if isinstance(x, Chain) else is_conv1x1) for x in layers
    )


def _steps(layers: list[nn.Module]) -> list[Step]:
    """The steps of unmodified layers."""
    found: list[Step] = []
    for layer in layers:
        if isinstance(layer, Chain):
            found += layer.steps()
        elif isinstance(layer, nn.Conv2d):
            work = layer.in_channels * layer.out_channels
            found.append(pointwise_step(layer, layer.out_channels, work))
    return found


@functools.cache
def _warn_about_graph(model: str, method: str) -> None:
    """Warn once per model class and method."""
    warnings.warn(
        f"{model}.{method} of a large image records a graph for backward, which holds every "
        "activation: call it under torch.no_grad(), give max_memory=, or use reconstruct(); in "
        "training, model.train() silences this",
        stacklevel=6,
    )
