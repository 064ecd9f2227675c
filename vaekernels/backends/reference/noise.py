"""The noise contract in plain PyTorch: Philox4x32-10 words, uniforms, normals.

This file *is* the contract of ``docs/noise.md`` (version 1); every backend reproduces it.
Integers are carried in int64 and masked to 32 bits. ``fma`` is formed in float64, where the
product of two float32 numbers is exact, so that a result differs from a true fused
multiply-add in at most the last place, and that once in about 2**29 operations.

Paper: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

# Minimax coefficients, highest power first, shared by every backend (csrc/common/noise.h,
# backends/triton/noise.py): log1p(m) = m - m^2/2 + m^3 LOG(m); sin and cos of (pi/2) f as
# polynomials in f^2.
LOG = (0.08917868, -0.14350201, 0.14876962, -0.16565634, 0.19965398, -0.25001746, 0.3333386)
SIN = (-0.004602177, 0.07968023, -0.6459635, 1.5707964)
COS = (0.00090363174, -0.020860072, 0.2536692, -1.2337005, 1.0)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4


def philox(counter: Sequence[Tensor], key: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Four 32-bit words (in int64) of Philox4x32-10 for each counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # Split the multiplicand: a 32x32 product does not fit into a signed 64-bit integer.
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_INCREMENTS[0]) & MASK32, (k1 + KEY_INCREMENTS[1]) & MASK32
    return [c0, c1, c2, c3]


def _multiply(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    low, high = a & 0xFFFF, a >> 16
    carried = (low * m >> 16) + high * m
    return carried >> 16, (a * (m & 0xFFFF) + ((a * (m >> 16) & 0xFFFF) << 16)) & MASK32


def normals(
    size: Sequence[int],
    seed: Tensor,
    step: int,
    sample_ids: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Standard normals of shape ``size`` in float32; ``size[0]`` counts samples."""
    # A tensor without memory of its own says size and device: torch.jit.trace records neither as
    # an argument of an op.
    like = torch.empty((), dtype=torch.float32, device=device).expand(tuple(size))
    return _normals(like, seed, step, sample_ids)


# An op of its own, so that a compiler calls it as a whole: Inductor needs minutes for the emulated
# integer arithmetic below.
@torch.library.custom_op("vaekernels_reference::normals", mutates_args=())
def _normals(like: Tensor, seed: Tensor, step: int, sample_ids: Tensor | None) -> Tensor:
    size, device = like.shape, like.device
    batch, event = size[0], 1
    for extent in size[1:]:
        event *= extent
    blocks = (event + 3) // 4
    if sample_ids is None:
        sample_ids = torch.arange(batch, device=device)
    ids = sample_ids.to(device=device, dtype=torch.int64).unsqueeze(1)
    block = torch.arange(blocks, device=device).unsqueeze(0)
    seed = seed.to(device)
    key = (seed & MASK32, (seed >> 32) & MASK32)
    zero = torch.zeros((batch, blocks), dtype=torch.int64, device=device)
    counter = (block + zero, (ids & MASK32) + zero, ((ids >> 32) & MASK32) + zero, zero + step)
    words = philox(counter, key)
    pairs = (*box_muller(words[0], words[1]), *box_muller(words[2], words[3]))
    flat = torch.stack(pairs, dim=-1).reshape(batch, blocks * 4)
    return flat[:, :event].contiguous().reshape(tuple(size))


@_normals.register_fake
def _(like: Tensor, seed: Tensor, step: int, sample_ids: Tensor | None) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def box_muller(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals from two 32-bit words, in float32.

    ``u = (w0 >> 1) 2^-31 + 2^-32`` lies in (0, 1], so that ``sqrt(-2 log u) <= 6.66``. The
    angle is ``2 pi w1 2^-32``; its octant reduction is exact because it is done on integers.
    """
    u = _fma((radius_word >> 1).float(), 2.0**-31, 2.0**-32)
    # Through float64, which rounds correctly: MKL's float32 square root does not.
    radius = torch.sqrt((-2.0 * _log(u)).double()).float()
    quadrant = ((angle_word + 0x20000000) & MASK32) >> 30
    remainder = angle_word - (quadrant << 30)
    remainder = torch.where(remainder >= 2**31, remainder - 2**32, remainder)
    f = remainder.float() * 2.0**-30
    square = f * f
    sine = _polynomial(square, SIN) * f
    cosine = _polynomial(square, COS)
    swap = (quadrant & 1).bool()
    first = torch.where(swap, sine, cosine)
    second = torch.where(swap, cosine, sine)
    first = torch.where(((quadrant + 1) & 2).bool(), -first, first)
    second = torch.where((quadrant & 2).bool(), -second, second)
    return radius * first, radius * second


def _log(u: Tensor) -> Tensor:
    """Natural logarithm of a positive, normal float32 ``u`` <= 1."""
    shifted = u.view(torch.int32).long() - 0x3F3504F3  # bits of sqrt(1/2)
    exponent = (shifted >> 23).float()
    m = ((shifted & 0x7FFFFF) + 0x3F3504F3).to(torch.int32).view(torch.float32) - 1.0
    square = m * m
    y = _polynomial(m, LOG) * m * square
    y = _fma(exponent, LN2_LOW, y)
    y = _fma(square, -0.5, y)
    return _fma(exponent, LN2_HIGH, m + y)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    y = torch.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y = _fma(y, x, c)
    return y


def _fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    return (a.double() * _float32(b) + _float32(c)).float()


def _float32(value: Tensor | float) -> Tensor | float:
    """``value`` rounded to float32 and widened to float64."""
    if isinstance(value, Tensor):
        return value.double()
    return torch.tensor(value, dtype=torch.float32, device="cpu").double().item()
