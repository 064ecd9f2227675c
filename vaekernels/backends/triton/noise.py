"""The noise contract (docs/noise.md) as Triton device functions.

Operation by operation the arithmetic of ``vaekernels/backends/reference/noise.py`` and of the
C++, so that compiled float32 normals are the same bits on every backend.

Paper: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton.elementary import log_of_normal


@triton.jit
def philox_words(seed, step, sample_id, block):
    """Four uint32 words of Philox4x32-10; counter (block, id low, id high, step), key the seed.

    tl.philox would silently become Philox4x64 with a 64-bit counter: all four are made uint32.
    """
    sample_id = sample_id.to(tl.int64)
    low = (sample_id & 0xFFFFFFFF).to(tl.uint32)
    high = ((sample_id >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(seed.to(tl.int64), block.to(tl.uint32), low, high, step.to(tl.uint32))


@triton.jit
def box_muller(radius_word, angle_word):
    """Two independent standard normals (float32) from two 32-bit words.

    The angle's reduction to an octant is exact because it is done on integers.
    """
    uniform = tl.fma((radius_word >> 1).to(tl.int32).to(tl.float32), 2.0**-31, 2.0**-32)
    radius = tl.sqrt_rn(-2.0 * log_of_normal(uniform))
    quadrant = (angle_word + 0x20000000) >> 30
    f = (angle_word - (quadrant << 30)).to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-30
    square = f * f
    sine = tl.fma(square, -0.004602177, 0.07968023)
    sine = tl.fma(sine, square, -0.6459635)
    sine = tl.fma(sine, square, 1.5707964) * f
    cosine = tl.fma(square, 0.00090363174, -0.020860072)
    cosine = tl.fma(cosine, square, 0.2536692)
    cosine = tl.fma(cosine, square, -1.2337005)
    cosine = tl.fma(cosine, square, 1.0)
    swap = (quadrant & 1) != 0
    first = tl.where(swap, sine, cosine)
    second = tl.where(swap, cosine, sine)
    first = tl.where(((quadrant + 1) & 2) != 0, -first, first)
    second = tl.where((quadrant & 2) != 0, -second, second)
    return radius * first, radius * second


@triton.jit
def standard_normals(
    seed,  # pointer to the int64 seed, or the seed itself
    step,  # integer in [0, 2^32)
    sample_id,  # (ROWS, 1) int64
    first_block,  # scalar: the tile's first column / 4
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """(ROWS, COLUMNS) normals; the four words of a Philox call serve four columns in a row."""
    if seed.dtype.is_ptr():
        seed = tl.load(seed)
    block = first_block + tl.arange(0, COLUMNS // 4)[None, :]
    # Every word takes the tile's shape before tl.join, which does not broadcast.
    zero = tl.zeros([ROWS, COLUMNS // 4], tl.uint32)
    w0, w1, w2, w3 = philox_words(seed, step, sample_id, block)
    n0, n1 = box_muller(w0 + zero, w1 + zero)
    n2, n3 = box_muller(w2 + zero, w3 + zero)
    return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), [ROWS, COLUMNS])


@triton.jit
def load_sample_ids(sample_ids, row, batch):
    """Identities of the rows, (ROWS, 1) int64; the row's number where none are given."""
    ids = row
    if sample_ids is not None:
        ids = tl.load(sample_ids + row, mask=row < batch, other=0)
    return ids


def noise_arguments(
    like: Tensor, seed: Tensor, step: int, sample_ids: Tensor | None
) -> tuple[Tensor | int, int, Tensor | None]:
    """The kernel arguments seed, step and sample_ids.

    A seed on the GPU stays there, so that each replay of a CUDA graph reads the new one.
    """
    key = int(seed) if seed.device.type == "cpu" else seed
    if sample_ids is not None:
        sample_ids = sample_ids.to(like.device, torch.int64).contiguous()
    return key, step, sample_ids
