"""torch.ops.vaekernels.* without the public functions before them: no tensor of another size,
dtype or number of dimensions is read as if it were right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.ops import convs
from tests.ops.oracle import KINDS, make
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.bench.op_inputs import error

SHAPE = (3, 6)
IMAGES = (2, 4, 3, 6, 5)


def forward_arguments(op: str) -> dict[str, object]:
    """Of a call that is right, by name."""
    arguments: dict[str, object] = {
        "seed": torch.tensor(7),
        "step": 1,
        "sample_ids": torch.arange(SHAPE[0]),
        "logvar_min": -30.0,
        "logvar_max": 20.0,
        "like": torch.zeros(SHAPE),
        "groups": 2,
        "eps": 1e-6,
        "activation": None if op == "downsample_conv4x4" else "relu",
        "negative_slope": 0.2,
        "precision": "high",
        "padding": "asymmetric",
        "norm_groups": 2,
        "norm_eps": 1e-6,
    }
    if op in KINDS:
        names = [a.name for a in schema_of(op).arguments]
        arguments |= {
            name: make(kind, SHAPE, torch.float32, seed)
            for seed, (name, kind) in enumerate(zip(names, KINDS[op], strict=False))
        }
    elif op == "group_norm_silu":
        arguments |= {
            "x": torch.randn(2, 4, 3, 3),
            "weight": torch.randn(4),
            "bias": torch.randn(4),
        }
        arguments["activation"] = "silu"
    elif op != "randn":
        norm = {"residual": True, "groups": 2} if op == "conv3x3" else {}
        arguments |= convs.Conv(op, IMAGES, **norm).tensors()
    return {a.name: arguments[a.name] for a in schema_of(op).arguments}


def schema_of(op: str) -> torch.FunctionSchema:
    return operator_of(op)._schema


def operator_of(op: str) -> torch._ops.OpOverload:
    return getattr(torch.ops.vaekernels, op).default


def arguments_of(op: str) -> dict[str, object]:
    """Also of a backward."""
    if not op.endswith("_backward"):
        return forward_arguments(op)
    definition = DEFINITIONS[op.removesuffix("_backward")]
    arguments = forward_arguments(definition.name)
    outputs = operator_of(definition.name)(*arguments.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    returns = [output.name for output in schema_of(definition.name).returns]
    known = arguments | dict(zip(returns, outputs, strict=True))
    for argument in schema_of(op).arguments:
        if argument.name == "grad":
            known["grad"] = torch.randn_like(outputs[0])
        elif argument.name.startswith("grad_"):
            known[argument.name] = torch.randn_like(known[argument.name.removeprefix("grad_")])
    known["mask"] = [True] * len(definition.differentiable)
    return {a.name: known[a.name] for a in schema_of(op).arguments}


OPS = [
    name
    for definition in DEFINITIONS.values()
    for name in (definition.name, f"{definition.name}_backward")
    if definition.backends.keys() & {"cpu"} and (name in DEFINITIONS or definition.backward_schema)
]


@pytest.fixture(autouse=True)
def _needs_the_extension() -> None:
    convs.skip_if_refused("cpu")


def other_sizes(tensor: Tensor) -> Iterator[Tensor]:
    """One element less and more in each dimension, a dimension less and more, none at all."""
    for dim in range(tensor.dim()):
        yield tensor.narrow(dim, 0, tensor.shape[dim] - 1)
        yield torch.cat([tensor, tensor.narrow(dim, 0, 1)], dim)
    if tensor.dim() > 0:
        yield tensor[0]
        yield tensor[:0]
    yield tensor[None].expand(2, *tensor.shape)


def expect_error_or_right_result(op: str, arguments: dict[str, object]) -> None:
    try:
        got = operator_of(op)(*arguments.values())
    except (ValueError, TypeError, IndexError, RuntimeError) as raised:
        message = str(raised)
    else:
        check_result(op, arguments, got)
        return
    assert re.match(rf"{op.removesuffix('_backward')}: \w+", message), message


def check_result(op: str, arguments: dict[str, object], got: object) -> None:
    if op.endswith("_backward"):
        # An image of odd height may have a result of the same height.
        forward = op.removesuffix("_backward")
        inputs = [arguments[a.name] for a in schema_of(forward).arguments]
        assert operator_of(forward)(*inputs).shape == arguments["y"].shape
        return
    right = DEFINITIONS[op].reference(*arguments.values())
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, right)), strict=True):
        assert a.shape == b.shape
        assert a.numel() == 0 or error(a.nan_to_num(), b.nan_to_num()) < 1e-4


@pytest.mark.parametrize("op", OPS)
def test_every_tensor_in_other_sizes(op: str) -> None:
    arguments = arguments_of(op)
    operator_of(op)(*arguments.values())
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            continue
        for other in other_sizes(value):
            expect_error_or_right_result(op, {**arguments, name: other})


@pytest.mark.parametrize("op", OPS)
def test_every_tensor_in_another_dtype_or_layout(op: str) -> None:
    arguments = arguments_of(op)
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            continue
        other = value.double() if value.dtype == torch.int64 else value.int()
        with pytest.raises(TypeError, match=rf"{name} must be"):
            operator_of(op)(*{**arguments, name: other}.values())
        with pytest.raises((ValueError, RuntimeError)):
            operator_of(op)(*{**arguments, name: value.to_sparse()}.values())


@pytest.mark.parametrize("op", [op for op in OPS if "conv" in op or "norm" in op])
def test_float64_is_refused_where_kernels_are_float32(op: str) -> None:
    arguments = arguments_of(op)
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            with pytest.raises(TypeError, match=rf"{name} must be"):
                operator_of(op)(*{**arguments, name: value.double()}.values())


@pytest.mark.parametrize("op", [op for op in OPS if op.endswith("_backward")])
def test_a_missing_gradient(op: str) -> None:
    arguments = arguments_of(op)
    if op == "rsample_kl_backward":
        return  # either of two may be missing
    with pytest.raises(ValueError, match="grad must be a tensor; got None"):
        operator_of(op)(*{**arguments, "grad": None}.values())


def test_norms_of_half_a_prologue_and_groups_that_do_not_divide() -> None:
    arguments = arguments_of("conv3x3")
    for name in ("norm_weight", "norm_bias"):
        with pytest.raises(ValueError, match="norm_weight and norm_bias must both be"):
            operator_of("conv3x3")(*{**arguments, name: None}.values())
    for groups in (0, -1, 3, 8):
        for op, name in (("conv3x3", "norm_groups"), ("group_norm_silu", "groups")):
            with pytest.raises(ValueError, match="groups must divide the channels of x, 4"):
                operator_of(op)(*{**arguments_of(op), name: groups}.values())
