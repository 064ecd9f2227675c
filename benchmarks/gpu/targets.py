"""The targets on one card, judged from a record.

Each figure is bfloat16; "eager" is the faster of PyTorch's two layouts with ``cudnn.benchmark``,
"compile" is torch.compile in channels_last, and a ratio is their time over ours.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu import record
from benchmarks.gpu.phase import Row

# Decoding one image of 512 pixels: multiplications and additions where upsampling runs in four
# phases of 2x2 taps, and the bytes of weights and activations where every pass is fused.
DECODE_512_FLOPS = 2.128e12
DECODE_512_BYTES = 2.57e9


class Missing(Exception):
    """The record has no such figure; the message is the reason."""


Figure = Callable[[Row], float]


@dataclass(frozen=True)
class Target:
    """A bound on a figure.

    Attributes:
        number: some targets have several figures.
        text: description of the figure.
        must: the bound; None: there is none.
        stretch: a further bound.
        unit: of the figure and its bounds.
        figure: record -> figure.
        at: whether the bounds are lower or upper ones.
    """

    number: int
    text: str
    must: float | None
    stretch: float | None
    unit: str
    figure: Figure
    at: Literal["least", "most"] = "least"

    def judge(self, found: Row) -> Row:
        """``measured`` and ``met`` are None where there is no figure; ``why`` is the reason."""
        measured, why = None, ""
        try:
            if found.get("settings", {}).get("device") == "cpu":
                raise Missing("--device cpu: sizes are tiny")
            measured = self.figure(found)
        except Missing as missing:
            why = str(missing)
        return {
            "number": self.number,
            "goal": self.text,
            "unit": self.unit,
            "at": self.at,
            "must": self.must,
            "stretch": self.stretch,
            "measured": measured,
            "met": record.targets.reached(measured, self.must, self.at),
            "stretch_met": record.targets.reached(measured, self.stretch, self.at),
            "why": why,
        }


def judge(found: Row) -> list[Row]:
    """Every target, in order."""
    return [target.judge(found) for target in TARGETS]


def _phase_rows(found: Row, phase: str, key: str, value: str) -> list[Row]:
    rows = [row for row in record.rows(found, phase) if row.get(key) == value]
    if not rows:
        status = found["phases"].get(phase, {}).get("status", "not run")
        absent = f", no row of {value}" if status == record.DONE else ""
        raise Missing(f"{phase}: {status}{absent}")
    for row in rows:
        for reason in ("skipped", "failed", "refused"):
            if reason in row:
                raise Missing(f"{row['name']}: {reason}: {row[reason]}")
        if row.get("ok") is False:
            raise Missing(f"{row['name']}: wrong")
    return rows


def _row(found: Row, phase: str, name: str) -> Row:
    return _phase_rows(found, phase, "name", name)[0]


def _speedup(row: Row, against: str) -> float:
    ratio = record.targets.speedup(row, against)
    if ratio is None:
        raise Missing(f"{row['name']}: not timed: {row.get('does_not_run', 'one side is missing')}")
    return ratio


def _ratio(phase: str, name: str, against: str = "eager") -> Figure:
    return lambda found: _speedup(_row(found, phase, name), against)


def _group(
    group: str,
    direction: str | None = None,
    over: Callable[[Sequence[float]], float] = statistics.geometric_mean,
) -> Figure:
    """Of the speed-ups of the rows of a group of the phase ``ops``, in a direction or in all."""

    def figure(found: Row) -> float:
        rows = _phase_rows(found, "ops", "group", group)
        chosen = [row for row in rows if direction in (None, row["direction"])]
        if not chosen:
            raise Missing(f"ops: no row of {group}, {direction}")
        return over([_speedup(row, "eager") for row in chosen])

    return figure


def _fraction_of_copy(direction: str) -> Figure:
    """Of the largest images, which are the first row."""

    def figure(found: Row) -> float:
        rows = _phase_rows(found, "ops", "group", "group_norm b8")
        rates = [row["gbps"] for row in rows if row["direction"] == direction]
        if not rates:
            raise Missing(f"ops: no row of group_norm b8, {direction}")
        rate: float = rates[0] / _row(found, "environment", "copy")["gbps"]
        return rate

    return figure


def _best_ms(found: Row, name: str) -> float:
    times: dict[str, float] = _row(found, "end_to_end", name)["ms"]
    ours = [ms for who, ms in times.items() if who.startswith("ours")]
    if not ours:
        raise Missing(f"{name}: ours was not timed")
    return min(ours)


def _milliseconds(name: str) -> Figure:
    return lambda found: _best_ms(found, name)


def _fraction_of_floor(found: Row) -> float:
    """The larger of the two lower bounds, at this card's measured rates, over the measured time."""
    flops = _row(found, "environment", "matmul bfloat16")["tflops"] * 1e12
    rate = _row(found, "environment", "copy")["gbps"] * 1e9
    floor = max(DECODE_512_FLOPS / flops, DECODE_512_BYTES / rate)
    return 1e3 * floor / _best_ms(found, "decode 512 b1")


