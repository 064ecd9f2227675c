"""The autoencoder of Stable Diffusion with random weights: both sides, and an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.gpu.phase import Context
from vaekernels.bench import eager_kl
from vaekernels.models import AutoencoderKL, AutoencoderKLConfig

_TINY = AutoencoderKLConfig(block_out_channels=(8, 16, 16, 16), norm_num_groups=8)

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """One half at one size.

    Attributes:
        half: ``"decode"`` or ``"encode"``.
        size: height and width of the images.
        batch: how many.
    """

    half: str
    size: int
    batch: int

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.half} {self.size} b{self.batch}"

    def ours(self, model: AutoencoderKL) -> Function:
        """Latents to images, or images to the means of latents."""
        if self.half == "decode":
            return lambda z: model.decode(z).sample
        return lambda x: model.encode(x).latent_dist.mode()

    def eager(self, model: eager_kl.EagerKL) -> Function:
        """The same in plain PyTorch."""
        if self.half == "decode":
            return model.decode
        return lambda x: model.encode(x).chunk(2, dim=1)[0]


def decode(size: int, batch: int) -> Part:
    return Part("decode", size, batch)


def encode(size: int, batch: int) -> Part:
    return Part("encode", size, batch)


def model(context: Context, dtype: torch.dtype = torch.bfloat16) -> AutoencoderKL:
    """Random weights, those of the normalisations included, in evaluation mode; float32 if tiny."""
    torch.manual_seed(0)
    config = _TINY if context.tiny else AutoencoderKLConfig.preset("sd1")
    with torch.device(context.device):
        made = AutoencoderKL(config).eval().requires_grad_(False)
        for module in made.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.add_(0.2 * torch.randn_like(module.weight))
                module.bias.add_(0.2 * torch.randn_like(module.bias))
    made.check_range = False  # it synchronises with the GPU
    return made.to(torch.float32 if context.tiny else dtype)


def example(part: Part, model: AutoencoderKL) -> Tensor:
    """Latents, or images in [-1, 1]; an image does not depend on the size of its batch."""
    generator = torch.Generator(model.device).manual_seed(1)
    shape = (model.image_channels, part.size, part.size)
    if part.half == "decode":
        small = part.size // model.downscaling
        shape = (model.latent_channels, small, small)
    images = [
        torch.randn(shape, generator=generator, device=model.device) for _ in range(part.batch)
    ]
    x = torch.stack(images)
    return (x if part.half == "decode" else x.tanh()).to(model.dtype)
