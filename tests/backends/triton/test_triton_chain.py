"""Convolutions in a chain: statistics that are handed on, and autoencoders that use them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk
from tests.models.autoencoders import images, randomised
from tests.ops.convs import nearest_tf32
from vaekernels.backends.definitions import STATISTICS_PARTS
from vaekernels.bench.op_inputs import error
from vaekernels.models import AutoencoderKL, AutoencoderKLConfig
from vaekernels.ops._chained import chained_conv

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]

ALGORITHMS = ("tap_gemm", "cudnn")


def moments(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the channels of each image, by Chan's formula."""
    count, mean, m2 = parts.double().unbind(2)
    total = count.sum(1)
    merged = (count * mean).sum(1) / total
    return merged, (m2 + count * (mean - merged[:, None]).square()).sum(1) / total


def check_moments(parts: Tensor | None, y: Tensor) -> None:
    """The statistics are those of y, whose 16 bits the interpreter does not round to bfloat16."""
    assert parts is not None
    unrounded = torch.finfo(y.dtype).eps if y.dtype == torch.bfloat16 else 0.0
    mean, variance = moments(parts)
    assert error(mean, y.double().mean((2, 3))) <= 1e-6 + unrounded
    assert error(variance, y.double().var((2, 3), correction=0)) <= 1e-5 + unrounded


@pytest.mark.usefixtures("on_triton")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("conv3x3", {}),
        ("upsample_conv3x3", {}),
        ("downsample_conv3x3", {"padding": "asymmetric"}),
        ("downsample_conv3x3", {"padding": "symmetric"}),
    ],
)
def test_statistics_are_those_of_the_result(
    op: str, options: dict[str, Any], algorithm: str
) -> None:
    """Parts with a tile and parts without one; a mean far from zero; two images."""
    from vaekernels.backends.triton.conv.dispatch import force_algorithm
    from vaekernels.backends.triton.conv.tile_heuristics import Tile

    x, weight = torch.randn(2, 3, 7, 9), torch.randn(20, 3, 3, 3)
    bias = torch.full((20,), 300.0)
    x[1] += 5
    with force_algorithm(algorithm, Tile(16, 32, 16, 4, 2)):
        y, statistics = chained_conv(op, x, weight, bias, **options, emit_statistics=True)
        again, nothing = chained_conv(op, x, weight, bias, **options)
    assert error(again, y) <= 1e-6
    assert nothing is None
    assert error(y, getattr(vk, op)(x, weight, bias, **options, backend="reference")) <= 1e-5
    assert statistics is not None
    assert statistics.shape == (2, STATISTICS_PARTS, 3, 20)
    assert (statistics[:, :, 0].sum(1) == y.shape[2] * y.shape[3]).all()
    check_moments(statistics, y)


def test_many_tiles_are_merged() -> None:
    """Several steps of a part, a last part that is not full, empty tiles, a large mean."""
    from vaekernels.backends.triton.conv.statistics import TILES, merge

    tiles, size = (TILES + 3) * STATISTICS_PARTS - 5, 4
    x = 1000 + torch.randn(1, tiles, size, 6)
    count = torch.full((1, tiles, 6), float(size))
    count[:, ::7] = 0
    m2 = x.var(2, correction=0) * count
    parts = merge(torch.stack([count, torch.where(count > 0, x.mean(2), 0.0), m2], 2))
    kept = x[0][count[0, :, 0] > 0].flatten(0, 1).double()
    mean, variance = moments(parts)
    assert error(mean[0], kept.mean(0)) <= 1e-6
    assert error(variance[0], kept.var(0, correction=0)) <= 1e-4