def _images_per_second(name: str) -> Figure:
    def figure(found: Row) -> float:
        batch: int = _row(found, "end_to_end", name)["batch"]
        return 1e3 * batch / _best_ms(found, name)

    return figure


def _graphed_step(found: Row) -> float:
    return _speedup(_row(found, "training", "conv_vae 64 b64"), "graphed")


def _peak(found: Row) -> float:
    peaks: dict[str, int] = _row(found, "training", "autoencoder_kl 256 b8")["peak_bytes"]
    if "ours" not in peaks:
        raise Missing("ours was not run")
    return peaks["ours"] / min(size for who, size in peaks.items() if who != "ours")


def _first_call(found: Row) -> float:
    seconds: float = _row(found, "warm_up", "first call")["seconds"]
    return seconds


def _repeatable(found: Row) -> float:
    """The share of ops, backends and dtypes whose bits are the same in two runs."""
    rows = [row for row in record.rows(found, "correctness") if "repeatable" in row]
    if not rows:
        raise Missing("correctness: nothing was run twice")
    return sum(row["repeatable"] for row in rows) / len(rows)


def _noise(found: Row) -> float:
    """The share of backends, beside the CPU's, whose noise has the recorded digest."""
    rows = [row for row in record.rows(found, "correctness") if "digest" in row]
    if not rows:
        raise Missing("correctness: no backend drew noise")
    return sum(row["ok"] for row in rows) / len(rows)


def _absent(found: Row) -> float:
    raise Missing("not implemented")


_KL_STEP = "autoencoder_kl 256 b8"
TARGETS = (
    Target(1, "decode 512 b1, eager / ours", 4.5, 5.8, "x", _ratio("end_to_end", "decode 512 b1")),
    Target(
        1,
        "decode 512 b1, compile / ours",
        1.35,
        1.8,
        "x",
        _ratio("compiled", "decode 512 b1", "compile"),
    ),
    Target(2, "decode 512 b8, eager / ours", 2.3, 3.0, "x", _ratio("end_to_end", "decode 512 b8")),
    Target(
        3,
        "decode 1024 b1",
        22.0,
        16.5,
        "ms",
        _milliseconds("decode 1024 b1"),
        "most",
    ),
    Target(4, "decode 512 b1, floor / ours", 0.55, 0.72, "", _fraction_of_floor),
    Target(5, "encode 256 b8", 1500, 2000, "images/s", _images_per_second("encode 256 b8")),
    Target(5, "encode 512 b8", 370, 490, "images/s", _images_per_second("encode 512 b8")),
    Target(6, "conv 3x3, cuDNN / tap-GEMM, mean of layers", 1.05, 1.25, "x", _group("conv")),
    Target(6, "conv 3x3, the worst layer", 0.9, None, "x", _group("conv", over=min)),
    Target(7, "upsample + conv, interpolate + cuDNN / ours", 2.4, 3.3, "x", _group("upsample")),
    Target(8, "GN+SiLU forward b1", 10.0, 13.0, "x", _group("group_norm b1", "forward")),
    Target(8, "GN+SiLU forward b8", 2.0, 2.5, "x", _group("group_norm b8", "forward")),
    Target(8, "GN+SiLU forward, of a copy's rate", 0.90, 0.95, "", _fraction_of_copy("forward")),
    Target(8, "GN+SiLU backward, of a copy's rate", 0.85, 0.92, "", _fraction_of_copy("backward")),
    Target(9, "rsample_kl forward, 64 Mi", 7.5, 8.5, "x", _group("rsample_kl large", "forward")),
    Target(9, "rsample_kl backward, 64 Mi", 5.5, 6.0, "x", _group("rsample_kl large", "backward")),
    Target(9, "rsample_kl both, SD latents", 5.0, 8.0, "x", _group("rsample_kl sd")),
    Target(10, "BCE + KL, both, the worse size", 4.0, 6.0, "x", _group("elbo", over=min)),
    Target(11, "VQ search, eager / ours", 4.0, 8.0, "x", _absent),
    Target(11, "VQ search, share of exact indices", 1.0, None, "", _absent),
    Target(12, "VQ with EMA step", 6.0, 9.0, "x", _absent),
    Target(
        13,
        "conv VAE 64 px, eager / ours",
        4.5,
        7.0,
        "x",
        _ratio("training", "conv_vae 64 b64"),
    ),
    Target(13, "conv VAE 64 px, graphed eager / ours", 1.5, 2.2, "x", _graphed_step),
    Target(14, "AutoencoderKL 256 b8, eager / ours", 1.7, 2.2, "x", _ratio("training", _KL_STEP)),
    Target(
        14,
        "AutoencoderKL 256 b8, compile / ours",
        1.15,
        1.4,
        "x",
        _ratio("compiled", _KL_STEP, "compile"),
    ),
    Target(14, "AutoencoderKL 256 b8, peak memory", 0.7, 0.55, "of eager", _peak, "most"),
    Target(15, "first call", 15.0, 5.0, "s", _first_call, "most"),
    Target(16, "same bits run to run", 1.0, None, "of ops", _repeatable),
    Target(16, "noise bit-equal to the CPU's", None, 1.0, "of backends", _noise),
)
