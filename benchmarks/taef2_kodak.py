"""TAEF2's real weights on the Kodak photographs: ours beside plain PyTorch.

    python benchmarks/taef2_kodak.py [--data PATH] [--out PATH] [--picture PATH] [--images N]

Encodes and decodes every photograph with both, writes the PSNR of each to
``benchmarks/results/cpu/taef2_kodak.json`` and a picture of originals above reconstructions to
``docs/taef2_kodak.jpg``. Ends with exit code 1 where a PSNR differs by more than 0.01 dB. What it
takes is not measured: see ``vaekernels bench``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from vaekernels.bench import eager_tiny, tables
from vaekernels.models import AutoencoderTiny
from vaekernels.runtime.cpu_info import describe
from vaekernels.utils.atomic_file import atomic_write
from vaekernels.utils.image_grid import grid, stack_rows

_REPOSITORY = Path(__file__).resolve().parents[1]
DATA = _REPOSITORY.parent / "shared" / "data"
_RESULT = _REPOSITORY / "benchmarks" / "results" / "cpu" / "taef2_kodak.json"
_PICTURE = _REPOSITORY / "docs" / "taef2_kodak.jpg"
TOLERANCE = 0.01  # dB
_SHOWN = ("kodim03", "kodim05", "kodim20", "kodim23")  # all landscape


def load(path: Path) -> Tensor:
    """A photograph as (1, 3, H, W) in [0, 1]."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 255


def psnr(image: Tensor, original: Tensor) -> float:
    """In dB, of images in [0, 1], clipped to it."""
    error = (image.clamp(0, 1).double() - original.double()).square().mean()
    return -10 * error.log10().item()


class Models:
    """The same weights in both implementations, in float32.

    Args:
        folder: with ``taef2_encoder.pth`` and ``taef2_decoder.pth``.
    """

    def __init__(self, folder: Path) -> None:
        paths = folder / "taef2_encoder.pth", folder / "taef2_decoder.pth"
        self.ours = AutoencoderTiny.from_taesd(*paths, dtype=torch.float32)
        halves = eager_tiny.encoder(32, pooled=True), eager_tiny.decoder(32, pooled=True)
        for half, path in zip(halves, paths, strict=True):
            half.load_state_dict(torch.load(path, weights_only=True))
        self.plain = torch.nn.Sequential(*halves).float().eval()

    @torch.no_grad()
    def reconstructions(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """By ours and by plain PyTorch, of an image in [0, 1]."""
        ours = self.ours.reconstruct(2 * image - 1)
        return (ours + 1) / 2, self.plain(image)


def measure(name: str, image: Tensor, models: Models) -> tuple[dict[str, Any], Tensor]:
    """A row of the table, and our reconstruction."""
    ours, plain = models.reconstructions(image)
    row = {
        "image": name,
        "psnr": psnr(ours, image),
        "psnr_plain": psnr(plain, image),
        "largest_difference": (ours - plain).abs().max().item(),
    }
    return row, ours


def _picture(shown: list[tuple[Tensor, Tensor]]) -> Image.Image:
    """Originals above reconstructions, at half the size."""
    rows = (torch.cat(images).clamp(0, 1) for images in zip(*shown, strict=True))
    above, below = (torch.nn.functional.avg_pool2d(images, 2) for images in rows)
    return grid(stack_rows(above, below, len(shown)), len(shown))


def main(
    data: Annotated[Path, typer.Option(help="Folder with taef2 and kodak.")] = DATA,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = _RESULT,
    picture: Annotated[Path, typer.Option(help="The JPEG file to write.")] = _PICTURE,
    images: Annotated[int, typer.Option(help="At most so many photographs.")] = 24,
) -> None:
    """Reconstruct the Kodak photographs with TAEF2 and record their PSNR."""
    models, machine = Models(data / "taef2"), describe()
    rows, shown = [], []
    for path in sorted((data / "kodak").glob("*.png"))[:images]:
        image = load(path)
        row, reconstruction = measure(path.stem, image, models)
        rows.append(row)
        if path.stem in _SHOWN:
            shown.append((image, reconstruction))
        typer.echo("{image}: {psnr:.3f} dB, plain PyTorch {psnr_plain:.3f}".format(**row))
    tables.write_json(out, rows, machine, {"suite": "taef2_kodak"}, {"difference_db": TOLERANCE})
    if shown:
        with atomic_write(picture) as file:
            _picture(shown).save(file, format="JPEG", quality=85)
    mean = sum(row["psnr"] for row in rows) / len(rows)
    worst = max(abs(row["psnr"] - row["psnr_plain"]) for row in rows)
    typer.echo(f"mean {mean:.3f} dB; ours differs by at most {worst:.5f} dB; wrote {out}")
    if worst > TOLERANCE:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