@pytest.mark.usefixtures("on_triton")
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
def test_a_normalisation_by_them(dtype: torch.dtype, counted: Any) -> None:
    """Groups of 20 channels, wider than a step of the merge."""
    from vaekernels.backends.triton.conv import chained

    passes = counted(chained, "normalisation")
    x, first = torch.randn(2, 4, 7, 5).to(dtype), torch.randn(40, 4, 3, 3).to(dtype)
    second = (torch.randn(6, 40, 3, 3) / 20).to(dtype)
    residual = torch.randn(2, 6, 7, 5).to(dtype)
    norm = vk.NormPrologue(torch.rand(40).to(dtype), torch.randn(40).to(dtype), 2, 1e-3)
    h, statistics = chained_conv("conv3x3", x, first, None, emit_statistics=True)
    y, _ = chained_conv(
        "conv3x3", h, second, None, norm=norm, residual=residual, statistics=statistics
    )
    assert not passes
    separate = vk.conv3x3(h, second, norm=norm, residual=residual)
    assert error(y, separate) <= torch.finfo(dtype).eps
    wide = F.silu(F.group_norm(h.double(), 2, norm.weight.double(), norm.bias.double(), 1e-3))
    expected = F.conv2d(wide, second.double(), padding=1) + residual.double()
    eager = F.silu(F.group_norm(h, 2, norm.weight, norm.bias, 1e-3))
    eager = F.conv2d(eager, second, padding=1) + residual
    assert error(y, expected) <= 2 * error(eager, expected) + 1e-6


@pytest.mark.usefixtures("on_triton")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("layout", ("channels_last", "planes", "part"))
def test_a_projected_residual(dtype: torch.dtype, algorithm: str, layout: str) -> None:
    """More channels than y, in number no multiple of a step; several steps; any strides."""
    from vaekernels.backends.triton.conv.dispatch import force_algorithm
    from vaekernels.backends.triton.conv.tile_heuristics import Tile

    x, weight = torch.randn(2, 4, 7, 5).to(dtype), torch.randn(20, 4, 3, 3).to(dtype)
    bias, shift = torch.randn(20).to(dtype), torch.randn(20).to(dtype)
    filters = torch.randn(20, 37, 1, 1).to(dtype)
    residual = torch.randn(2, 39, 7, 5).to(dtype)
    if layout == "channels_last":
        residual = residual[:, :37].contiguous(memory_format=torch.channels_last)
    residual = residual[:, :37].contiguous() if layout == "planes" else residual[:, -37:]
    for first, second in ((bias, shift), (None, shift)):
        with force_algorithm(algorithm, Tile(16, 32, 16, 4, 2)):
            y, statistics = chained_conv(
                *("conv3x3", x, weight, first),
                residual=residual,
                projection=(filters, second),
                emit_statistics=True,
            )
        eager = F.conv2d(x, weight, first, padding=1) + F.conv2d(residual, filters, second)
        wide = [t if t is None else t.double() for t in (x, weight, first)]
        exact = F.conv2d(*wide, padding=1)
        exact += F.conv2d(*(t if t is None else t.double() for t in (residual, filters, second)))
        assert error(y, exact) <= 2 * error(eager, exact) + 1e-6
        check_moments(statistics, y)


@pytest.mark.usefixtures("on_triton")
def test_a_projected_residual_is_rounded_to_tf32() -> None:
    """In the tier "medium"; nothing else is."""
    x, weight, bias = torch.randn(1, 4, 5, 6), torch.randn(6, 4, 3, 3), torch.randn(6)
    residual, filters = torch.randn(1, 17, 5, 6), torch.randn(6, 17, 1, 1)
    y, _ = chained_conv(
        *("conv3x3", x, weight, bias),
        residual=residual,
        projection=(filters, bias),
        precision="medium",
    )
    x, weight, residual, filters = map(nearest_tf32, (x, weight, residual, filters))
    expected = F.conv2d(x, weight, padding=1) + F.conv2d(residual, filters)
    assert error(y, expected + 2 * bias.double()[:, None, None]) <= 1e-6


@pytest.mark.usefixtures("on_triton")
def test_a_projection_is_one_op_and_the_same_as_by_itself(counted: Any) -> None:
    from vaekernels.backends.triton.conv import forward_backward as call

    products = counted(call, "convolve")
    x, weight = torch.randn(2, 4, 3, 5), torch.randn(6, 4, 3, 3)
    residual, filters, shift = torch.randn(2, 3, 3, 5), torch.randn(6, 3, 1, 1), torch.randn(6)
    y, _ = chained_conv("conv3x3", x, weight, None, residual=residual, projection=(filters, shift))
    assert len(products) == 1
    with vk.use_backend("reference"):
        plain, _ = chained_conv(
            "conv3x3", x, weight, None, residual=residual, projection=(filters, shift)
        )
    assert error(y, plain) <= 1e-5


