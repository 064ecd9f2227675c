"""Translation of weight names between diffusers and latent diffusion's single files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Prefixes of the autoencoder in a checkpoint of a whole pipeline.
_PREFIXES = ("first_stage_model.", "vae.")
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")

# (latent diffusion, diffusers), after the prefix encoder or decoder. ``{level}`` is the index of a
# level; the two number the levels of a decoder in opposite directions.
_NAMES = (
    ("mid.block_1", "mid_block.resnets.0"),
    ("mid.block_2", "mid_block.resnets.1"),
    ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
    ("mid.attn_1.q", "mid_block.attentions.0.to_q"),
    ("mid.attn_1.k", "mid_block.attentions.0.to_k"),
    ("mid.attn_1.v", "mid_block.attentions.0.to_v"),
    ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
    ("norm_out", "conv_norm_out"),
    ("down.{level}.block", "down_blocks.{level}.resnets"),
    ("down.{level}.downsample", "down_blocks.{level}.downsamplers.0"),
    ("up.{level}.block", "up_blocks.{level}.resnets"),
    ("up.{level}.upsample", "up_blocks.{level}.upsamplers.0"),
)
_SHORTCUT = ("nin_shortcut", "conv_shortcut")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def from_ldm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate latent diffusion's weight names to those of diffusers.

    Args:
        tensors: weights with latent diffusion's names; other parts of a checkpoint (the diffusion
            model, text encoders, losses) are omitted.

    Returns:
        The same tensors, with the 1x1 convolutions of attention as matrices.

    Raises:
        ValueError: ``tensors`` do not contain an autoencoder.
    """
    prefix = next((p for p in _PREFIXES if f"{p}decoder.conv_in.weight" in tensors), "")
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and name.removeprefix(prefix).startswith(_PARTS)
    }
    if "decoder.conv_in.weight" not in found:
        raise ValueError(
            "from_ldm: expected weights with a decoder.conv_in.weight, with or without the prefix "
            f"{' or '.join(_PREFIXES)}; got {len(tensors)} others"
        )
    renamed = _renamed(found, source=0)
    return {
        name: tensor.flatten(1) if _is_attention(name) and tensor.ndim == 4 else tensor
        for name, tensor in renamed.items()
    }


def to_ldm(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Translate diffusers' weight names to those of latent diffusion, inverting :func:`from_ldm`.

    Args:
        tensors: the state dict of an :class:`AutoencoderKL`.
        prefix: prefix of every name, such as ``"first_stage_model."``.
    """
    images = {
        name: tensor[:, :, None, None] if _is_attention(name) and tensor.ndim == 2 else tensor
        for name, tensor in tensors.items()
    }
    return {prefix + name: tensor for name, tensor in _renamed(images, source=1).items()}


def rename_old_attention(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the attention names of diffusers before 0.12 (query, key, value, proj_attn)."""
    pattern = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
    renamed = {}
    for name, tensor in tensors.items():
        new = pattern.sub(lambda found: f"{found[1]}{_OLD_ATTENTION[found[2]]}.", name)
        # Some of these files store 1x1 convolutions.
        renamed[new] = tensor.flatten(1) if new != name and tensor.ndim == 4 else tensor
    return renamed


def _is_attention(name: str) -> bool:
    return ".attentions." in name and not name.endswith("bias")


def _renamed(tensors: Mapping[str, Tensor], source: int) -> dict[str, Tensor]:
    """Translate from column ``source`` of ``_NAMES`` to the other column."""
    up = ("up.", "up_blocks.")[source]
    levels = [int(name.split(".")[2]) for name in tensors if name.startswith(f"decoder.{up}")]
    last = max(levels, default=0)
    return {_rename(name, source, last): tensor for name, tensor in tensors.items()}


def _rename(name: str, source: int, last: int) -> str:
    half, _, inner = name.partition(".")
    if half not in ("encoder", "decoder"):
        return name
    inner = inner.replace(f".{_SHORTCUT[source]}.", f".{_SHORTCUT[1 - source]}.")
    for names in _NAMES:
        pattern = re.escape(names[source]).replace(re.escape("{level}"), r"(\d+)")
        if found := re.match(rf"{pattern}\.", inner):
            target = names[1 - source]
            if found.groups():
                level = int(found[1])
                target = target.format(level=last - level if half == "decoder" else level)
            return f"{half}.{target}.{inner[found.end() :]}"
    return f"{half}.{inner}"
