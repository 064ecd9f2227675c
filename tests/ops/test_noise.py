"""The noise contract: known answers, bits, order independence, statistics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import pytest
import torch

import vaekernels as vk
from vaekernels.backends import extension as _extension
from vaekernels.backends.reference import noise

needs_extension = pytest.mark.skipif(
    bool(_extension.refusals()), reason="built without the C++ extension"
)

# Random123's kat_vectors for philox4x32, 10 rounds: counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers_of_the_reference(counter, key, words) -> None:
    got = noise.philox([torch.tensor([c]) for c in counter], tuple(torch.tensor([k]) for k in key))
    assert [int(w) for w in got] == list(words)


@pytest.fixture
def each_capability() -> Iterator[Iterator[str]]:
    """Switches to one CPU capability after the other."""
    extension = _extension.load()
    best = extension.cpu_capability()

    def switch() -> Iterator[str]:
        for capability in extension.cpu_capabilities():
            extension.set_cpu_capability(capability)
            yield capability

    yield switch()
    extension.set_cpu_capability(best)


@needs_extension
def test_known_answers_of_every_capability(each_capability: Iterator[str]) -> None:
    for capability in each_capability:
        for counter, key, words in KNOWN_ANSWERS:
            assert _extension.load().philox(counter, key) == list(words), capability


@needs_extension
def test_a_million_draws_are_the_same_bits_at_every_capability(
    each_capability: Iterator[str],
) -> None:
    expected = vk.randn((10, 100_003), seed=-7, step=2**32 - 1, backend="reference")
    for capability in each_capability:
        got = vk.randn((10, 100_003), seed=-7, step=2**32 - 1, backend="cpu")
        assert hashlib.sha256(got.numpy().tobytes()).hexdigest() == DIGEST, capability
        # The reference forms fma in float64: it may differ in the last place.
        spacing = torch.nextafter(expected.abs(), torch.tensor(torch.inf)) - expected.abs()
        assert ((got - expected).abs() <= spacing).all()


# Of the million draws above: the bits that every backend must give, CUDA and Triton included.
DIGEST = "8970f450ce4fe47e4fe687defa2d0fd12a8b42432d48af6b31f7ed456a12be44"


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16, torch.float16), ids=str)
def test_every_dtype_holds_the_float32_normals_rounded_once(dtype: torch.dtype) -> None:
    single = vk.randn((5, 37), seed=3)
    assert torch.equal(vk.randn((5, 37), seed=3, dtype=dtype), single.to(dtype))


def test_noise_depends_on_the_sample_not_on_its_place() -> None:
    mean, logvar = torch.randn(8, 4, 5, 3), torch.randn(8, 4, 5, 3)
    whole, _ = vk.rsample_kl(mean, logvar, seed=1)
    order = torch.randperm(8)
    shuffled, _ = vk.rsample_kl(mean[order], logvar[order], seed=1, sample_ids=order)
    assert torch.equal(shuffled, whole[order])
    part, _ = vk.rsample_kl(mean[3:5], logvar[3:5], seed=1, sample_ids=torch.tensor([3, 4]))
    assert torch.equal(part, whole[3:5])
    channels_last = mean.contiguous(memory_format=torch.channels_last)
    assert torch.equal(vk.rsample_kl(channels_last, logvar, seed=1)[0], whole)


def test_rsample_uses_the_stream() -> None:
    zeros = torch.zeros(6, 50)
    z, kl = vk.rsample_kl(zeros, zeros, seed=11, step=4)
    assert torch.equal(z, vk.randn((6, 50), seed=11, step=4))
    assert torch.equal(kl, torch.zeros(6))


def test_seed_step_and_id_each_give_other_noise() -> None:
    base = vk.randn((1, 1000), seed=1)
    for other in (
        vk.randn((1, 1000), seed=2),
        vk.randn((1, 1000), seed=1 + 2**32),
        vk.randn((1, 1000), seed=1, step=1),
        vk.randn((1, 1000), seed=1, sample_ids=torch.tensor([1])),
        vk.randn((1, 1000), seed=1, sample_ids=torch.tensor([2**32])),
    ):
        assert abs(float(torch.corrcoef(torch.cat([base, other]))[0, 1])) < 0.15


def test_all_ways_to_the_default_generator_draw_one_seed() -> None:
    """None, that generator, another in its state, and a compiled function."""
    zeros = torch.zeros(2, 3)
    own = torch.Generator()
    calls = (
        lambda: vk.rsample_kl(zeros, zeros)[0],
        lambda: vk.rsample_kl(zeros, zeros, generator=torch.default_generator)[0],
        lambda: vk.rsample_kl(zeros, zeros, generator=own.manual_seed(3))[0],
        torch.compile(lambda: vk.rsample_kl(zeros, zeros)[0], backend="eager"),
    )
    first, *others = [(torch.manual_seed(3), call())[1] for call in calls]
    for other in others:
        assert torch.equal(first, other)


def test_the_torch_generator_decides_when_no_seed_is_given() -> None:
    mean, logvar = torch.zeros(2, 9), torch.zeros(2, 9)
    torch.manual_seed(5)
    first = vk.rsample_kl(mean, logvar)[0]
    second = vk.rsample_kl(mean, logvar)[0]
    torch.manual_seed(5)
    assert torch.equal(vk.rsample_kl(mean, logvar)[0], first)
    assert not torch.equal(first, second)
    drawn = [
        vk.rsample_kl(mean, logvar, generator=torch.Generator().manual_seed(8))[0] for _ in range(2)
    ]
    assert torch.equal(drawn[0], drawn[1])


def _statistics(draws: int) -> None:
    rows = 64
    columns = draws // rows
    x = vk.randn((rows, columns), seed=2024).double().flatten()
    n = x.numel()
    # Standard errors of the first four moments of a normal sample.
    assert abs(float(x.mean())) < 5 / math.sqrt(n)
    assert abs(float(x.var()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float((x**3).mean())) < 5 * math.sqrt(15 / n)
    assert abs(float((x**4).mean()) - 3) < 5 * math.sqrt(96 / n)
    for lag in (1, 2, 3, 4, 5, 8, 64, columns):
        assert abs(float((x[:-lag] * x[lag:]).mean())) < 5 / math.sqrt(n)
        assert abs(float((x[:-lag] ** 2 * x[lag:] ** 2).mean()) - 1) < 5 * math.sqrt(8 / n)
    for bound in (3.0, 4.0, 5.0):
        expected = n * math.erfc(bound / math.sqrt(2))
        found = int((x.abs() > bound).sum())
        assert abs(found - expected) < 5 * math.sqrt(expected) + 5
    # Kolmogorov-Smirnov: sqrt(n) D exceeds 2.2 with probability 1e-4.
    cdf = torch.special.ndtr(x.sort().values)
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    distance = torch.maximum((cdf - grid).abs().max(), (cdf - grid + 1 / n).abs().max())
    assert float(distance) * math.sqrt(n) < 2.2


@needs_extension
def test_statistics_of_a_million_draws() -> None:
    _statistics(2**20)


@needs_extension
@pytest.mark.slow
def test_statistics_of_a_hundred_million_draws() -> None:
    _statistics(10**8)
    # 10^8 draws hold about 6 beyond 5.5 sigma: the tail is there.
    assert float(vk.randn((100, 10**6), seed=3).abs().max()) > 5.3


def test_the_tail_reaches_beyond_six_sigma() -> None:
    """The smallest uniform, 2^-32, and the angle 0."""
    first, second = noise.box_muller(torch.tensor([0]), torch.tensor([0]))
    assert 6.6 < float(first) < 6.7
    assert float(second) == 0.0
