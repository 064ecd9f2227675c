"""Grids of images as PNG files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vaekernels.utils.atomic_file import atomic_write
from vaekernels.utils.extras import needs_extra

with needs_extra("train", "an image grid"):
    from PIL import Image

_PADDING = 2
# Smaller images, such as digits of 28 pixels, are enlarged to about this size.
_SMALLEST_SIDE = 64


def grid(images: Tensor, columns: int) -> Image.Image:
    """Arrange ``images`` row by row; small ones are enlarged without smoothing.

    Args:
        images: (N, C, H, W) with 1, 3 or 4 channels: uint8, or floating, clipped to [0, 1].
        columns: number of images in a row.

    Raises:
        ValueError: ``images`` is empty or has another shape, or ``columns`` is below 1.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(
            "grid: images must have shape (N, C, H, W) with 1, 3 or 4 channels; "
            f"got {tuple(images.shape)}"
        )
    if columns < 1:
        raise ValueError(f"grid: columns must be at least 1; got {columns}")
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    scale = max(1, -(-_SMALLEST_SIDE // max(height, width)))
    pixels = to_bytes(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    height, width = height * scale + _PADDING, width * scale + _PADDING
    size = (channels, rows * height + _PADDING, columns * width + _PADDING)
    canvas = torch.full(size, 255, dtype=torch.uint8, device=pixels.device)
    for place, image in enumerate(pixels):
        top = place // columns * height + _PADDING
        left = place % columns * width + _PADDING
        canvas[:, top : top + height - _PADDING, left : left + width - _PADDING] = image
    array = canvas.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if channels == 1 else array)


def stack_rows(above: Tensor, below: Tensor, columns: int) -> Tensor:
    """Alternate rows of ``above`` and ``below``, for :func:`grid` with the same ``columns``.

    Args:
        above: (N, C, H, W).
        below: the images that are placed below those of ``above``, with the same shape.
        columns: number of images in a row; the last rows are filled up with white images.
    """
    missing = -len(above) % columns
    rows = []
    for images in (to_bytes(above), to_bytes(below)):
        white = images.new_full((missing, *images.shape[1:]), 255)
        rows.append(torch.cat((images, white)).unflatten(0, (-1, columns)))
    return torch.stack(rows, dim=1).flatten(0, 2)


def to_bytes(images: Tensor) -> Tensor:
    """Convert ``images`` to uint8 on the CPU; floating ones are clipped to [0, 1]."""
    images = images.detach().cpu()
    if images.dtype == torch.uint8:
        return images
    return images.float().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write ``image`` to ``path`` atomically."""
    with atomic_write(path) as file:
        image.save(file, format="PNG")
