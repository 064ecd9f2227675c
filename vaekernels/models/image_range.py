"""Checks of the range of image values."""

from __future__ import annotations

import functools
import math
import warnings

from torch import Tensor

from vaekernels.runtime.nonfinite_policy import can_be_read

Range = tuple[float, float]

UNBOUNDED: Range = (-math.inf, math.inf)
# Tolerance for overshoot from resizing and for 16-bit rounding.
_SLACK = 0.05
# Standardised images stay below this, and most 8-bit images exceed it.
_LIKE_EIGHT_BITS = 16.0
_LISTED = 8


def check_range(
    owner: str, name: str, images: Tensor, bounds: Range, *, allows_nan: bool = False
) -> None:
    """Check that all values of ``images`` are finite and in ``bounds``, with a small tolerance.

    The check takes one pass over the images and synchronises with a GPU. Nothing is checked where
    values cannot be read: under ``torch.compile``, during the capture of a CUDA graph, in
    ``torch.func`` transforms and on the meta device.

    Args:
        owner: name of the model, for errors.
        name: name of the argument, for errors.
        images: (B, ...) images.
        bounds: the range. With :data:`UNBOUNDED`, values as large as those of 8-bit images cause a
            warning, once.
        allows_nan: whether NaN is accepted; the other values are checked all the same.

    Raises:
        ValueError: an image is out of range; the error names the images, their range and NaN.
    """
    if images.numel() == 0 or not can_be_read(images):
        return
    images = images.detach()
    low, high = (float(bound) for bound in images.aminmax())
    if allows_nan and math.isnan(low):
        numbers = images[~images.isnan()]
        if numbers.numel() == 0:
            return
        low, high = (float(bound) for bound in numbers.aminmax())
    # Comparisons with NaN are false, so NaN raises below.
    if bounds == UNBOUNDED:
        if -math.inf < low and high < math.inf:
            if high > _LIKE_EIGHT_BITS:
                _warn_about_eight_bits(owner, name)
            return
    elif bounds[0] - _SLACK <= low and high <= bounds[1] + _SLACK:
        return
    raise ValueError(_message(owner, name, images, bounds))


def _message(owner: str, name: str, images: Tensor, bounds: Range) -> str:
    expected = f"values in [{bounds[0]:g}, {bounds[1]:g}]"
    if bounds == UNBOUNDED:
        expected = "finite values"
        fits = images.isfinite()
    else:
        fits = (images >= bounds[0] - _SLACK) & (images <= bounds[1] + _SLACK)
    bad = (~fits.flatten(1).all(1)).nonzero().flatten().tolist()
    values = images[bad]
    nan = values.isnan()
    numbers = values[~nan]
    got = []
    if len(numbers):
        low, high = (float(bound) for bound in numbers.aminmax())
        got.append(f"[{low:g}, {high:g}]")
    if len(numbers) < values.numel():
        got.append("NaN")
    listed = ", ".join(str(index) for index in bad[:_LISTED])
    more = f" and {len(bad) - _LISTED} others" if len(bad) > _LISTED else ""
    return (
        f"{owner}: {name} must have {expected}; got {' and '.join(got)} in "
        f"image{'s' if len(bad) > 1 else ''} {listed}{more} of a batch of {len(images)} "
        "(check_range = False switches this check off)"
    )


@functools.cache
def _warn_about_eight_bits(owner: str, name: str) -> None:
    """Warn once per model class."""
    warnings.warn(
        f"{owner}: {name} has values above {_LIKE_EIGHT_BITS:g}, as images of 8 bits that were not "
        "divided by 255; vaekernels train has images in [0, 1] (check_range = False silences this)",
        stacklevel=5,
    )
