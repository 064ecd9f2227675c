"""Execution within a memory bound: equal results, less memory, correct estimates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.models import autoencoders
from tests.models.autoencoders import images
from vaekernels.backends import extension
from vaekernels.bench.memory import peak_bytes
from vaekernels.models import AutoencoderKL, AutoencoderKLConfig
from vaekernels.nn.layer_chain import CONV3X3, DOWNSAMPLE_CONV3X3, UPSAMPLE_CONV3X3, Window
from vaekernels.tiling import parse_bytes
from vaekernels.tiling.moments import GroupStatistics

MIB = 2**20
# Every kind of step: same size, up, down, attention, the pooled branch; odd sizes.
MODELS = {
    "kl": lambda: autoencoders.kl("sd1"),
    "kl without attention": lambda: autoencoders.kl("without_attention"),
    "tiny": lambda: autoencoders.tiny("taesd"),
    "tiny, pooled": lambda: autoencoders.tiny("wide", pooled_bottleneck=True),
}
HALVES = ("encode", "decode")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tiles are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _input(model: Any, half: str) -> Tensor:
    if half == "encode":
        return images(model.image_channels, 65, 90)
    return images(model.latent_channels, 17, 22)


def _call(model: Any, half: str, x: Tensor, bound: int | None = None) -> Tensor:
    with torch.no_grad():
        found = getattr(model, half)(x, max_memory=bound)
    if half == "decode":
        return found.sample
    return found.latents if hasattr(found, "latents") else found.latent_dist.mean


def _plan(model: Any, half: str, x: Tensor, bound: int) -> Any:
    return getattr(model, f"plan_{half}")(x.shape, bound)


def _least(model: Any, half: str, x: Tensor) -> int:
    with pytest.raises(ValueError, match="max_memory must be at least") as error:
        _plan(model, half, x, 1)
    return parse_bytes(str(error.value).split("at least ")[1].split(" for")[0])


@pytest.mark.parametrize(("name", "half"), itertools.product(MODELS, HALVES))
def test_exact_at_every_bound(name: str, half: str) -> None:
    model = MODELS[name]()
    x = _input(model, half)
    expected = _call(model, half, x)
    whole = _plan(model, half, x, 2**40)
    assert whole.whole
    assert torch.equal(_call(model, half, x, 2**40), expected)
    least = _least(model, half, x)
    assert least < whole.memory
    works = [1.0]
    for share in (0.7, 0.3, 0.05, 0.0):
        bound = int(least + share * (whole.memory - least))
        plan = _plan(model, half, x, bound)
        assert plan.memory <= bound
        assert plan.work >= works[-1]  # less memory is never faster
        works.append(plan.work)
        y = _call(model, half, x, bound)
        assert y.shape == expected.shape
        assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert works[-1] > 1.0


@pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")
@pytest.mark.parametrize(
    ("half", "share", "batch"),
    [*itertools.product(HALVES, (1.0, 0.5, 0.1), (1,)), ("decode", 0.3, 4)],
)
def test_memory_estimate(half: str, share: float, batch: int) -> None:
    """The estimate is above the measured peak, or at most 15% below it."""
    model = autoencoders.kl("sd1")
    channels = model.image_channels if half == "encode" else model.latent_channels
    x = images(channels, *((256, 256) if half == "encode" else (64, 64)), batch=batch)
    whole = _plan(model, half, x, 2**40).memory
    least = _least(model, half, x)
    bound = int(least + share * (whole - least))

    def call() -> None:
        vk.empty_cache()
        _call(model, half, x, bound)

    estimate, measured = _plan(model, half, x, bound).memory, peak_bytes(call)
    vk.empty_cache()
    assert measured <= 1.15 * estimate
    assert measured >= 0.4 * estimate  # the estimate is not far too high


@pytest.mark.parametrize(("name", "half"), itertools.product(MODELS, HALVES))
def test_a_batch_runs_in_parts_with_the_same_bits(name: str, half: str) -> None:
    """As many images run at once as fit untiled, with the bits of separate calls."""
    model = MODELS[name]()
    x = torch.cat([_input(model, half)] * 2)[:3]
    x[1:] *= torch.tensor([0.5, -1.0])[:, None, None, None]
    whole = {n: _plan(model, half, x[:n], 2**40) for n in (1, 2, 3)}
    assert [plan.images for plan in whole.values()] == [1, 2, 3]
    expected = _call(model, half, x)
    # Memory for all results (mean and log variance) and the temporaries of two images, or of one.
    results = 2 * expected.numel() * 4
    for n in (2, 1):
        bound = whole[n].memory + results
        plan = _plan(model, half, x, bound)
        assert (plan.whole, plan.images, plan.work) == (True, n, 1.0)
        assert plan.memory <= bound < whole[3].memory
        y = _call(model, half, x, bound)
        assert torch.equal(y, torch.cat([_call(model, half, some) for some in x.split(n)]))
        assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    bound = _least(model, half, x)
    assert bound <= _least(model, half, x[:1]) + results + MIB
    cut = _call(model, half, x, bound)
    assert (cut - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_batches_take_no_more_work_than_single_images() -> None:
    model = AutoencoderKL(AutoencoderKLConfig.preset("sd1"))
    works = [model.plan_decode((n, 4, 128, 128), "4GiB").work for n in (1, 2, 3, 4, 16, 64)]
    assert works[:-1] == [1.0] * 5
    assert works[-1] < 1.05  # the results of 64 are 800 MB
    works = [model.plan_encode((n, 3, 1024, 1024), "4GiB").work for n in (1, 5, 1000)]
    assert works == [1.0] * 3


def test_smallest_bound_of_a_batch() -> None:
    """Images run one at a time or, if the results dominate, all at once."""
    model = autoencoders.kl("sd1")
    for batch in (1, 2, 7):
        x = images(4, 64, 64, batch=batch)
        least = _least(model, "decode", x)
        assert _plan(model, "decode", x, least).memory <= least
        alone = _least(model, "decode", x[:1]) + (batch - 1) * 3 * 256**2 * 4
        assert least <= alone + 3 * 256**2 * 4 + MIB / 50


@pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")
def test_buffers_of_other_models_are_kept() -> None:
    """Filters and pooled memory of other models are kept, those of the tiled model are freed."""
    library = extension.load()
    vk.empty_cache()
    other, model = autoencoders.kl("sdxl"), autoencoders.kl("sd1")
    z = images(4, 64, 64, batch=1)
    for kept_of in (None, other):
        if kept_of is not None:
            _call(kept_of, "decode", images(4, 128, 128, batch=1))
        filters, pool = library.cached_filter_bytes(), library.pool_bytes()
        assert (filters > 0) == (pool > 0) == (kept_of is not None)
        for share in (0.7, 0.1, 0.0):
            whole, least = _plan(model, "decode", z, 2**40).memory, _least(model, "decode", z)
            _call(model, "decode", z, int(least + share * (whole - least)))
            assert library.cached_filter_bytes() == filters
            assert library.pool_bytes() <= pool
    vk.empty_cache()


def test_no_tone_shift_where_tiles_differ() -> None:
    """With a black and a white half, statistics of a tile differ from those of the image."""
    model = autoencoders.kl("sd1")
    x = images(3, 128, 128, batch=1) * 0.02
    x[..., :64] += 0.9
    x[..., 64:] -= 0.9
    expected = _call(model, "encode", x)
    bound = _least(model, "encode", x)
    y = _call(model, "encode", x, bound)
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (y.mean((2, 3)) - expected.mean((2, 3))).abs().max() <= 1e-5


def test_records_no_graph_and_leaves_weights() -> None:
    model = autoencoders.kl("sdxl")
    y = model.decode(torch.randn(1, 4, 9, 7), max_memory="64MiB").sample
    assert not y.requires_grad
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = autoencoders.kl("sdxl", dtype)
    z = torch.randn(1, 4, 21, 18, dtype=dtype)
    expected = _call(model, "decode", z)
    bound = _least(model, "decode", z)
    y = _call(model, "decode", z, bound)
    assert y.dtype == dtype
    bound = 1e-10 if dtype == torch.float64 else 0.05
    assert (y - expected).abs().max() <= bound * expected.abs().max()


def test_plans_as_text() -> None:
    model = autoencoders.kl("sd1")
    least = _least(model, "decode", torch.empty(1, 4, 64, 64))
    text = str(model.plan_decode((1, 4, 64, 64), least))
    assert "times the work" in text
    assert "tiles" in text
    assert "tiles" not in str(model.plan_decode((1, 4, 64, 64), "1TiB"))


@pytest.mark.parametrize("half", HALVES)
def test_no_image_is_cut_where_single_steps_fit(half: str) -> None:
    model = autoencoders.kl("sd1")
    shape = (1, 4, 64, 64) if half == "decode" else (1, 3, 256, 256)
    plan = getattr(model, f"plan_{half}")
    whole = plan(shape, "1TiB")
    bounded = plan(shape, whole.memory - 1)
    assert whole.whole
    assert not bounded.whole
    assert bounded.work == 1.0
    assert {(each.cut.grid.rows, each.cut.grid.columns) for each in bounded.segments} == {(1, 1)}


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 8, 8), (1, 4, 0, 8)])
def test_plans_reject_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"AutoencoderKL: shape must be \(B, 4, H, W\); got"):
        autoencoders.kl("sd1").plan_decode(shape, "1GiB")


def test_the_smallest_images() -> None:
    """Latents of one pixel, with attention over it in one chunk."""
    model = autoencoders.kl("sd1")
    z = torch.randn(1, 4, 1, 1)
    bound = _least(model, "decode", z)
    torch.testing.assert_close(_call(model, "decode", z, bound), _call(model, "decode", z))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2 * 2**30), ("1.5 MiB", 3 * 2**19), ("800MB", 800 * 10**6), ("7", 7), (9, 9)],
)
def test_amounts_of_memory(text: int | str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("two", ValueError),
        ("-1GiB", ValueError),
        (0, ValueError),
        (1.5, TypeError),
        (True, TypeError),
    ],
)
def test_invalid_amounts_of_memory(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_memory must be"):
        parse_bytes(value)


def test_merged_statistics_are_those_of_the_whole() -> None:
    """With a large mean and parts that differ, compared with float64."""
    x = 100.0 + torch.randn(2, 8, 30, 20) * torch.linspace(0.01, 2.0, 30)[:, None]
    norm = autoencoders.randomised(torch.nn.GroupNorm(4, 8, eps=1e-6))
    statistics = GroupStatistics(norm)
    for first, last in ((0, 3), (3, 19), (19, 30)):
        statistics.add(x[:, :, first:last])
    scale, shift = statistics.affine()
    expected = norm.double()(x.double())
    error = (x.double() * scale.double() + shift.double() - expected).abs().max()
    assert error <= 1e-3 * expected.abs().max() / 10


@pytest.mark.parametrize(
    "window", [Window(), CONV3X3, UPSAMPLE_CONV3X3, *DOWNSAMPLE_CONV3X3.values()]
)
def test_windows_match_the_rows_that_are_read(window: Window) -> None:
    """By brute force: a row is read if changing it changes the result."""
    convolutions = {
        Window(): lambda x: x,
        CONV3X3: lambda x: vk.conv3x3(x, taps),
        UPSAMPLE_CONV3X3: lambda x: vk.upsample_conv3x3(x, taps),
        DOWNSAMPLE_CONV3X3["asymmetric"]: lambda x: vk.downsample_conv3x3(x, taps),
        DOWNSAMPLE_CONV3X3["symmetric"]: lambda x: vk.downsample_conv3x3(
            x, taps, padding="symmetric"
        ),
    }
    taps = torch.ones(1, 1, 3, 3)
    for size in (6, 9):
        rows = torch.eye(size)[:, None, :, None].expand(-1, 1, -1, 4)
        changed = convolutions[window](rows).amax((1, 3)) > 1e-3
        assert changed.shape[1] == window.output_size(size)
        for first, last in itertools.combinations(range(window.output_size(size) + 1), 2):
            begin, end = window.required_rows(first, last, size)
            read = changed[:, first:last].any(1).nonzero().flatten()
            assert begin <= read[0]
            assert end > read[-1]
            assert begin >= int(read[0]) - (window.down == 2)
            assert end == read[-1] + 1


def test_results_that_cannot_fit_are_rejected_immediately() -> None:
    """The search for a plan is skipped for any size."""
    model = autoencoders.kl("sdxl")
    for side in (10**5, 10**6, 10**8):
        with pytest.raises(ValueError, match="the result alone"):
            model.plan_decode((1, 4, side, side), "1MiB")
