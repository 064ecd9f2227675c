"""Options and arguments that several commands share, and how their text is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from vaekernels.utils.limits import LARGEST_SIZE, check_room

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a trained model.", show_default=False)
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="mnist5k, an .npz of images, or a folder of images.",
        show_default=False,
    ),
]
Png = Annotated[Path, typer.Option("--out", help="The PNG file to write.", show_default=False)]
Device = Annotated[
    str, typer.Option("--device", help="auto (CUDA if there is one), cpu, cuda or cuda:N.")
]
Seed = Annotated[int, typer.Option("--seed", help="Decides the noise.")]
Columns = Annotated[int, typer.Option("--columns", help="Images in a row.")]


def sizes(option: str, text: str, separator: str = ",") -> tuple[int, ...]:
    """Positive integers from text such as ``32,64``; an empty text is ().

    Raises:
        ValueError: the text is something else.
    """
    parts = [part.strip() for part in text.split(separator)] if text else []
    if not all(part.isdecimal() and part.strip("0") for part in parts):
        example = separator.join(("32", "64"))
        raise ValueError(f"{option} must be positive integers such as {example}; got {text!r}")
    for part in parts:
        # By its length first: Python refuses to read thousands of digits.
        if len(part) > 20 or int(part) > LARGEST_SIZE:
            raise ValueError(f"{option} must be at most {LARGEST_SIZE}; got {part[:20]}")
    return tuple(int(part) for part in parts)


def image_size(text: str | None) -> tuple[int, int] | None:
    """Height and width from ``64`` or ``64x48``.

    Raises:
        ValueError: the text is something else.
    """
    if text is None:
        return None
    numbers = sizes("--image-size", text, "x")
    if len(numbers) not in (1, 2):
        raise ValueError(f"--image-size must be SIZE or HEIGHTxWIDTH; got {text!r}")
    return numbers[0], numbers[-1]


def output_file(path: Path, suffix: str) -> Path:
    """``path``, in a folder that exists from now on; checked before any work is done.

    Raises:
        ValueError: another suffix, or a folder.
    """
    if path.suffix.lower() != suffix:
        raise ValueError(f"--out must be a file named {suffix}; got {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; expected a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def at_least_one(option: str, value: int) -> int:
    """``value``, which must be positive.

    Raises:
        ValueError: it is not.
    """
    if value < 1:
        raise ValueError(f"{option} must be at least 1; got {value}")
    if value > LARGEST_SIZE:
        raise ValueError(f"{option} must be at most {LARGEST_SIZE}; got {value}")
    return value


def check_pictures(option: str, count: int, image_shape: tuple[int, int, int]) -> None:
    """``count`` images, which ``option`` asks for, fit into memory.

    Raises:
        ValueError: they do not.
    """
    check_room(f"{option}: a grid of {count} images", 4 * count * math.prod(image_shape))
