"""``vk.graph`` without a GPU: its arguments, buffers and copies, by a recording that runs again.

On a card: ``tests/backends/cuda/test_cuda_graphs.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import vaekernels as vk
from tests.models import autoencoders
from vaekernels.models import VAE, VAEConfig
from vaekernels.ops._seed import seed_tensor
from vaekernels.runtime import cuda_graphs
from vaekernels.runtime.cuda_graphs import CudaRecorder, Graph, map_tensors


class Replayer(CudaRecorder):
    """As a CUDA graph does it: a replay reads the buffers and writes the first call's result."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = 0

    def device_of(self, function: Callable[..., Any], arguments: Any) -> torch.device:
        return torch.device("cpu")

    def record(
        self, call: Callable[[], Any], device: torch.device, generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Any]:
        self.recorded += 1
        result = call()

        def replay() -> None:
            fresh: list[Tensor] = []
            map_tensors(call(), lambda tensor: fresh.append(tensor) or tensor)
            written: list[Tensor] = []
            map_tensors(result, lambda tensor: written.append(tensor) or tensor)
            for old, new in zip(written, fresh, strict=True):
                old.copy_(new)

        return replay, result


def graphed(function: Callable[..., Any]) -> tuple[Graph, Replayer]:
    recorder = Replayer()
    return Graph(function, recorder), recorder


def test_a_call_returns_the_result_of_the_function() -> None:
    graph, recorder = graphed(lambda x, scale, *, shift: x * scale + shift)
    for _ in range(3):
        x, shift = torch.randn(2, 3), torch.randn(3)
        torch.testing.assert_close(graph(x, 2.0, shift=shift), x * 2.0 + shift)
    assert recorder.recorded == len(graph) == 1


def test_each_signature_has_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, recorder = graphed(lambda x, power=1: x**power)
    small, large = torch.randn(2), torch.randn(5)
    for expected, call in (
        (1, lambda: graph(small)),
        (2, lambda: graph(large)),
        (2, lambda: graph(torch.randn(2))),
        (3, lambda: graph(small, 2)),
        (4, lambda: graph(small, power=2)),
        (5, lambda: graph(small, 2.0)),
        (6, lambda: graph(small.double())),
        (6, lambda: graph(large)),
    ):
        call()
        assert recorder.recorded == expected
    monkeypatch.setattr(cuda_graphs, "_settings", lambda: "others")
    assert len(graph.record(small)) == 7
    assert repr(graph) == f"<Graph of {graph._function.__qualname__}: 7 recordings>"


def test_results_are_new_tensors() -> None:
    graph, _ = graphed(lambda x: {"twice": 2 * x, "same": x})
    x = torch.ones(3)
    first = graph(x)
    second = graph(x + 1)
    assert first["twice"].tolist() == [2.0] * 3
    assert first["same"].tolist() == [1.0] * 3
    assert second["twice"].tolist() == [4.0] * 3
    x.fill_(9.0)
    assert second["same"].tolist() == [2.0] * 3


def test_memory_formats_are_kept() -> None:
    graph, _ = graphed(lambda x: 2 * x)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert graph(image).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(graph(image.contiguous()), 2 * image)


def test_no_gradients_are_recorded() -> None:
    layer = nn.Linear(3, 3)
    graph, _ = graphed(layer)
    assert not graph(torch.randn(2, 3, requires_grad=True)).requires_grad


def test_parameters_may_change_in_place() -> None:
    layer = nn.Linear(3, 3)
    graph, recorder = graphed(layer)
    x = torch.randn(2, 3)
    graph(x)
    with torch.no_grad():
        layer.weight.mul_(2.0)
        torch.testing.assert_close(graph(x), layer(x))
    assert recorder.recorded == 1