@pytest.mark.usefixtures("on_triton")
@pytest.mark.parametrize("activation", (None, "relu", "silu", "leaky_relu"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
def test_the_epilogue_as_a_pass(dtype: torch.dtype, activation: str | None) -> None:
    """Each part of it alone and all together; channels and pixels that fill no tile."""
    from vaekernels.backends.triton.conv.epilogue import finish
    from vaekernels.backends.triton.conv.launch import Epilogue

    x = torch.randn(2, 70, 11, 13).to(dtype).contiguous(memory_format=torch.channels_last)
    bias, residual = torch.randn(70), torch.randn(2, 13, 11, 70).permute(0, 3, 2, 1).to(dtype)
    functions = {"relu": F.relu, "silu": F.silu, "leaky_relu": lambda y: F.leaky_relu(y, 0.2)}
    for parts in ((None, None), (bias, None), (None, residual), (bias, residual)):
        exact = x.double()
        if parts[0] is not None:
            exact = exact + bias.double()[:, None, None]
        if parts[1] is not None:
            exact = exact + residual.double()
        exact = functions.get(activation or "", lambda y: y)(exact)
        y, statistics = finish(
            x.clone(), Epilogue(*parts, activation=activation, slope=0.2, statistics=True)
        )
        assert y.dtype == dtype
        assert error(y, exact) <= torch.finfo(dtype).eps
        check_moments(statistics, y)


def test_an_epilogue_that_does_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.backends.triton.conv import epilogue
    from vaekernels.backends.triton.conv.launch import Epilogue

    monkeypatch.delattr(epilogue, "run")
    x = torch.randn(1, 2, 3, 4)
    assert epilogue.finish(x, Epilogue()) == (x, None)


@pytest.mark.usefixtures("on_triton")
def test_without_statistics_the_normalisation_takes_them_itself(counted: Any) -> None:
    from vaekernels.backends.triton.conv import chained

    passes = counted(chained, "normalisation")
    x, weight = torch.randn(1, 4, 5, 6), torch.randn(4, 4, 3, 3)
    norm = vk.NormPrologue(torch.rand(4), torch.randn(4), 2)
    y, statistics = chained_conv("conv3x3", x, weight, None, norm=norm, emit_statistics=True)
    assert len(passes) == 1
    assert statistics is not None
    assert error(y, vk.conv3x3(x, weight, norm=norm, backend="reference")) <= 1e-5


@pytest.mark.usefixtures("on_triton")
def test_not_a_number_reaches_the_next_layer_and_no_other_image() -> None:
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(4, 4, 3, 3)
    x[1, 2, 3, 3] = torch.nan
    h, statistics = chained_conv("conv3x3", x, weight, None, emit_statistics=True)
    norm = vk.NormPrologue(torch.rand(4), torch.randn(4), 1)
    y, _ = chained_conv("conv3x3", h, weight, None, norm=norm, statistics=statistics)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


@pytest.mark.usefixtures("on_triton")
def test_errors_are_those_of_the_public_ops_and_empty_batches_pass() -> None:
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(4, 4, 3, 3)
    with pytest.raises(ValueError, match=r"conv3x3: weight must have shape \(Co, 4, 3, 3\)"):
        chained_conv("conv3x3", x, weight[:, :3], None, emit_statistics=True)
    norm = vk.NormPrologue(torch.ones(4), torch.ones(4), 3)
    with pytest.raises(ValueError, match=r"norm\.groups must divide the 4 channels"):
        chained_conv("conv3x3", x, weight, None, norm=norm, emit_statistics=True)
    with pytest.raises(ValueError, match="residual must have the shape of the result"):
        chained_conv("conv3x3", x, weight, None, residual=x[:, :3], emit_statistics=True)
    filters = torch.randn(4, 3, 1, 1)
    with pytest.raises(ValueError, match=r"projection: weight must have shape \(Co, 4, 1, 1\)"):
        chained_conv("conv3x3", x, weight, None, residual=x, projection=(filters, None))
    with pytest.raises(ValueError, match="residual must have the shape of the result"):
        chained_conv(
            *("conv3x3", x, weight, None),
            residual=x[:, :3, 1:],
            projection=(filters, None),
        )
    y, statistics = chained_conv("upsample_conv3x3", x[:0], weight, None, emit_statistics=True)
    assert y.shape == (0, 4, 10, 12)
    assert statistics is not None
    assert statistics.shape == (0, STATISTICS_PARTS, 3, 4)


def test_opcheck() -> None:
    arguments = (torch.randn(1, 4, 5, 6), torch.randn(4, 4, 3, 3), *[None] * 5)
    vk.explain("conv3x3", *arguments[:2], backend="triton")  # loads the kernels
    rest = (torch.ones(4), torch.ones(4), 2, 1e-6)
    for op, norm, padding, emit_statistics in (
        ("conv3x3", rest, None, True),
        ("upsample_conv3x3", (None, None, 1, 1e-6), None, False),
        ("downsample_conv3x3", (None, None, 1, 1e-6), "asymmetric", True),
    ):
        torch.library.opcheck(
            torch.ops.vaekernels_triton.chained_conv.default,
            (op, *arguments, *norm, padding, "high", emit_statistics),
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.fixture(scope="module")
def model() -> AutoencoderKL:
    torch.manual_seed(0)
    config = AutoencoderKLConfig(
        block_out_channels=(8, 12), norm_num_groups=4, latent_channels=2, layers_per_block=1
    )
    return randomised(AutoencoderKL(config)).eval()


def both(model: AutoencoderKL, image: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
    return model.encode(image).latent_dist.mean, model.decode(latent).sample


@pytest.mark.parametrize(
    "dtype", (torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)), ids=str
)
def test_an_autoencoder(model: AutoencoderKL, dtype: torch.dtype, counted: Any) -> None:
    """Right, channels_last throughout, and with no pass of statistics but behind attention."""
    from vaekernels.backends.triton.conv import chained, padded_images

    passes, pads = counted(chained, "normalisation"), counted(padded_images, "_pad")
    model = copy.deepcopy(model).to(dtype)
    image, latent = images(3, 6, 4, batch=1).to(dtype), torch.randn(2, 2, 2, 3).to(dtype)
    with torch.no_grad():
        with vk.use_backend("triton"):
            got = both(model, image, latent)
        assert [x.shape[1] for x, *_ in passes] == [12, 12]
        for x, *_ in pads:
            inside = x.shape[1] > 3  # neither an image nor a latent
            assert not inside or x.is_contiguous(memory_format=torch.channels_last)
        with vk.use_backend("reference"):
            eager = both(model, image, latent)
            exact = both(model.double(), image.double(), latent.double())
    for y, plain, expected in zip(got, eager, exact, strict=True):
        floor = 1e-4 if dtype == torch.float32 else 1e-2
        assert error(y, expected) <= 2 * error(plain, expected) + floor


def test_an_explanation_looks_up_what_the_run_did(
    model: AutoencoderKL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics, normalisations and sums among it; each call is known by its filters."""
    from vaekernels.backends.triton.conv import dispatch
    from vaekernels.integrations.accelerate.call_recorder import recorded_calls

    asked: list[Any] = []

    def rule(key: Any) -> Any:
        asked.append(key)
        return dispatch.Choice("cudnn", reason=str(len(asked)))

    monkeypatch.setattr(dispatch, "measured", dict)
    monkeypatch.setattr(dispatch, "_rule", rule)
    with vk.use_backend("triton"):
        calls = recorded_calls(model, (images(3, 6, 4, batch=1),), {})
    run, explained = asked[: len(calls)], asked[len(calls) :]
    assert run == explained[::3]  # the first of three directions
    assert {key.op for key in run} == {"conv3x3", "upsample_conv3x3", "downsample_conv3x3"}
    assert {"norm+residual+projection+statistics", "norm", "statistics"} <= {
        key.epilogue for key in run
    }
    layers = {id(parameter) for parameter in model.parameters()}
    for (weight, call), key in zip(calls, run, strict=True):
        assert id(weight) in layers
        assert (call.op, call.backend, call.forward.name) == (key.op, "triton", "cudnn")


def test_training_takes_the_public_ops(model: AutoencoderKL, counted: Any) -> None:
    from vaekernels.backends.triton.conv import chained

    calls = counted(chained, "ConvCall")
    block = model.encoder.down_blocks[0].resnets[0]
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    grads = []
    for backend in ("triton", "reference"):
        with vk.use_backend(backend):
            (grad,) = torch.autograd.grad(block(x).square().sum(), x)
        grads.append(grad)
    assert not calls
    assert error(*grads) <= 1e-4
