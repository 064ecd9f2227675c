"""``VAEConfig``: everything that decides the architecture of a VAE, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vaekernels.models.config_base import Config
from vaekernels.utils.limits import LARGEST_FLOAT

Backbone = Literal["conv", "mlp"]
LikelihoodName = Literal["bernoulli", "gaussian", "laplace"]
Activation = Literal["relu", "silu", "leaky_relu", "tanh"]


@dataclass(frozen=True)
class VAEConfig(Config):
    """Architecture of a :class:`vk.models.VAE`, checked when it is made.

    Lists are accepted for tuples, and integers for floats.

    Attributes:
        image_shape: (C, H, W).
        latent_dim: size L of the latent vector.
        backbone: ``"conv"``: each level halves the image by a 4x4 convolution with stride 2,
            and the decoder mirrors it with transposed convolutions; ``"mlp"``: linear layers
            on the flattened image.
        hidden: ``"conv"``: channels after each level, at least one level, H and W divisible
            by 2 to the number of levels; ``"mlp"``: widths of the hidden layers, () for a
            linear encoder and decoder. The decoder has them in reverse.
        likelihood: p(x | z) of each pixel: ``"bernoulli"`` (images in [0, 1]), ``"gaussian"``
            or ``"laplace"`` (any range).
        scale: the scale of the Gaussian (its standard deviation) or of the Laplace, as in
            ``torch.distributions``: one positive number for all pixels, or ``"learned"``: one
            number trained with the weights, 1 at first. The Bernoulli has none: leave it 1.
        activation: ``"relu"``, ``"silu"``, ``"leaky_relu"`` or ``"tanh"``, between layers.

    Raises:
        TypeError: a field has the wrong kind.
        ValueError: a field has a value that is not possible.

    Example:
        >>> VAEConfig(image_shape=(1, 28, 28), latent_dim=20, backbone="mlp", hidden=(400,))
    """

    image_shape: tuple[int, int, int]
    latent_dim: int
    backbone: Backbone = "conv"
    hidden: tuple[int, ...] = (32, 64)
    likelihood: LikelihoodName = "bernoulli"
    scale: float | Literal["learned"] = 1.0
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", self._sizes("image_shape", self.image_shape))
        object.__setattr__(self, "hidden", self._sizes("hidden", self.hidden))
        object.__setattr__(self, "scale", _scale(self.scale))
        if len(self.image_shape) != 3:
            raise ValueError(
                f"VAEConfig: image_shape must be (C, H, W), 3 sizes; got {self.image_shape}"
            )
        self._size("latent_dim", self.latent_dim)
        self._one_of("backbone", self.backbone, get_args(Backbone))
        self._one_of("likelihood", self.likelihood, get_args(LikelihoodName))
        self._one_of("activation", self.activation, get_args(Activation))
        if self.likelihood == "bernoulli" and self.scale != 1.0:
            raise ValueError(
                "VAEConfig: scale must be 1.0 for the bernoulli likelihood, which has no scale; "
                f"got {self.scale!r}"
            )
        if self.backbone == "conv":
            self._check_levels()

    def _check_levels(self) -> None:
        if not self.hidden:
            raise ValueError("VAEConfig: hidden must have at least one level for conv; got ()")
        factor = 2 ** len(self.hidden)
        _, height, width = self.image_shape
        if height % factor or width % factor:
            raise ValueError(
                f"VAEConfig: image_shape must have a height and a width divisible by {factor} "
                f"for the {len(self.hidden)} levels of hidden={self.hidden}; "
                f"got {self.image_shape}"
            )


def _scale(value: object) -> float | str:
    if value == "learned":
        return "learned"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'VAEConfig: scale must be a number or "learned"; got {value!r}')
    if not 0 < value < math.inf:
        raise ValueError(f"VAEConfig: scale must be positive and finite; got {value}")
    if value > LARGEST_FLOAT:
        raise ValueError(f"VAEConfig: scale must be at most {LARGEST_FLOAT:.3g}; got {value}")
    return float(value)
