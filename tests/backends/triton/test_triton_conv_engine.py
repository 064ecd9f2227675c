"""Inside of the tap-GEMM: forms, tiles, descriptors, statistics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs import error

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]


def forms():
    from vaekernels.backends.triton.conv import forms as found

    return {
        "same": found.SAME,
        "upsample": found.UPSAMPLE,
        "down4x4": found.DOWN4X4,
        "up4x4": found.UP4X4,
        **{f"down3x3_{name}": form for name, form in found.DOWN3X3.items()},
    }


def matrix_of(form, weight: Tensor, samples: int, outputs: int) -> Tensor:
    """A form in one dimension, (outputs, samples), from its definition."""
    matrix = torch.zeros(outputs, samples)
    for output in range(outputs):
        j, q = divmod(output, form.phases)
        for t, taps in enumerate(form.windows[q].taps):
            sample = form.stride * j + form.windows[q].start + t
            if 0 <= sample < samples:
                matrix[output, sample] = sum(weight[tap] for tap in taps)
    return matrix


def by_torch(name: str, x: Tensor, weight: Tensor) -> Tensor:
    """The same of an image line, (1, 1, n)."""
    if name == "upsample":
        x = x.repeat_interleave(2, -1)
    if name == "down3x3_asymmetric":
        return F.conv1d(F.pad(x, (0, 1)), weight, stride=2)
    if name == "up4x4":
        return F.conv_transpose1d(x, weight, stride=2, padding=1)
    return F.conv1d(x, weight, stride=2 if "down" in name else 1, padding=1)


@pytest.mark.parametrize("samples", (2, 3, 6, 7))
def test_forms_are_the_convolutions_and_adjoints_their_transposes(samples: int) -> None:
    from vaekernels.backends.triton.conv.forms import adjoint

    for name, form in forms().items():
        x, weight = torch.randn(1, 1, samples), torch.randn(1, 1, form.kernel)
        expected = by_torch(name, x, weight).flatten()
        matrix = matrix_of(form, weight.flatten(), samples, len(expected))
        torch.testing.assert_close(matrix @ x.flatten(), expected)
        back = matrix_of(adjoint(form), weight.flatten(), len(expected), samples)
        assert torch.equal(back, matrix.T), name
        assert adjoint(adjoint(form)) == form


def test_borders_hold_zeros_wherever_windows_leave_the_image() -> None:
    """No window wraps from one line into samples of another."""
    from vaekernels.backends.triton.conv.forms import adjoint

    for form in (*forms().values(), *map(adjoint, forms().values())):
        for samples, outputs in itertools.product(range(1, 12), repeat=2):
            pitch = form.pitch(samples, outputs) * form.stride
            assert pitch >= samples
            for output in range(outputs):
                j, q = divmod(output, form.phases)
                window = form.windows[q]
                first = form.stride * j + window.start
                for sample in range(first, first + len(window.taps)):
                    if sample < 0:
                        assert sample + pitch >= samples
                    assert sample < pitch


@pytest.fixture(params=(False, True), ids=("pointers", "descriptors"))
def described(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    from vaekernels.backends.triton.conv import launch

    monkeypatch.setattr(launch, "uses_descriptors", lambda like: request.param)
    return request.param


@pytest.mark.parametrize("name", ("same", "up4x4", "down4x4"))
def test_small_tiles_in_both_ways_of_loading(name: str, described: bool) -> None:
    """Several tiles of rows, of columns, several steps of a tap."""
    from vaekernels.backends.triton.conv.launch import Epilogue, convolve
    from vaekernels.backends.triton.conv.padded_images import pad
    from vaekernels.backends.triton.conv.tile_heuristics import Tile

    form = forms()[name]
    x, weight = torch.randn(2, 20, 5, 4), torch.randn(20, 20, form.kernel, form.kernel)
    if name == "up4x4":
        expected = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=1)
    else:
        expected = F.conv2d(x, weight, stride=2 if "down" in name else 1, padding=1)
    size = (expected.shape[2], expected.shape[3])
    epilogue = Epilogue(residual=expected, activation="relu")
    tile = Tile(rows=32, columns=16, depth=16, warps=4, stages=2)
    got, _ = convolve(form, pad(x, form, size, "high"), weight, 0, size, "high", epilogue, tile)
    assert error(got, F.relu(2 * expected)) <= 1e-6


@pytest.mark.parametrize(("name", "inputs"), (("same", 68), ("down4x4", 20)))
def test_filter_gradient_in_both_ways_of_loading(
    name: str, inputs: int, described: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several splits, several chunks of a split; tiles that are wider than what is left."""
    from vaekernels.backends.triton.conv import launch
    from vaekernels.backends.triton.conv.padded_images import pad, pad_like

    monkeypatch.setattr(launch, "CHUNK", 64)
    monkeypatch.setattr(launch, "splits_of", lambda rows, programs: 3)
    form = forms()[name]
    size = 9 // form.stride, 8 // form.stride
    x, g = torch.randn(3, inputs, 9, 8), torch.randn(3, 17, *size)
    weight = torch.empty(17, inputs, form.kernel, form.kernel)
    padded = pad(x, form, size, "high")
    v = pad_like(g, padded.cells, "high")
    got = launch.filter_gradient(form, padded, v, weight, 0, "high")
    options = {"stride": form.stride, "padding": 1}
    expected = torch.nn.grad.conv2d_weight(x.double(), weight.shape, g.double(), **options)
    assert error(got, expected) <= 1e-6


