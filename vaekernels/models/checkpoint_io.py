"""Reading and writing of weight files, and checks of their content."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def has_weights(path: Path) -> bool:
    """Whether the file exists, or an index of its shards."""
    return path.is_file() or _index(path).is_file()


def _index(path: Path) -> Path:
    return path.with_name(path.name + ".index.json")


def check_exists(path: Path) -> None:
    """Check that the file exists.

    Raises:
        FileNotFoundError: the file does not exist; the error names it.
        ValueError: the file does not exist, but an index of its shards does.
    """
    if path.is_file():
        return
    index = _index(path)
    if index.is_file():
        raise ValueError(
            f"{index}: the weights are in several files; expected the one file {path.name}, which "
            "diffusers writes by save_pretrained(..., max_shard_size='100GB')"
        )
    raise FileNotFoundError(f"from_pretrained: expected the file {path}; it does not exist")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a pickled state dict (``.bin``, ``.pt``, ``.pth``, ``.ckpt``).

    Pickles are read with ``weights_only=True``: tensors and containers, never code.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is truncated, corrupted or of another kind.
    """
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        return _read_state_dict(path)
    import safetensors.torch

    check_exists(path)
    content = path.read_bytes()
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError) as error:
        # Checked only now, because the length field of a valid file may begin with any byte.
        if content.startswith((b"PK\x03\x04", b"\x80")):
            got = "a pickle, as torch.save writes, which is never loaded"
        else:
            got = f"{len(content)} bytes, truncated or of another kind ({error})"
        raise ValueError(f"{path}: expected a complete safetensors file; got {got}") from error


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file, deterministic for given arguments.

    Args:
        tensors: contiguous tensors by name.
        metadata: the metadata of the file.
    """
    import safetensors.torch

    content = safetensors.torch.save(dict(tensors), dict(metadata))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    # The order in which the library writes metadata differs from process to process.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors are aligned to 8 bytes
    return len(ordered).to_bytes(8, "little") + ordered + content[8 + length :]


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    check_exists(path)
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol; errors are reported below
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # raised by zipfile, pickle or torch
        if type(error).__name__ == "UnpicklingError":
            got = "pickled objects of other kinds, which are never loaded"
        else:
            got = str(error).partition("\n")[0]
        raise ValueError(f"{path}: expected a state dict, tensors alone; got {got}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path}: expected a state dict; got {type(found).__name__}")
    return found


def check_weights(
    source: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], config: str
) -> None:
    """Check that ``found`` has the names and shapes of ``expected`` and floating dtypes.

    Raises:
        ValueError: the weights differ; the error lists every name.
    """
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    problems = [f"{name} is missing" for name in sorted(missing)]
    problems += [f"{name} is unexpected" for name in sorted(unexpected)]
    for name in sorted(expected.keys() & found.keys()):
        got, want = found[name], expected[name]
        if got.shape != want.shape:
            problems.append(f"{name}: expected shape {tuple(want.shape)}; got {tuple(got.shape)}")
        elif not got.is_floating_point():
            problems.append(f"{name}: expected a floating dtype; got {got.dtype}")
    if problems:
        raise ValueError(f"{source}: the weights do not fit {config}: " + "; ".join(problems))
