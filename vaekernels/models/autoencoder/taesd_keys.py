"""Translation of weight names between diffusers and taesd's own two files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor

from vaekernels.models.autoencoder.config import AutoencoderTinyConfig

# taesd's decoder begins with a layer without weights, which diffusers does not number.
_OFFSETS = {"encoder": 0, "decoder": 1}


def from_taesd(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate taesd's weight names to those of diffusers.

    Args:
        encoder: the state dict of taesd's encoder, numbered from 0.
        decoder: the state dict of taesd's decoder, numbered from 1.

    Raises:
        ValueError: a name is not one of taesd's.
    """
    found = {}
    for half, tensors in (("encoder", encoder), ("decoder", decoder)):
        for name, tensor in tensors.items():
            index, _, inner = name.partition(".")
            if not index.isdigit() or int(index) < _OFFSETS[half]:
                raise ValueError(
                    f"from_taesd: {half} must have names that begin with a layer's number from "
                    f"{_OFFSETS[half]} on; got {name!r}"
                )
            found[f"{half}.layers.{int(index) - _OFFSETS[half]}.{inner}"] = tensor
    return found


def to_taesd(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inverse of :func:`from_taesd`: the state dicts of taesd's encoder and decoder."""
    halves: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for name, tensor in tensors.items():
        half, _, index, inner = name.split(".", 3)
        halves[half][f"{int(index) + _OFFSETS[half]}.{inner}"] = tensor
    return halves["encoder"], halves["decoder"]


def config_of_taesd(tensors: Mapping[str, Tensor]) -> AutoencoderTinyConfig:
    """Infer the architecture from weights with diffusers' names.

    Raises:
        ValueError: the weights are not those of a tiny autoencoder.
    """
    encoder, decoder = (_layers(tensors, half) for half in ("encoder", "decoder"))
    if not encoder or not decoder:
        raise ValueError(
            "from_taesd: expected an encoder and a decoder; "
            f"got {len(encoder)} and {len(decoder)} layers"
        )
    first, last = tensors[f"encoder.layers.{encoder[0]}.weight"], f"layers.{decoder[-1]}.weight"
    latents = tensors[f"decoder.layers.{decoder[0]}.weight"].shape[1]
    blocks = {half: _blocks(tensors, half) for half in ("encoder", "decoder")}
    width = first.shape[0]
    return AutoencoderTinyConfig(
        in_channels=first.shape[1],
        out_channels=tensors[f"decoder.{last}"].shape[0],
        encoder_block_out_channels=len(blocks["encoder"]) * (width,),
        decoder_block_out_channels=len(blocks["decoder"])
        * (tensors[f"decoder.layers.{decoder[0]}.weight"].shape[0],),
        num_encoder_blocks=blocks["encoder"],
        num_decoder_blocks=blocks["decoder"],
        latent_channels=latents,
        pooled_bottleneck=any(".pool." in name for name in tensors),
    )


def _layers(tensors: Mapping[str, Tensor], half: str) -> list[int]:
    """The indices of the convolutions between blocks."""
    pattern = re.compile(rf"{half}\.layers\.(\d+)\.weight")
    return sorted(int(found[1]) for name in tensors if (found := pattern.fullmatch(name)))


def _blocks(tensors: Mapping[str, Tensor], half: str) -> tuple[int, ...]:
    """The number of blocks between consecutive convolutions."""
    pattern = re.compile(rf"{half}\.layers\.(\d+)\.conv\.0\.weight")
    blocks = {int(found[1]) for name in tensors if (found := pattern.fullmatch(name))}
    convs = _layers(tensors, half)
    return tuple(sum(first < block < last for block in blocks) for first, last in pairwise(convs))