@pytest.mark.parametrize("name", ("same", "upsample"))
def test_statistics_of_the_result(name: str) -> None:
    """Merged by Chan's formula they are the result's own, a large mean included."""
    from vaekernels.backends.triton.conv.launch import Epilogue, convolve
    from vaekernels.backends.triton.conv.padded_images import pad
    from vaekernels.backends.triton.conv.tile_heuristics import Tile

    form = forms()[name]
    x, weight, bias = torch.randn(2, 3, 7, 6), torch.randn(20, 3, 3, 3), torch.full((20,), 1000.0)
    size = (7 * form.phases, 6 * form.phases)
    tile = Tile(rows=32, columns=16, depth=16, warps=4, stages=2)
    epilogue = Epilogue(bias, statistics=True)
    y, statistics = convolve(
        form, pad(x, form, size, "high"), weight, 0, size, "high", epilogue, tile
    )
    assert statistics is not None
    count, mean, m2 = statistics.double().unbind(2)
    total = count.sum(1)
    assert torch.equal(total, torch.full_like(total, size[0] * size[1]))
    merged = (count * mean).sum(1) / total
    variance = (m2 + count * (mean - merged[:, None]).square()).sum(1) / total
    assert error(merged, y.double().mean((2, 3))) <= 1e-6
    assert error(variance, y.double().var((2, 3), correction=0)) <= 1e-5


def test_tiles_suit_their_shapes() -> None:
    from vaekernels.backends.triton.conv.tile_heuristics import (
        TILES,
        Key,
        gradient_tile_of,
        tile_of,
    )

    for factors, inputs, outputs, rows in itertools.product(
        TILES, (16, 48, 160, 512), (3, 20, 128, 160, 512), (1, 2**12, 2**18)
    ):
        tile = tile_of(Key(90, factors, 9, inputs, outputs, rows, False), 132)
        assert inputs % tile.depth == 0
        assert min(tile.rows, tile.columns, tile.depth) >= 16
        columns = -(-outputs // tile.columns) * tile.columns
        assert columns <= max(16, 2 * outputs)
        gradient = gradient_tile_of(factors, inputs, columns)
        for side, channels in ((gradient.inputs, inputs), (gradient.outputs, columns)):
            assert side == 64 or (side == 128 and channels % 128 == 0 and factors != "float32")
    key = Key(90, "bfloat16", 9, 512, 512, 2**16, False)
    wide = tile_of(key, 132)
    assert (wide.rows, wide.columns) == (128, 256)
    for fields in ({"epilogue": True}, {"architecture": 80}):
        narrower = replace(key, **fields)
        assert tile_of(narrower, 132).columns == 128
        assert tile_of(replace(narrower, outputs=500), 132).columns <= 32


def test_the_largest_tile_stays_within_the_matrix() -> None:
    """Where it begins at the last cell's last channels and the window's last sample."""
    from vaekernels.backends.triton.conv.padded_images import (
        CHANNEL_MULTIPLE,
        TILE_CHANNELS,
        TILE_ROWS,
        pad,
    )

    for form, width in itertools.product(forms().values(), (1, 2, 50, 300)):
        x = torch.zeros(2, 3, 2, width)
        size = (2 * form.phases // form.stride, width * form.phases // form.stride)
        padded = pad(x, form, size, "high")
        rows, numbers = padded.rows.shape
        reach = form.reach[1] * (padded.cells[1] + 1)
        last = padded.lead + padded.batch * padded.image_rows - 1 + reach + TILE_ROWS - 1
        assert last * numbers + (numbers - CHANNEL_MULTIPLE) + TILE_CHANNELS <= rows * numbers


def test_too_many_pixels_are_refused() -> None:
    from vaekernels.backends.triton.conv.padded_images import pad

    x = torch.empty(1, 1, 1, 1).expand(2**11, 1, 2**10, 2**10)
    with pytest.raises(ValueError, match=r"less than 2\*\*31 pixels; got \(2048, 1, 1024, 1024\)"):
        pad(x, forms()["same"], (2**10, 2**10), "high")
