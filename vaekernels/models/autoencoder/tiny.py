"""``vk.models.AutoencoderTiny``: the tiny autoencoders of the TAESD family."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from vaekernels.models.autoencoder.base import Autoencoder
from vaekernels.models.autoencoder.config import AutoencoderTinyConfig
from vaekernels.models.autoencoder.taesd_keys import config_of_taesd, from_taesd
from vaekernels.models.checkpoint_io import read_weights
from vaekernels.models.vae.outputs import DecoderOutput, TinyEncoderOutput
from vaekernels.nn import TinyDecoder, TinyEncoder

Self = TypeVar("Self", bound="AutoencoderTiny")


class AutoencoderTiny(Autoencoder):
    r"""TAESD, TAESDXL, TAESD3, TAEF1 and TAEF2: small autoencoders without a posterior.

    .. math::
        z = \mathrm{encoder}(x), \qquad \hat x = \mathrm{decoder}(z)

    Parameters, state dict and results match diffusers' class of the same name. Images are
    (B, C, H, W) in [-1, 1], as in diffusers; taesd's own code uses [0, 1]. Latents are
    (B, L, H / 8, W / 8) for four levels, rounded up. Neither is clipped.

    Args:
        config: the architecture.

    Raises:
        TypeError: ``config`` is not an :class:`AutoencoderTinyConfig`.

    Paper: O. Boer Bohan, "TAESD: tiny autoencoder for Stable Diffusion", 2023.
    """

    config_class = AutoencoderTinyConfig
    config: AutoencoderTinyConfig

    def __init__(self, config: AutoencoderTinyConfig) -> None:
        if not isinstance(config, AutoencoderTinyConfig):
            raise TypeError(
                "AutoencoderTiny: config must be an AutoencoderTinyConfig; "
                f"got {type(config).__name__}"
            )
        super().__init__(config)
        self.encoder = TinyEncoder(
            config.in_channels,
            config.latent_channels,
            config.encoder_block_out_channels,
            config.num_encoder_blocks,
            pooled=config.pooled_bottleneck,
        )
        self.decoder = TinyDecoder(
            config.latent_channels,
            config.out_channels,
            config.decoder_block_out_channels,
            config.num_decoder_blocks,
            pooled=config.pooled_bottleneck,
        )

    def forward(self, x: Tensor) -> DecoderOutput:
        """Encode and decode: (B, C, H, W) images in [-1, 1] to a :class:`DecoderOutput`.

        Unlike diffusers' ``forward``, this does not round the latents to 8 bits.
        """
        return self.decode(self.encode(x).latents)

    def encode(self, x: Tensor, *, max_memory: int | str | None = None) -> TinyEncoderOutput:
        """Encode images to latents.

        Args:
            x: (B, C, H, W) images in [-1, 1], in the dtype of the parameters.
            max_memory: bound on the memory of the call beyond the model and ``x``, in bytes or as
                ``"2GiB"``. Images are tiled if necessary; the result is exact, at the cost of more
                work (see :meth:`plan_encode`), and no graph is recorded. None for no bound.

        Returns:
            A :class:`TinyEncoderOutput`: ``latents`` is (B, L, H / 8, W / 8) for four levels.

        Raises:
            TypeError: ``x`` is not a tensor in the dtype of the parameters.
            ValueError: the shape, device or range of ``x`` does not fit, or ``max_memory`` is too
                small; the error then names the smallest bound that works.
        """
        return TinyEncoderOutput(self._encoded(x, max_memory))

    def decode(self, z: Tensor, *, max_memory: int | str | None = None) -> DecoderOutput:
        """Decode latents to images.

        Args:
            z: (B, L, h, w) latents in the dtype of the parameters.
            max_memory: as in :meth:`encode`.

        Returns:
            A :class:`DecoderOutput`: ``sample`` is (B, C, 8h, 8w) for four levels, about [-1, 1].

        Raises:
            TypeError: ``z`` is not a tensor in the dtype of the parameters.
            ValueError: the shape or device of ``z`` does not fit, or ``max_memory`` is too small.
        """
        image = self._decoded(z, max_memory)
        return DecoderOutput(image, image)

    def encode_scaled(self, x: Tensor, *, max_memory: int | str | None = None) -> Tensor:
        """Latents as a diffusion model expects them: ``(z - shift) * scale``.

        Arguments and errors are those of :meth:`encode`; images with NaN are a ValueError, too.
        """
        self._refuse_nan(x)
        z = self.encode(x, max_memory=max_memory).latents
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def decode_scaled(self, z: Tensor, *, max_memory: int | str | None = None) -> Tensor:
        """Decode the latents of a diffusion model; otherwise like :meth:`decode`."""
        self._check("z", z, self.latent_channels, least=1)
        z = z / self.config.scaling_factor + self.config.shift_factor
        return self.decode(z, max_memory=max_memory).sample

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, max_memory: int | str | None = None) -> Tensor:
        """Encode and decode ``x`` without recording a graph; arguments as in :meth:`encode`."""
        z = self.encode(x, max_memory=max_memory).latents
        return self.decode(z, max_memory=max_memory).sample

    def scale_latents(self, z: Tensor) -> Tensor:
        """Map latents to [0, 1] for storage, clipped."""
        return (z / (2 * self.config.latent_magnitude) + self.config.latent_shift).clamp(0, 1)

    def unscale_latents(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`scale_latents`."""
        return (z - self.config.latent_shift) * (2 * self.config.latent_magnitude)

    @classmethod
    def from_taesd(
        cls: type[Self],
        encoder: str | PathLike[str],
        decoder: str | PathLike[str],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load taesd's own files; the architecture is inferred from the weights.

        Args:
            encoder: a file like ``taesd_encoder.pth``, or safetensors; a pickle is read with
                ``weights_only=True``.
            decoder: a file like ``taesd_decoder.pth``, or safetensors.
            device: device of the parameters.
            dtype: dtype of the parameters; None for that of the files, often float16.

        Returns:
            The model in eval mode.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: a file is of another kind, or the two do not fit each other.
        """
        tensors = from_taesd(*(read_weights(Path(path)) for path in (encoder, decoder)))
        config = config_of_taesd(tensors)
        model = cls._with_weights(config, tensors, f"{encoder}, {decoder}", "each other")
        return model.to(device=device, dtype=dtype)

    def encoding_layers(self) -> list[nn.Module]:
        """The encoder."""
        return [self.encoder]

    def decoding_layers(self) -> list[nn.Module]:
        """The decoder."""
        return [self.decoder]

    @property
    def downscaling(self) -> int:
        """The height of an image divided by the height of its latents."""
        return 2 ** (len(self.config.num_decoder_blocks) - 1)

    @property
    def image_channels(self) -> int:
        """Number of channels of the images that are encoded."""
        return self.config.in_channels

    @property
    def latent_channels(self) -> int:
        """Number of channels of the latents."""
        return self.config.latent_channels
