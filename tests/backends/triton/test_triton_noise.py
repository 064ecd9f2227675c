"""The noise contract in Triton: Philox words, elementary functions, normals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaekernels.backends.reference import noise as reference

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on NaN and infinity
]

# Random123's known answers for Philox4x32-10: counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def signed(value: int) -> int:
    """64 bits as the int64 they are stored as."""
    return value - 2**64 if value >= 2**63 else value


def ulps(got: Tensor, exact: Tensor) -> float:
    """Largest difference in units in the last place of float32."""
    exact = exact.double()
    exponent = torch.frexp(exact.abs().clamp_min(2.0**-126)).exponent
    return float(((got.double() - exact).abs() / torch.exp2(exponent.double() - 24)).max())


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    from triton_probes import philox_kernel

    out = torch.empty(4, dtype=torch.int64)
    block, low, high, step = counter
    seed, sample_id = signed(key[1] << 32 | key[0]), signed(high << 32 | low)
    philox_kernel[(1,)](out, seed, step, torch.tensor([sample_id]), torch.tensor([block]))
    assert tuple(out.tolist()) == words


def test_exp_is_within_one_ulp_everywhere() -> None:
    from triton_probes import unary

    x = torch.cat([torch.linspace(-103.0, 88.7, 4001), torch.linspace(-1e-3, 1e-3, 94)])
    got = unary("exp", x)
    exact = x.double().exp()
    normal = exact > 2.0**-126
    assert ulps(got[normal], exact[normal]) <= 1.01
    assert ((got - exact).abs() <= 2.0**-149)[~normal].all()


def test_exp_at_the_ends() -> None:
    from triton_probes import unary

    infinity, nan = float("inf"), float("nan")
    got = unary("exp", torch.tensor([-infinity, -200.0, 0.0, 200.0, infinity, nan]))
    torch.testing.assert_close(
        got, torch.tensor([0.0, 0.0, 1.0, infinity, infinity, nan]), rtol=0, atol=0, equal_nan=True
    )


def test_log_is_within_two_ulps_everywhere() -> None:
    from triton_probes import unary

    x = torch.cat([torch.logspace(-44, 38, 4001, dtype=torch.float64).float(), torch.tensor([1.0])])
    assert ulps(unary("log", x), x.double().log()) <= 2.0
    infinity, nan = float("inf"), float("nan")
    got = unary("log", torch.tensor([0.0, -1.0, infinity, nan]))
    expected = torch.tensor([-infinity, nan, infinity, nan])
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1p_keeps_tiny_arguments(dtype: torch.dtype) -> None:
    from triton_probes import unary

    e = torch.logspace(-37, 0, 2001, dtype=dtype)
    exact = torch.log1p(e.double())
    error = (unary("log1p_of_fraction", e).double() - exact).abs() / exact
    assert error.max() <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62 + 12345])
@pytest.mark.parametrize("step", [0, 2**32 - 1])
def test_normals_are_the_references(seed: int, step: int) -> None:
    from vaekernels.backends.triton.randn import randn

    like = torch.empty((3, 5, 67))
    ids = torch.tensor([7, 2**40 + 1, -3])
    got = randn(like, torch.tensor(seed), step, ids)
    expected = reference.normals(like.shape, torch.tensor(seed), step, ids, like.device)
    assert ulps(got, expected) <= 2.0
    assert got.is_contiguous()


def test_normals_of_long_rows_span_segments() -> None:
    from vaekernels.backends.triton.randn import randn

    like, seed = torch.empty((2, 4099)), torch.tensor(5)
    expected = reference.normals(like.shape, seed, 1, None, like.device)
    assert ulps(randn(like, seed, 1, None), expected) <= 2.0


def test_the_seed_may_live_in_memory() -> None:
    """On a GPU the seed is read through a pointer; the interpreter can do so from the CPU."""
    from vaekernels.backends.triton.randn import randn, randn_kernel
    from vaekernels.backends.triton.row_reduction import Tiling, launch

    like, seed = torch.empty((2, 33)), torch.tensor(2**40 + 9)
    launch(randn_kernel, Tiling.of(like), like, like, seed, 3, None, like.stride(0))
    assert torch.equal(like, randn(like, seed, 3, None))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_round_the_float32_normals_once(dtype: torch.dtype) -> None:
    from vaekernels.backends.triton.randn import randn

    seed = torch.tensor(11)
    narrow = randn(torch.empty((2, 33)), seed, 0, None)
    assert torch.equal(randn(torch.empty((2, 33), dtype=dtype), seed, 0, None), narrow.to(dtype))


def test_sample_ids_alone_decide_the_row() -> None:
    from vaekernels.backends.triton.randn import randn

    seed = torch.tensor(3)
    whole = randn(torch.empty((4, 21)), seed, 0, None)
    part = randn(torch.empty((2, 21)), seed, 0, torch.tensor([3, 1]))
    assert torch.equal(part, whole[[3, 1]])
    assert randn(torch.empty((0, 21)), seed, 0, None).shape == (0, 21)
