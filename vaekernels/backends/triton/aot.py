"""Ahead-of-time compilation: what a kernel costs on a GPU, told without one.

``python -m vaekernels.backends.triton.aot --target sm_90`` compiles every configuration that the
ops ship and prints registers, stack, shared memory and the SASS opcodes, as a table or as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.backends.triton import INTERPRETED
from vaekernels.backends.triton.images import Cut
from vaekernels.backends.triton.launch_grid import COMPUTE, WARPS
from vaekernels.backends.triton.row_reduction import tile_shape

_OPCODE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)")
_APPROXIMATE = re.compile(r"\b[a-z0-9]+(?:\.\w+)*\.(?:approx|full|ftz)\b[\w.]*")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")


class DisassemblerMissingError(RuntimeError):
    """There is no cuobjdump, neither in the triton package nor on PATH."""


@dataclass(frozen=True)
class Config:
    """One compilation of a kernel.

    ``arguments`` gives every parameter in order: a Triton type (``"*fp32"``, ``"i32"``, with
    ``":16"`` where divisible by 16), or, for a constant and an absent pointer, its value (a
    string in a ``tl.constexpr``).
    """

    name: str
    kernel: Any
    arguments: Mapping[str, Any]
    warps: int = WARPS
    stages: int | None = None  # of its software pipeline; None: Triton's default


@dataclass(frozen=True)
class Report:
    """Resources of a compiled kernel.

    ``opcodes`` counts full SASS opcodes (``LDG.E.128``); ``approximate`` are the PTX
    instructions that are not correctly rounded or flush subnormals.
    """

    name: str
    target: str
    registers: int
    stack: int
    shared: int
    approximate: list[str] = field(default_factory=list)
    opcodes: Counter[str] = field(default_factory=Counter)

    def count(self, opcode: str, modifier: str = "") -> int:
        """How many instructions are ``opcode`` and carry ``modifier``, such as ``"128"``."""
        total = 0
        for name, number in self.opcodes.items():
            head, *modifiers = name.split(".")
            if head == opcode and (not modifier or modifier in modifiers):
                total += number
        return total


def tile_configs(
    kernel: Any, name: str | None = None, variant: str = "", **special: Any
) -> list[Config]:
    """The configurations of a kernel of ``row_reduction.launch``: dtypes and tiles.

    Long rows (an image, a latent map) and short, unaligned ones (a latent of 20 numbers).
    float16 compiles to the code of bfloat16 but for conversions, and is left out. ``special``
    replaces arguments, for a ``variant`` in which one is a number or absent. ``name`` is that of
    the kernel unless given.
    """
    shapes = [("fp32", 4096), ("bf16", 4096), ("fp64", 4096), ("fp32", 20)]
    name = " ".join([name or kernel.__name__.removesuffix("_kernel"), *variant.split()])
    return [
        Config(
            f"{name} {dtype} rows of {extent}",
            kernel,
            {key: _argument(key, dtype, extent) for key in kernel.arg_names} | special,
        )
        for dtype, extent in (shapes[:1] if variant else shapes)
    ]


def _argument(name: str, dtype: str, extent: int) -> Any:
    """A parameter's type, told by the names that the kernels share."""
    wide = "fp64" if dtype == "fp64" else "fp32"
    compute = COMPUTE[torch.float64 if dtype == "fp64" else torch.float32]
    rows, columns = tile_shape(extent)
    aligned = ":16" if extent % 16 == 0 else ""
    constants = {"ROWS": rows, "COLUMNS": columns, "COMPUTE": compute, "sample_ids": None}
    sizes = {"batch": "i32", "segments": "i32", "seed": "i64", "step": "i64"}
    sums = {"partial": f"*{wide}:16", "grad": f"*{wide}:16", "grad_kl": f"*{wide}:16"}
    bounds = {"logvar_min": "fp64", "logvar_max": "fp64"}
    known = constants | sizes | sums | bounds | {"grad_stride": "i32", "grad_kl_stride": "i32"}
    if name in known:
        return known[name]
    if name == "extent" or name.endswith("_stride"):
        return f"i32{aligned}"
    return f"*{dtype}:16"


def image_configs(kernel: Any) -> list[Config]:
    """The configurations of a kernel on images: dtypes and layouts, and shapes without alignment.

    128 channels in 32 groups, as in autoencoders; the odd shapes have groups of 3 channels.
    """
    kinds = [(dtype, layout) for dtype in ("bf16", "fp32") for layout in ("pixels", "planes")]
    kinds += [("fp64", "pixels"), ("bf16", "odd pixels"), ("fp32", "odd planes")]
    return [image_config(kernel, dtype, layout) for dtype, layout in kinds]


