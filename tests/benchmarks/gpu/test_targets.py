"""The targets, from records as the phases write them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import record as records
from benchmarks.gpu import targets
from benchmarks.gpu.phase import Row
from vaekernels.bench import eager_kl
from vaekernels.models import AutoencoderKLConfig


def timed(name: str, eager: float, ours: float | None, **more: Any) -> Row:
    times = {"eager_nchw": 2 * eager, "eager_channels_last": eager}
    if ours is not None:
        times |= {"ours": 2 * ours, "ours_graph": ours}
    return {"name": name, "ms": times, "spread": {}, "ok": True, **more}


def phase(*rows: Row) -> Row:
    return {"status": "done", "seconds": 1.0, "rows": list(rows)}


RECORD: Row = {
    "commit": "abc",
    "started": "now",
    "phases": {
        "environment": phase(
            {"name": "copy", "gbps": 3000.0, "ms": {"copy": 1.0}},
            {"name": "matmul bfloat16", "tflops": 798.0, "ms": {"matmul": 1.0}},
        ),
        "warm_up": phase({"name": "first call", "seconds": 6.0}),
        "correctness": phase(
            {"name": "noise, triton", "digest": "a", "ok": True},
            {"name": "noise, cuda", "digest": "b", "ok": False},
            {"name": "a", "ok": True, "repeatable": True},
            {"name": "b", "ok": True, "repeatable": True},
        ),
        "ops": phase(
            timed("a", 4.0, 2.0, group="conv", direction="forward"),
            timed("b", 4.0, 0.5, group="conv", direction="forward"),
            timed("c", 4.0, 2.0, group="group_norm b8", direction="forward", gbps=2700.0),
            timed("d", 4.0, 2.0, group="group_norm b8", direction="forward", gbps=100.0),
            timed("e", 4.0, 2.0, group="group_norm b8", direction="backward", gbps=2000.0),
            {**timed("f", 4.0, None, group="elbo", direction="forward+backward"), "ok": False},
            {"name": "g", "group": "upsample", "refused": "no kernels", "ms": {"eager_nchw": 1.0}},
        ),
        "end_to_end": phase(
            timed("decode 512 b1", 20.0, 4.0, batch=1),
            timed("decode 1024 b1", 90.0, 16.0, batch=1),
            timed("encode 256 b8", 90.0, 4.0, batch=8),
            {"name": "decode 512 b8", "failed": "OutOfMemoryError: no"},
        ),
        "training": phase(
            {
                "name": "conv_vae 64 b64",
                "ms": {"eager_nchw": 4.0, "graphed_nchw": 2.0, "ours": 1.0, "ours_graph": 0.5},
            },
            {
                "name": "autoencoder_kl 256 b8",
                "ms": {"eager_nchw": 100.0, "ours": 50.0},
                "peak_bytes": {"eager_nchw": 200, "eager_channels_last": 180, "ours": 90},
            },
        ),
        "compiled": {"status": "timed out", "seconds": 90.0, "rows": []},
    },
}


def judged(record: Row = RECORD) -> dict[str, Row]:
    return {f"{goal['number']} {goal['goal']}": goal for goal in targets.judge(record)}


@pytest.mark.parametrize(
    ("name", "measured", "met", "stretch_met"),
    [
        ("1 decode 512 b1, eager / ours", 5.0, True, False),
        ("3 decode 1024 b1", 16.0, True, True),
        ("4 decode 512 b1, floor / ours", 2.128 / 798 * 1e3 / 4.0, True, False),
        ("5 encode 256 b8", 2000.0, True, True),
        ("6 conv 3x3, cuDNN / tap-GEMM, mean of layers", 4.0, True, True),
        ("6 conv 3x3, the worst layer", 2.0, True, None),
        ("8 GN+SiLU forward, of a copy's rate", 0.9, True, False),
        ("8 GN+SiLU backward, of a copy's rate", 2 / 3, False, False),
        ("13 conv VAE 64 px, eager / ours", 8.0, True, True),
        ("13 conv VAE 64 px, graphed eager / ours", 4.0, True, True),
        ("14 AutoencoderKL 256 b8, eager / ours", 2.0, True, False),
        ("14 AutoencoderKL 256 b8, peak memory", 0.5, True, True),
        ("15 first call", 6.0, True, False),
        ("16 same bits run to run", 1.0, True, None),
        ("16 noise bit-equal to the CPU's", 0.5, None, False),
    ],
)
def test_measured(name: str, measured: float, met: bool, stretch_met: bool) -> None:
    goal = judged()[name]
    assert goal["measured"] == pytest.approx(measured)
    assert (goal["met"], goal["stretch_met"], goal["why"]) == (met, stretch_met, "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("1 decode 512 b1, compile / ours", "compiled: timed out"),
        ("2 decode 512 b8, eager / ours", "decode 512 b8: failed: OutOfMemoryError: no"),
        ("5 encode 512 b8", "end_to_end: done, no row of encode 512 b8"),
        ("7 upsample + conv, interpolate + cuDNN / ours", "g: refused: no kernels"),
        ("8 GN+SiLU forward b1", "ops: done, no row of group_norm b1"),
        ("10 BCE + KL, both, the worse size", "f: wrong"),
        ("11 VQ search, eager / ours", "not implemented"),
        ("12 VQ with EMA step", "not implemented"),
    ],
)
def test_not_measured(name: str, why: str) -> None:
    goal = judged()[name]
    assert (goal["measured"], goal["met"], goal["stretch_met"]) == (None, None, None)
    assert goal["why"] == why


def test_every_target_is_judged_even_of_an_empty_record() -> None:
    found = targets.judge({"phases": {}})
    assert {goal["number"] for goal in found} == set(range(1, 17))
    assert all(goal["measured"] is None and goal["met"] is None and goal["why"] for goal in found)
    keys = {"number", "goal", "must", "stretch", "measured", "met"}
    assert all(keys <= goal.keys() for goal in found)


def test_tiny_sizes_meet_no_target() -> None:
    found = targets.judge({**RECORD, "settings": {"device": "cpu"}})
    assert {goal["why"] for goal in found} == {"--device cpu: sizes are tiny"}
    assert {goal["met"] for goal in found} == {None}


def test_one_bit_that_changes_is_not_met() -> None:
    record = copy.deepcopy(RECORD)
    record["phases"]["correctness"]["rows"][-1]["repeatable"] = False
    goal = judged(record)["16 same bits run to run"]
    assert (goal["measured"], goal["met"]) == (0.5, False)


def test_the_table() -> None:
    record = {**RECORD, "goals": targets.judge(RECORD)}
    text = "\n".join(records.lines(record))
    assert "eager_nchw 40, eager_channels_last 20, ours 8, ours_graph 4, 5.00x" in text
    assert "WRONG, error" in text
    assert "matmul 1, tflops 798" in text
    assert "failed OutOfMemoryError: no" in text
    assert "compiled: timed out, 90 s, 0 rows" in text
    counts = [sum(g["met"] is met for g in record["goals"]) for met in (True, False, None)]
    assert text.endswith("{} met, {} not met, {} not measured".format(*counts))
    line = next(line for line in text.splitlines() if line.startswith(" 3."))
    assert line.split()[-4:] == ["22", "16.5", "16", "stretch"]


def test_the_floor_counts_the_operations_of_the_decoder() -> None:
    config = AutoencoderKLConfig.preset("sd1")
    with torch.device("meta"):
        model = eager_kl.EagerKL(config)
        with FlopCounterMode(display=False) as counter:
            model.decode(torch.empty(1, 4, 64, 64))
    dense: int = counter.get_total_flops()
    # Upsampling and 3x3, to 128, 256 and 512 pixels: 4 of 9 taps.
    upsampled = sum(2 * 9 * c**2 * size**2 for c, size in ((512, 128), (512, 256), (256, 512)))
    assert dense - upsampled * 5 / 9 == pytest.approx(targets.DECODE_512_FLOPS, rel=1e-3)
