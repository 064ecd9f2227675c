"""``vk.models.AutoencoderKL``: the autoencoder of latent diffusion."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.models.autoencoder.base import Autoencoder
from vaekernels.models.autoencoder.config import AutoencoderKLConfig
from vaekernels.models.autoencoder.ldm_keys import from_ldm, rename_old_attention
from vaekernels.models.checkpoint_io import read_weights
from vaekernels.models.vae.outputs import DecoderOutput, EncoderOutput
from vaekernels.nn import Decoder, Encoder

Self = TypeVar("Self", bound="AutoencoderKL")


class AutoencoderKL(Autoencoder):
    r"""The KL autoencoder of Stable Diffusion 1 to 3, SDXL and FLUX.

    .. math::
        q(z \mid x) = \mathcal N(z;\ \mu(x), \mathrm{diag}\, e^{\ell(x)}), \qquad
        \hat x = \mathrm{decoder}(z)

    Parameters, state dict and results match diffusers' class of the same name. Images are
    (B, C, H, W) in [-1, 1], of any size; latents are (B, L, H / 8, W / 8) for four levels, rounded
    down. Neither is clipped.

    Args:
        config: the architecture; :meth:`AutoencoderKLConfig.preset` returns published ones.

    Raises:
        TypeError: ``config`` is not an :class:`AutoencoderKLConfig`.

    Paper: R. Rombach et al., "High-resolution image synthesis with latent diffusion models",
    CVPR 2022.

    Example:
        >>> model = AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix")
        >>> latents = model.encode_scaled(images)  # latents of the diffusion model
        >>> images = model.decode_scaled(latents, max_memory="2GiB")
    """

    config_class = AutoencoderKLConfig
    config: AutoencoderKLConfig

    def __init__(self, config: AutoencoderKLConfig) -> None:
        if not isinstance(config, AutoencoderKLConfig):
            raise TypeError(
                f"AutoencoderKL: config must be an AutoencoderKLConfig; got {type(config).__name__}"
            )
        super().__init__(config)
        shared: dict[str, Any] = {
            "channels": config.block_out_channels,
            "blocks": config.layers_per_block,
            "groups": config.norm_num_groups,
            "attention": config.mid_block_add_attention,
        }
        latents = config.latent_channels
        self.encoder = Encoder(config.in_channels, 2 * latents, **shared)
        self.decoder = Decoder(latents, config.out_channels, **shared)
        self.quant_conv = nn.Conv2d(2 * latents, 2 * latents, 1) if config.use_quant_conv else None
        self.post_quant_conv = (
            nn.Conv2d(latents, latents, 1) if config.use_post_quant_conv else None
        )

    def forward(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput:
        """Encode, sample, decode.

        Args:
            x: (B, C, H, W) images in [-1, 1].
            sample: whether to decode a sample of the posterior instead of its mean.
            seed: seed of the noise, as in :func:`vk.rsample_kl`.
            step: second key of the noise.
            sample_ids: (B,) int64, the ids of the images in the noise stream.
            generator: generator from which the seed is drawn if ``seed`` is None.

        Returns:
            A :class:`DecoderOutput`.

        Raises:
            TypeError, ValueError: as in :meth:`encode`.
        """
        z = self._draw(self.encode(x).latent_dist, sample, seed, step, sample_ids, generator)
        return self.decode(z)

    def encode(self, x: Tensor, *, max_memory: int | str | None = None) -> EncoderOutput:
        """The posterior q(z | x).

        Args:
            x: (B, C, H, W) images in [-1, 1], in the dtype of the parameters.
            max_memory: bound on the memory of the call beyond the model and ``x``, in bytes or as
                ``"2GiB"``. Images are tiled if necessary; the result is exact, at the cost of more
                work (see :meth:`plan_encode`), and no graph is recorded. None for no bound.

        Returns:
            An :class:`EncoderOutput`: ``latent_dist`` is a :class:`vk.DiagonalGaussian` of
            (B, L, H / 8, W / 8) for four levels. These latents are not scaled: see
            :meth:`encode_scaled`.

        Raises:
            TypeError: ``x`` is not a tensor in the dtype of the parameters.
            ValueError: the shape, device or range of ``x`` does not fit, or ``max_memory`` is too
                small; the error then names the smallest bound that works.
        """
        return EncoderOutput(DiagonalGaussian(self._encoded(x, max_memory)))

    def decode(self, z: Tensor, *, max_memory: int | str | None = None) -> DecoderOutput:
        """Decode latents to images.

        Args:
            z: (B, L, h, w) latents, not scaled, in the dtype of the parameters.
            max_memory: as in :meth:`encode`.

        Returns:
            A :class:`DecoderOutput`: ``sample`` is (B, C, 8h, 8w) for four levels, about [-1, 1].

        Raises:
            TypeError: ``z`` is not a tensor in the dtype of the parameters.
            ValueError: the shape or device of ``z`` does not fit, or ``max_memory`` is too small.
        """
        image = self._decoded(z, max_memory)
        return DecoderOutput(image, image)

    def encode_scaled(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
        max_memory: int | str | None = None,
    ) -> Tensor:
        r"""Latents as a diffusion model expects them, with unit variance.

        .. math::
            \tilde z = (z - \mathrm{shift}) \cdot \mathrm{scale}

        with the shift and scale of the configuration. The arguments are those of :meth:`forward`
        and :meth:`encode`.

        Returns:
            (B, L, H / 8, W / 8) for four levels.

        Raises:
            TypeError, ValueError: as in :meth:`encode`; ValueError also for images with NaN.
        """
        self._refuse_nan(x)
        posterior = self.encode(x, max_memory=max_memory).latent_dist
        z = self._draw(posterior, sample, seed, step, sample_ids, generator)
        shift, scale = self._latent_statistics(z)
        return (z - shift) * scale

    def decode_scaled(self, z: Tensor, *, max_memory: int | str | None = None) -> Tensor:
        r"""Decode the latents of a diffusion model: :math:`z / \mathrm{scale} + \mathrm{shift}`.

        Arguments and errors are those of :meth:`decode`.

        Returns:
            (B, C, 8h, 8w) for four levels, about [-1, 1].
        """
        self._check("z", z, self.latent_channels, least=1)
        shift, scale = self._latent_statistics(z)
        return self.decode(z / scale + shift, max_memory=max_memory).sample

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, max_memory: int | str | None = None) -> Tensor:
        """Encode ``x`` and decode the mean of the posterior, without recording a graph.

        Arguments and errors are those of :meth:`encode`.

        Returns:
            (B, C, H, W), with H and W rounded down to a multiple of 8 for four levels.
        """
        z = self.encode(x, max_memory=max_memory).latent_dist.mode()
        return self.decode(z, max_memory=max_memory).sample

    @classmethod
    def from_single_file(
        cls: type[Self],
        path: str | PathLike[str],
        config: AutoencoderKLConfig,
        *,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Load a file with latent diffusion's weight names.

        Args:
            path: file of an autoencoder, or of a whole Stable Diffusion, SD3 or FLUX checkpoint:
                ``.safetensors``, or a pickle of tensors, which is read with ``weights_only=True``.
            config: the architecture, which such files do not contain, as
                ``AutoencoderKLConfig.preset("sdxl")``.
            device: device of the parameters.

        Returns:
            The model in eval mode, in the dtype of the file.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is of another kind, or its weights do not fit ``config``.
        """
        tensors = from_ldm(read_weights(Path(path)))
        return cls._with_weights(config, tensors, str(path), "config").to(device)

    def encoding_layers(self) -> list[nn.Module]:
        """The encoder and ``quant_conv``, if any."""
        return [self.encoder, *([] if self.quant_conv is None else [self.quant_conv])]

    def decoding_layers(self) -> list[nn.Module]:
        """``post_quant_conv``, if any, and the decoder."""
        return [*([] if self.post_quant_conv is None else [self.post_quant_conv]), self.decoder]

    @property
    def downscaling(self) -> int:
        """The height of an image divided by the height of its latents."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def image_channels(self) -> int:
        """Number of channels of the images that are encoded."""
        return self.config.in_channels

    @property
    def latent_channels(self) -> int:
        """Number of channels of the latents."""
        return self.config.latent_channels

    _renamed = staticmethod(rename_old_attention)

    @staticmethod
    def _draw(
        posterior: DiagonalGaussian,
        sample: bool,
        seed: int | Tensor | None,
        step: int,
        sample_ids: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        if not sample:
            return posterior.mode()
        return posterior.rsample(generator, seed=seed, step=step, sample_ids=sample_ids)

    def _latent_statistics(self, z: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Shift and scale of the latents for a diffusion model."""
        config = self.config
        shift: Tensor | float = config.shift_factor or 0.0
        scale: Tensor | float = config.scaling_factor
        if config.latents_mean is not None:
            shift = z.new_tensor(config.latents_mean)[:, None, None]
        if config.latents_std is not None:
            scale = scale / z.new_tensor(config.latents_std)[:, None, None]
        return shift, scale