def image_config(kernel: Any, dtype: str, layout: str, **special: Any) -> Config:
    """One of them; ``special`` replaces arguments."""
    name = f"{kernel.__name__.removesuffix('_kernel')} {dtype} {layout}"
    arguments = {key: _image_argument(key, dtype, layout) for key in kernel.arg_names}
    return Config(name, kernel, arguments | special)


def _image_argument(name: str, dtype: str, layout: str) -> Any:
    wide, pixels, odd = dtype == "fp64", "pixels" in layout, "odd" in layout
    cut = Cut.of(128, 4096, pixels, reduces=True)
    span = 4 if pixels else 1  # the planes of a group are one long plane
    known = {
        "COMPUTE": COMPUTE[torch.float64 if wide else torch.float32],
        "ROUNDED": dtype == "bf16",
        "SILU": True,
        "PIXELS": pixels,
        "CHANNELS": cut.channels,
        "POSITIONS": cut.positions,
        "WIDTH": 3 if odd and pixels else span,
        "SPAN": span,
        "GROUPS": cut.channels // span,
        "eps": "fp64",
    }
    if name in known:
        return known[name]
    if name in ("channels", "length"):
        return "i32" if odd else "i32:16"
    if name in ("groups", "blocks", "segments", "segment_length", "steps", "spans", "width"):
        return "i32"
    if name in ("x", "y", "grad", "grad_x", "weight", "bias"):
        return f"*{dtype}:16"
    return f"*{'fp64' if wide or name.startswith('total') else 'fp32'}:16"


def compile_kernel(config: Config, target: str = "sm_90") -> Any:
    """Compile ``config`` for ``target``; returns Triton's compiled kernel (``.asm``).

    Raises:
        RuntimeError: the kernels were imported for Triton's interpreter.
    """
    if INTERPRETED:
        raise RuntimeError("ahead-of-time compilation needs a process without TRITON_INTERPRET")
    names = config.kernel.arg_names
    if list(config.arguments) != list(names):
        raise ValueError(f"{config.name}: expected the arguments {names}, got {config.arguments}")
    signature, constants, attributes = {}, {}, {}
    for index, (name, kind) in enumerate(config.arguments.items()):
        if not isinstance(kind, str):
            value = kind.value if isinstance(kind, tl.constexpr) else kind
            signature[name], constants[(index,)] = "constexpr", value
            continue
        signature[name], _, divisor = kind.partition(":")
        if divisor:
            attributes[(index,)] = [["tt.divisibility", int(divisor)]]
    source = ASTSource(config.kernel, signature, constants, attributes)
    options: dict[str, Any] = {"num_warps": config.warps, "enable_fp_fusion": False}
    if config.stages is not None:
        options["num_stages"] = config.stages
    gpu = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    return triton.compile(source, target=gpu, options=options)


def report(config: Config, target: str = "sm_90") -> Report:
    """Compile ``config`` and read the machine code.

    Raises:
        DisassemblerMissingError: there is no cuobjdump.
    """
    tool = cuobjdump()
    compiled = compile_kernel(config, target)
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        command = [tool, "--dump-resource-usage", "--dump-sass", str(binary)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = _USAGE.search(text)
    if found is None:
        raise RuntimeError(f"{config.name}: cuobjdump printed no resource usage: {text}")
    registers, stack = map(int, found.groups())
    opcodes = Counter(_OPCODE.findall(text))
    return Report(
        config.name,
        target,
        registers,
        stack,
        compiled.metadata.shared,
        sorted(set(_APPROXIMATE.findall(compiled.asm["ptx"]))),
        opcodes,
    )


def cuobjdump() -> str:
    """Path of the disassembler, the triton package's own first."""
    packaged = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    found = str(packaged) if packaged.exists() else shutil.which("cuobjdump")
    if found is None:
        raise DisassemblerMissingError("no cuobjdump in the triton package nor on PATH")
    return found


def shipped_configs() -> list[Config]:
    """The configurations of all ops, each op's ``AOT_CONFIGS``."""
    ops = [op for op in sorted(DEFINITIONS) if "triton" in DEFINITIONS[op].backends]
    modules = [importlib.import_module(f"vaekernels.backends.triton.{op}") for op in ops]
    return [config for module in modules for config in module.AOT_CONFIGS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="sm_90", help="sm_80, sm_90, ...")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    parser.add_argument("--match", default="", help="only configurations this pattern finds")
    options = parser.parse_args()
    chosen = [config for config in shipped_configs() if re.search(options.match, config.name)]
    reports = [report(config, options.target) for config in chosen]
    if options.json:
        print(json.dumps([vars(item) for item in reports]))
        return
    for item in reports:
        wide = f"{item.count('LDG', '128')} + {item.count('STG', '128')}"
        print(
            f"{item.name:48} {item.target} registers {item.registers:3} stack {item.stack} "
            f"shared {item.shared:5} 128-bit loads + stores {wide}, "
            f"{sum(item.opcodes.values())} instructions"
        )


if __name__ == "__main__":
    main()
