"""``vk.nn.FSQ`` against a loop over scalars, and against vector-quantize-pytorch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import vaekernels as vk

LEVELS = [(2,), (3,), (8, 6, 5), (7, 5, 5, 5, 5), (8, 8, 8, 5, 5, 5)]


def _scalar(value: float, levels: int) -> int:
    """The level of one number, -levels // 2 for the lowest."""
    half = (levels - 1) * 1.001 / 2
    offset = 0.5 if levels % 2 == 0 else 0.0
    return round(math.tanh(value + math.atanh(offset / half)) * half - offset)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_each_number_is_rounded_to_its_level(levels: tuple[int, ...]) -> None:
    x = 3 * torch.randn(64, len(levels), dtype=torch.float64)
    quantized, indices = vk.nn.FSQ(levels)(x)
    for row, found, index in zip(x.tolist(), quantized.tolist(), indices.tolist(), strict=True):
        expected = [_scalar(*pair) for pair in zip(row, levels, strict=True)]
        assert found == [level / (n // 2) for level, n in zip(expected, levels, strict=True)]
        digits = [level + n // 2 for level, n in zip(expected, levels, strict=True)]
        basis = itertools.accumulate((1, *levels[:-1]), int.__mul__)
        assert index == sum(digit * place for digit, place in zip(digits, basis, strict=True))


def test_every_code_is_reached_and_maps_to_itself() -> None:
    quantizer = vk.nn.FSQ((4, 3, 5))
    every = torch.arange(quantizer.codebook_size)
    codes = quantizer.codes(every)
    assert len(codes.unique(dim=0)) == quantizer.codebook_size == 60
    axis = torch.linspace(-8.0, 8.0, 400)
    grid = torch.stack([axis.roll(int(shift)) for shift in (0, 130, 270)], 1)
    lowest, highest = quantizer(grid).quantized.aminmax(dim=0)
    assert lowest.tolist() == [-1.0] * 3
    assert highest.tolist() == [0.5, 1.0, 1.0]  # an even number of levels has one more below 0
    reached = torch.cartesian_prod(*[axis[::8]] * 3)
    assert quantizer(reached).indices.unique().equal(every)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "dim"), [((2, 3, 4, 5), 1), ((2, 7, 3), -1), ((0, 3, 4, 4), 1)])
def test_codes_have_the_bits_of_forward(
    dtype: torch.dtype, shape: tuple[int, ...], dim: int
) -> None:
    quantizer = vk.nn.FSQ((8, 6, 5), channel_dim=dim)
    x = (2 * torch.randn(shape)).to(dtype).requires_grad_()
    quantized, indices = quantizer(x)
    assert quantized.dtype == dtype
    assert quantized.shape == x.shape
    assert indices.shape == x.select(dim, 0).shape
    assert quantizer.codes(indices, dtype).equal(quantized)


def test_the_gradient_is_that_of_the_bounded_input() -> None:
    levels = (8, 6, 5)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    quantized = vk.nn.FSQ(levels)(x).quantized
    n = torch.tensor(levels, dtype=torch.float64).view(3, 1, 1)
    half, offset = (n - 1) * 1.001 / 2, (n % 2 == 0) / 2
    bounded = (torch.tanh(x + torch.atanh(offset / half)) * half - offset) / (n // 2)
    weight = torch.randn_like(x)
    expected = torch.autograd.grad((bounded * weight).sum(), x, create_graph=True)[0]
    found = torch.autograd.grad((quantized * weight).sum(), x, create_graph=True)[0]
    torch.testing.assert_close(found, expected)
    again = torch.autograd.grad((quantized * weight).sum(), x, create_graph=True)[0]
    assert again.equal(found)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), x)[0],
        torch.autograd.grad(expected.square().sum(), x)[0],
    )


def test_strides_do_not_matter() -> None:
    quantizer = vk.nn.FSQ((8, 6, 5))
    x = torch.randn(2, 3, 6, 5)
    expected = quantizer(x)
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([x, x], -1)[..., 1],
    ):
        assert all(map(torch.equal, quantizer(other), expected))


def test_a_nan_is_kept_and_infinities_are_the_outermost_levels() -> None:
    x = torch.tensor([[0.1, math.nan, 0.2], [math.inf, -math.inf, 0.0]])
    quantizer = vk.nn.FSQ((8, 6, 5))
    quantized, indices = quantizer(x)
    assert quantized[0].isnan().tolist() == [False, True, False]
    assert quantized[1].tolist() == [0.75, -1.0, 0.0]
    assert indices[0] == -1
    assert quantizer.codes(indices).isnan().tolist() == [[True] * 3, [False] * 3]
    assert quantizer.codes(torch.tensor([240])).isnan().all()


def test_autocast_and_conversion_do_not_change_the_indices() -> None:
    quantizer = vk.nn.FSQ((8, 5, 5, 5))
    x = torch.randn(8, 4, 9, 9)
    expected = quantizer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, quantizer(x), expected))
    assert all(map(torch.equal, quantizer.half()(x), expected))


def test_compiles_to_one_graph() -> None:
    quantizer = vk.nn.FSQ((8, 5, 5, 5))
    x = torch.randn(2, 4, 8, 8)
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, compiled(x), quantizer(x)))


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        ((), ValueError, "one or more numbers from 2; got ()"),
        ((8, 1), ValueError, "one or more numbers from 2; got (8, 1)"),
        ((8, 2.5), TypeError, "a sequence of integers; got (8, 2.5)"),
        (8, TypeError, "a sequence of integers; got 8"),
        ((2,) * 63, ValueError, "fewer than 2^63 codes"),
    ],
    ids=str,
)
def test_levels_that_are_refused(
    levels: tuple[int, ...] | int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        vk.nn.FSQ(levels)  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_input_that_is_refused() -> None:
    quantizer = vk.nn.FSQ((8, 5))
    with pytest.raises(ValueError, match=r"2 channels at dim 1; got shape \(2, 3, 4\)"):
        quantizer(torch.randn(2, 3, 4))
    with pytest.raises(ValueError, match=r"2 channels at dim 1; got shape \(2,\)"):
        quantizer(torch.randn(2))
    with pytest.raises(TypeError, match="x must be float64, float32"):
        quantizer(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="indices must be an int64 tensor; got torch.int32"):
        quantizer.codes(torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"before the channels, at 1; got shape \(\)"):
        quantizer.codes(torch.tensor(3))


@pytest.mark.parametrize("levels", LEVELS[1:], ids=str)
def test_against_vector_quantize_pytorch(levels: tuple[int, ...]) -> None:
    peer = pytest.importorskip("vector_quantize_pytorch").FSQ(list(levels))
    x = 2 * torch.randn(3, 50, len(levels))
    quantized, indices = vk.nn.FSQ(levels, channel_dim=-1)(x)
    expected, codes = peer(x)
    torch.testing.assert_close(quantized, expected)
    assert indices.equal(codes.long())