def test_the_mode_is_part_of_the_signature() -> None:
    layer = nn.Dropout(0.5)
    graph, recorder = graphed(layer)
    x = torch.ones(100)
    assert (graph(x) == 0).any()
    layer.eval()
    assert torch.equal(graph(x), x)
    assert recorder.recorded == 2


def test_the_mode_of_a_child_is_part_of_the_signature() -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5)))
    graph, recorder = graphed(model)
    x = torch.ones(100)
    assert (graph(x) == 0).any()
    model[0][0].eval()
    assert torch.equal(graph(x), x)
    assert recorder.recorded == 2


@pytest.mark.parametrize("of", ["parameter", "buffer", "child"])
def test_moved_tensors_are_recorded_again(of: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    graph, recorder = graphed(model)
    x = torch.randn(2, 3)
    graph(x)
    kept = [*model.parameters(), *model.buffers(), *model]  # their memory is not given away
    if of == "parameter":
        model[0].weight = nn.Parameter(torch.randn(3, 3))
    elif of == "buffer":
        model[1].running_mean = torch.randn(3)
    else:
        model[0] = nn.Linear(3, 3)
    torch.testing.assert_close(graph(x), model(x))
    assert recorder.recorded == 2
    assert len(kept) == 9


@contextlib.contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], Any]] = {
    "tier": lambda: vk.set_conv_precision("highest"),
    "backend": lambda: vk.use_backend("reference"),
    "autocast": lambda: torch.autocast("cpu"),
    "inference mode": torch.inference_mode,
    "default device": lambda: torch.device("cpu", 0),
    "cudnn": lambda: torch.backends.cudnn.flags(enabled=False, benchmark=False),
    "cudnn benchmark": lambda: torch.backends.cudnn.flags(
        enabled=True, benchmark=not torch.backends.cudnn.benchmark
    ),
    "cudnn deterministic": lambda: torch.backends.cudnn.flags(enabled=True, deterministic=True),
    "attention": lambda: nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    "tf32 of convolutions": lambda: attribute(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "tf32 of products": lambda: attribute(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "16-bit sums": lambda: attribute(
        torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False
    ),
    "default dtype": lambda: default_dtype(torch.float64),
    "deterministic algorithms": deterministic,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_are_part_of_the_signature(setting: str) -> None:
    graph, recorder = graphed(nn.Linear(3, 3))
    x = torch.randn(2, 3)
    graph(x)
    with SETTINGS[setting]():
        graph(x)
        graph(x)
        assert recorder.recorded == 2
    graph(x)
    assert recorder.recorded == 2


def vae() -> VAE:
    return VAE(VAEConfig(image_shape=(1, 8, 8), latent_dim=4, hidden=(8, 8))).eval()


def test_every_call_draws_new_noise() -> None:
    model, x = vae(), torch.rand(2, 1, 8, 8)
    graph, recorder = graphed(model)
    assert not torch.equal(graph(x).z, graph(x).z)
    torch.manual_seed(7)
    first = graph(x)
    torch.manual_seed(7)
    again = graph(x)
    assert torch.equal(first.z, again.z)
    assert recorder.recorded == 1


def test_a_seed_is_an_input_not_a_constant() -> None:
    model, x = vae(), torch.rand(2, 1, 8, 8)
    graph, recorder = graphed(model)
    for seed in (0, 1, -1, 2**64 - 1, torch.tensor(5), torch.tensor([6])):
        with torch.no_grad():
            expected = model(x, seed=seed)
        found = graph(x, seed=seed)
        assert torch.equal(found.z, expected.z)
        torch.testing.assert_close(found.loss, expected.loss)
    assert recorder.recorded == 1
    assert not torch.equal(graph(x, seed=1, step=3).z, graph(x, seed=1).z)
    assert recorder.recorded == 2
    assert not torch.equal(graph(x, seed=None).z, graph(x, seed=None).z)
    with pytest.raises(ValueError, match=r"graph: seed must fit into 64 bits"):
        graph(x, seed=2**64)
    with pytest.raises(TypeError, match=r"graph: seed must be an integer or a tensor; got str"):
        graph(x, seed="1")


def test_a_drawn_seed_is_on_the_device_of_the_noise() -> None:
    # "meta" knows no host: whatever read the seed's value would fail.
    drawn = seed_tensor("any", None, None, torch.device("meta"))
    assert (drawn.device.type, drawn.dtype, drawn.shape) == ("meta", torch.int64, ())
    given = seed_tensor("any", torch.tensor([3], device="meta"), None, torch.device("meta"))
    assert given.device.type == "meta"


@pytest.mark.parametrize("method", ("encode", "decode", "forward"))
def test_autoencoders_return_equal_results(method: str) -> None:
    model = autoencoders.kl()
    x = torch.randn(2, 4, 4, 4) if method == "decode" else autoencoders.images(3, 16, 16)
    function = model if method == "forward" else getattr(model, method)
    options = {"seed": 3} if method == "forward" else {}
    graph, _ = graphed(function)
    with torch.no_grad():
        expected = function(x, **options)
    found = graph(x, **options)
    assert type(found) is type(expected)
    if method == "encode":
        assert isinstance(found.latent_dist, vk.DiagonalGaussian)
        torch.testing.assert_close(found.latent_dist.mean, expected.latent_dist.mean)
        torch.testing.assert_close(found.latent_dist.logvar, expected.latent_dist.logvar)
        graph(-x)
        torch.testing.assert_close(found.latent_dist.mean, expected.latent_dist.mean)
    else:
        torch.testing.assert_close(found.sample, expected.sample)
        assert found.sample is found.raw


class Pair(NamedTuple):
    first: Tensor
    second: list[Tensor | None]


@dataclass
class Named:
    pair: Pair
    count: int


def test_map_tensors() -> None:
    x, y = torch.ones(2), torch.zeros(2)
    value = Named(Pair(x, [y, x, None]), 3)
    made = map_tensors(value, lambda tensor: tensor + 1)
    assert isinstance(made.pair, Pair)
    assert (made.pair.first.tolist(), made.count) == ([2.0, 2.0], 3)
    assert made.pair.second[1] is made.pair.first
    assert made.pair.second[0].tolist() == [1.0, 1.0]
    assert value.pair.first is x
    for bad in ({1, 2}, nn.Identity(), iter([x]), len):
        with pytest.raises(TypeError, match=r"graph: a result must be tensors"):
            map_tensors((x, bad), torch.clone)


def test_diffusers_results_can_be_copied() -> None:
    outputs = pytest.importorskip("diffusers.models.autoencoders.vae")
    kl = pytest.importorskip("diffusers.models.modeling_outputs")
    moments = torch.randn(1, 4, 2, 2)
    value = kl.AutoencoderKLOutput(outputs.DiagonalGaussianDistribution(moments))
    made = map_tensors(value, torch.clone)
    assert isinstance(made, kl.AutoencoderKLOutput)
    assert torch.equal(made.latent_dist.parameters, moments)
    assert made.latent_dist.parameters is not moments


def test_errors() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"graph: model must be a module or a function; got str"):
        vk.graph("vae", x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"every tensor on a CUDA device; .*\(2, 3\), on cpu"):
        vk.graph(nn.Identity(), x)
    with pytest.raises(ValueError, match=r"a tensor or a module on a CUDA device; got neither"):
        vk.graph(lambda count: count, 3)
    with pytest.raises(ValueError, match=r"expected every tensor on a CUDA device; got tensor 0"):
        vk.graph(vae().sample, 2)
    lazy = vk.graph(nn.Identity())
    assert len(lazy) == 0
    with pytest.raises(ValueError, match=r"on cpu"):
        lazy(x)
    graph, _ = graphed(lambda x, names: x)
    with pytest.raises(TypeError, match=r"must be hashable, .*; got set"):
        graph(x, {1, 2})
