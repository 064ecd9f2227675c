"""``AutoencoderKLConfig`` and ``AutoencoderTinyConfig``: the fields of diffusers' config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaekernels.models.config_base import Config
from vaekernels.utils.limits import MOST_LAYERS

_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"


@dataclass(frozen=True)
class AutoencoderKLConfig(Config):
    """Architecture and latent statistics of a :class:`vk.models.AutoencoderKL`.

    Lists are accepted for tuples. Some fields of diffusers have a single supported value.

    Attributes:
        in_channels: channels of the images that are encoded.
        out_channels: channels of the images that are decoded.
        down_block_types: one per level, all ``"DownEncoderBlock2D"``; () for the default.
        up_block_types: one per level, all ``"UpDecoderBlock2D"``; () for the default.
        block_out_channels: channels of each level; every level but the last halves the image.
        layers_per_block: residual blocks of a level of the encoder; the decoder has one more.
        act_fn: ``"silu"``.
        latent_channels: channels of the latents.
        norm_num_groups: groups of every normalisation; divides all of ``block_out_channels``.
        sample_size: height and width of the training images.
        scaling_factor: factor of the latents for a diffusion model.
        shift_factor: value that is subtracted from the latents before scaling, or None.
        latents_mean: (latent_channels,), subtracted instead of ``shift_factor``; or None.
        latents_std: (latent_channels,), by which the latents are divided as well; or None.
        force_upcast: whether float16 is known to overflow; stored for diffusers, unused here.
        use_quant_conv: whether there is a 1x1 convolution after the encoder.
        use_post_quant_conv: whether there is one before the decoder.
        mid_block_add_attention: whether there is attention at the smallest size.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field has an unsupported value.

    Example:
        >>> AutoencoderKLConfig.preset("flux")
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ()
    up_block_types: tuple[str, ...] = ()
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @classmethod
    def preset(cls, name: str) -> AutoencoderKLConfig:
        """The autoencoder of a published model.

        Args:
            name: ``"sd1"`` (Stable Diffusion 1 and 2), ``"sdxl"``, ``"sd3"`` or ``"flux"``.

        Raises:
            ValueError: ``name`` is none of these.
        """
        if name not in _PRESETS:
            raise ValueError(
                f"AutoencoderKLConfig: name must be one of {', '.join(_PRESETS)}; got {name!r}"
            )
        return cls(**_LATENT_DIFFUSION, **_PRESETS[name])

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "latent_channels"):
            self._size(name, getattr(self, name))
        self._size("layers_per_block", self.layers_per_block, most=MOST_LAYERS)
        self._size("norm_num_groups", self.norm_num_groups)
        channels = self._sizes("block_out_channels", self.block_out_channels)
        self._set("block_out_channels", channels)
        if not channels:
            raise ValueError(
                "AutoencoderKLConfig: block_out_channels must have at least one level; got ()"
            )
        for index, count in enumerate(channels):
            if count % self.norm_num_groups:
                raise ValueError(
                    f"AutoencoderKLConfig: block_out_channels[{index}] must be divisible by the "
                    f"{self.norm_num_groups} groups of norm_num_groups; got {count}"
                )
        for name, kind in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            types = tuple(getattr(self, name)) or len(channels) * (kind,)
            self._only(name, types, len(channels) * (kind,))
            self._set(name, types)
        self._only("act_fn", self.act_fn, "silu")
        if not isinstance(self.sample_size, int):
            self._set("sample_size", self._sizes("sample_size", self.sample_size))
        self._set("scaling_factor", self._number("scaling_factor", self.scaling_factor))
        if self.scaling_factor == 0.0:
            raise ValueError("AutoencoderKLConfig: scaling_factor must not be 0; got 0.0")
        if self.shift_factor is not None:
            self._set("shift_factor", self._number("shift_factor", self.shift_factor))
        for name in ("latents_mean", "latents_std"):
            self._set(name, self._per_channel(name, getattr(self, name)))
        if self.latents_std is not None and min(self.latents_std) <= 0.0:
            raise ValueError(
                f"{type(self).__name__}: latents_std must be positive; got {self.latents_std}"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _per_channel(self, name: str, values: Any) -> tuple[float, ...] | None:
        if values is None:
            return None
        if not isinstance(values, (tuple, list)) or len(values) != self.latent_channels:
            raise ValueError(
                f"AutoencoderKLConfig: {name} must have {self.latent_channels} numbers, one per "
                f"latent channel, or be None; got {values!r}"
            )
        return tuple(self._number(f"{name}[{k}]", value) for k, value in enumerate(values))


_LATENT_DIFFUSION: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
_WITHOUT_QUANT: dict[str, Any] = {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "sample_size": 1024,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "sd1": {"sample_size": 512, "scaling_factor": 0.18215},
    "sdxl": {"sample_size": 1024, "scaling_factor": 0.13025},
    "sd3": {**_WITHOUT_QUANT, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    "flux": {**_WITHOUT_QUANT, "scaling_factor": 0.3611, "shift_factor": 0.1159},
}


@dataclass(frozen=True)
class AutoencoderTinyConfig(Config):
    """Architecture of a :class:`vk.models.AutoencoderTiny`.

    Lists are accepted for tuples. Some fields of diffusers have a single supported value.

    Attributes:
        in_channels: channels of the images that are encoded.
        out_channels: channels of the images that are decoded.
        encoder_block_out_channels: channels of each level of the encoder, all equal, because
            the first convolution of a level keeps their number.
        decoder_block_out_channels: channels of each level of the decoder, all equal.
        act_fn: ``"relu"``.
        upsample_fn: ``"nearest"``.
        latent_channels: channels of the latents.
        upsampling_scaling_factor: 2.
        num_encoder_blocks: blocks of each level of the encoder.
        num_decoder_blocks: blocks of each level of the decoder.
        latent_magnitude: typical largest magnitude of the latents.
        latent_shift: value in [0, 1] to which ``scale_latents`` maps zero.
        force_upcast: stored for diffusers, unused here.
        scaling_factor: factor of the latents for a diffusion model.
        shift_factor: value that is subtracted from the latents before scaling.
        block_out_channels: diffusers' copy of ``decoder_block_out_channels``; ignored.
        pooled_bottleneck: whether the blocks of the smallest size have the pooled branch of
            TAEF2; not a field of diffusers.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field has an unsupported value.
    """

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    act_fn: str = "relu"
    upsample_fn: str = "nearest"
    latent_channels: int = 4
    upsampling_scaling_factor: int = 2
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_magnitude: float = 3
    latent_shift: float = 0.5
    force_upcast: bool = False
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    block_out_channels: tuple[int, ...] = ()
    pooled_bottleneck: bool = False

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "latent_channels"):
            self._size(name, getattr(self, name))
        for half in ("encoder", "decoder"):
            names = f"{half}_block_out_channels", f"num_{half}_blocks"
            channels = self._sizes(names[0], getattr(self, names[0]))
            blocks = self._sizes(names[1], getattr(self, names[1]), most=MOST_LAYERS)
            if len(channels) != len(blocks) or len(set(channels)) != 1:
                raise ValueError(
                    f"AutoencoderTinyConfig: {names[0]} must be one number repeated for each of "
                    f"the {len(blocks)} levels of {names[1]}; got {channels}"
                )
            for name, value in zip(names, (channels, blocks), strict=True):
                object.__setattr__(self, name, value)
        object.__setattr__(self, "block_out_channels", self.decoder_block_out_channels)
        self._only("act_fn", self.act_fn, "relu")
        self._only("upsample_fn", self.upsample_fn, "nearest")
        self._only("upsampling_scaling_factor", self.upsampling_scaling_factor, 2)
        for name in ("latent_magnitude", "latent_shift", "scaling_factor", "shift_factor"):
            self._number(name, getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; ``pooled_bottleneck``, not in diffusers, only if it is set."""
        values = super().to_dict()
        if not self.pooled_bottleneck:
            del values["pooled_bottleneck"]
        return values
