"""The latent ops' CUDA kernels against float64, and their noise against the CPU's.

On a card, and where there is none emulated on the CPU.

The rule: an error of at most twice that of the reference at the same dtype, plus a floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.backends.cuda.emulation.ops import Emulation
from tests.ops import edges
from tests.ops.conformance import assert_as_good_as_eager
from tests.ops.oracle import KINDS, make, plain, plain_rsample_kl, weights
from vaekernels.backends import extension

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
]

DEVICE, BACKEND = "cpu" if extension.cuda_refusals() else "cuda", "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# A warp's row, a block's row and several segments, each aligned and not; rank 1; images; nothing.
SHAPES = [
    (1, 1), (7, 7), (2, 33), (3, 257), (128, 20), (33,), (4, 1024), (3, 1, 7, 33), (2, 4, 8, 16),
    (1, 3, 64, 64), (2, 4096 + 5), (0, 20), (3, 0),
]  # fmt: skip
SEED, STEP, CLAMP = -(2**40) + 7, 3, (-2.5, 1.1)


def rsample_kl(mean: Tensor, logvar: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    return vk.rsample_kl(mean, logvar, seed=SEED, step=STEP, logvar_clamp=CLAMP, **options)


def rsample_kl_of_cpu_noise(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    # The CPU's noise, which is the CUDA kernels' own: test_noise_is_that_of_the_cpu.
    eps = vk.randn(mean.shape, seed=SEED, step=STEP, dtype=torch.float32, backend="cpu")
    return plain_rsample_kl(mean, logvar, eps, CLAMP)


# Op, and the same in plain PyTorch.
OPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rsample_kl": (rsample_kl, rsample_kl_of_cpu_noise),
    "gaussian_kl": (vk.gaussian_kl, plain(vk.gaussian_kl)),
    "bernoulli_nll": (vk.bernoulli_nll, plain(vk.bernoulli_nll)),
    "gaussian_nll": (vk.gaussian_nll, plain(vk.gaussian_nll)),
    "laplace_nll": (vk.laplace_nll, plain(vk.laplace_nll)),
}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "second half of moments": lambda t: torch.cat((t + 1, t), 1).chunk(2, 1)[1],
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(1, -1).contiguous().transpose(1, -1),
    "unaligned": lambda t: torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape),
    "one row expanded": lambda t: t[:1].expand(t.shape),
}


@pytest.fixture(autouse=True)
def emulation_in_use(request: pytest.FixtureRequest) -> Emulation | None:
    """In place of a card, unless there is one."""
    return request.getfixturevalue("emulated") if DEVICE == "cpu" else None


@pytest.fixture(params=["host", "device"])
def where(request: pytest.FixtureRequest, emulation_in_use: Emulation | None) -> Iterator[str]:
    """The device of numbers and seeds."""
    if request.param == "host":
        yield "cpu"
    elif emulation_in_use is None:
        yield DEVICE
    else:
        with emulation_in_use.switched_on("numbers_on_device"):
            yield DEVICE


def run(function: Callable[..., Any], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, then the gradients of a weighted sum of them, on the CPU."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum((out.double() * weights(out)).sum() for out in outputs)
    grads = torch.autograd.grad(loss, leaves)
    for leaf, grad in zip(leaves, grads, strict=True):
        assert (grad.shape, grad.dtype, grad.device) == (leaf.shape, leaf.dtype, leaf.device)
    return [tensor.detach().cpu() for tensor in (*outputs, *grads)]


def on_device(tensors: Sequence[Tensor]) -> list[Tensor]:
    # Keeps strides, which .to(device) does only where they are dense.
    placed = []
    for t in tensors:
        storage = t.new_empty(0).set_(t.untyped_storage())
        placed.append(storage.to(DEVICE).as_strided(t.shape, t.stride(), t.storage_offset()))
    return placed


def check(name: str, inputs: Sequence[Tensor], placed: Sequence[Tensor] | None = None) -> None:
    op, reference = OPS[name]
    placed = on_device(inputs) if placed is None else placed
    results = run(lambda *leaves: op(*leaves, backend=BACKEND), placed)
    exact = run(reference, [t.double() for t in inputs])
    same_dtype = run(reference, inputs)
    for got, expected, other in zip(results, exact, same_dtype, strict=True):
        assert not got.isnan().any()
        # In float64 the reference is the exact answer itself; its error says nothing.
        floor = 8 * torch.finfo(got.dtype).eps if got.dtype == torch.float64 else 0.0
        assert_as_good_as_eager(got, other, expected, inputs[0].shape, floor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_odd_shapes(name: str, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        check(name, [make(kind, shape, dtype, i) for i, kind in enumerate(KINDS[name])])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPS)
def test_layouts(name: str, layout: str, dtype: torch.dtype) -> None:
    for shape in ((3, 8, 6, 10), (2, 8, 32, 40)):
        tensors = [make(kind, shape, dtype, i) for i, kind in enumerate(KINDS[name])]
        check(name, [LAYOUTS[layout](t) for t in tensors])
        check(name, [LAYOUTS[layout](tensors[0]), *tensors[1:]])


@pytest.mark.parametrize("name", OPS)
def test_mixed_dtypes(name: str) -> None:
    for shape in ((128, 784), (3, 257)):
        for others in (torch.float32, torch.float64):
            kinds = KINDS[name]
            check(
                name,
                [
                    make(kind, shape, others if i % 2 else torch.bfloat16, i)
                    for i, kind in enumerate(kinds)
                ],
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gaussian_kl", "gaussian_nll", "laplace_nll"])
def test_one_number_for_all_rows(name: str, dtype: torch.dtype, where: str) -> None:
    kinds = KINDS[name]
    for shape in SHAPES:
        for numbers in {1, len(kinds) - 2}:
            inputs = [
                make(kind, () if i >= len(kinds) - numbers else shape, dtype, i)
                for i, kind in enumerate(kinds)
            ]
            placed = [t.to(where) if t.ndim == 0 else t.to(DEVICE) for t in inputs]
            check(name, inputs, placed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_is_that_of_the_cpu(dtype: torch.dtype, where: str) -> None:
    for shape in (*SHAPES, (1000, 1000)):
        ids = torch.randint(-(2**62), 2**62, (2 * shape[0],))[::2]
        for seed in (0, 2**64 - 1, torch.tensor(-5, device=where)):
            options: dict[str, Any] = {"seed": seed, "step": 2**32 - 1, "dtype": dtype}
            ours = vk.randn(
                shape, sample_ids=ids.to(DEVICE), device=DEVICE, backend=BACKEND, **options
            )
            theirs = vk.randn(shape, sample_ids=ids, device="cpu", backend="cpu", **options)
            assert torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_samples_and_gradients_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    for shape in SHAPES:
        inputs = [make(kind, shape, dtype, i) for i, kind in enumerate(("mean", "logvar"))]
        ours = run(lambda *t: rsample_kl(*t, backend=BACKEND), on_device(inputs))
        theirs = run(lambda *t: rsample_kl(*t, backend="cpu"), inputs)
        for index in (0, 2, 3):  # all but kl, whose order of summation differs
            assert torch.equal(ours[index], theirs[index])


@pytest.mark.parametrize("name", OPS)
def test_infinities_and_nan_as_in_pytorch(name: str) -> None:
    if name == "rsample_kl":
        edges.check_rsample_kl(BACKEND, torch.float32, DEVICE)
    else:
        edges.check_row_op(name, BACKEND, torch.float32, DEVICE)


@pytest.mark.parametrize("name", OPS)
def test_a_row_is_the_same_bits_in_every_run_and_batch(name: str) -> None:
    op, kinds = OPS[name][0], KINDS[name]
    for length in (20, 784, 3 * 4096 + 8):
        inputs = on_device(
            [make(kind, (9, length), torch.float32, i) for i, kind in enumerate(kinds)]
        )
        together = run(lambda *t: op(*t, backend=BACKEND), inputs)
        again = run(lambda *t: op(*t, backend=BACKEND), inputs)
        assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
        alone = op(*(t[:2] for t in inputs), backend=BACKEND)
        alone = alone if isinstance(alone, tuple) else (alone,)
        for part, whole in zip(alone, together, strict=False):
            assert torch.equal(part.cpu(), whole[:2])


@pytest.mark.cuda
@pytest.mark.parametrize("drawn", [False, True])
def test_a_graph_replay_draws_new_noise(drawn: bool) -> None:
    mean, logvar = on_device(
        [make(kind, (16, 784), torch.float32, 1) for kind in ("mean", "logvar")]
    )
    seed = torch.zeros((), dtype=torch.int64, device=DEVICE)

    def sample() -> Tensor:
        return vk.rsample_kl(mean, logvar, seed=None if drawn else seed, backend=BACKEND)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        sample()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z = sample()
    replays = []
    for value in (1, 2):
        seed.fill_(value)
        graph.replay()
        replays.append(z.clone())
        if not drawn:
            eager = vk.rsample_kl(mean, logvar, seed=value, backend=BACKEND)[0]
            assert torch.equal(z, eager)
    assert not torch.equal(*replays)


def test_bad_arguments_are_named(emulation_in_use: Emulation | None) -> None:
    mean = torch.zeros(4, 8, device=DEVICE)
    seed = torch.tensor(1)
    raw = emulation_in_use.ops if emulation_in_use else torch.ops.vaekernels
    with pytest.raises(RuntimeError, match=r"gaussian_nll: target: expected shape \(4, 8\)"):
        raw.gaussian_nll(mean, mean[:2], torch.tensor(0.0))
    with pytest.raises(RuntimeError, match=r"rsample_kl: logvar: expected the shape of mean"):
        raw.rsample_kl(mean, mean[:2], seed, 0, None, -30.0, 20.0)
    with pytest.raises(RuntimeError, match=r"bernoulli_nll: target: expected float64, float32"):
        raw.bernoulli_nll(mean, mean.int())


@pytest.mark.cuda
def test_a_tensor_elsewhere_is_named() -> None:
    mean, seed = torch.zeros(4, 8, device=DEVICE), torch.tensor(1)
    with pytest.raises(RuntimeError, match=r"rsample_kl: sample_ids: expected on cuda"):
        torch.ops.vaekernels.rsample_kl(mean, mean, seed, 0, torch.arange(4), -30.0, 20.0)
