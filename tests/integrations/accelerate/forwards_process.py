"""One-line forwards in a process of their own: accelerated, each gives what it gave.

A process that PyTorch's C++ ends takes no test with it. Run as
``python -m tests.integrations.accelerate.forwards_process PART PARTS SIZE``; prints the
differences as JSON.
"""

from __future__ import annotations

import copy
import inspect
import json
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import vaekernels as vk

# Protocols and habits by which a number, a copy or an answer is made of an argument.
WRITTEN = (
    *("torch.arange(n)", "torch.zeros(n)", "torch.ones((n, 2))", "torch.full((2,), n)"),
    *("torch.randn(n)", "torch.linspace(0, 1, n)", "torch.eye(n)", "torch.randint(n, (2,))"),
    *("x.reshape(n, -1)", "torch.reshape(x, (n, -1))", "x.view(n, -1)", "x.view((n, -1))"),
    *("x.expand(n, -1, -1, -1)", "x.repeat(n, 1, 1, 1)", "x[:n]", "x[..., n]", "x[n:, 0]"),
    *("x.permute(0, n, 3, 1)", "x.transpose(1, n)", "x.chunk(n)", "x.split(n, 1)", "x.sum(n)"),
    *("x * n", "n * x", "x / n", "x // n", "x % n", "x ** n", "n - x", "divmod(x, n)[0]"),
    *("x + int(n)", "x * float(n)", "x * complex(n)", "[x] * n", "(x, -x, x)[n]", "'abc'[n]"),
    *("[x for _ in range(n)]", "x * round(n)", "x * math.floor(n)", "x * math.sqrt(n)"),
    *("x * operator.index(n)", "x * math.ceil(n)", "x * math.trunc(n)", "hex(n)", "bin(n)"),
    *("len(x)", "list(x)", "[*x]", "{**{'a': x}}", "tuple(x)", "max(x.flatten())", "sum(x)"),
    *("f'{n}'", "f'{n:3d}'", "str(n)", "repr(n)", "'%d' % n", "'{}'.format(n)", "{n: x}[2]"),
    *("x if n else -x", "x if n == 2 else -x", "x if n in (1, 2) else -x", "x and n", "not n"),
    *("x if isinstance(n, int) else -x", "x if isinstance(x, Tensor) else -x"),
    *("x if type(n) is int else -x", "x if type(x) is Tensor else -x"),
    *("x if x.__class__ is Tensor else -x", "x if hasattr(x, 'mine') else -x"),
    *("getattr(x, 'mine', x + 1)", "x if hasattr(n, 'shape') else -x", "x if callable(n) else -x"),
    *("caught(lambda: x * int(n), -x)", "caught(lambda: torch.arange(n), -x)"),
    *("caught(lambda: len(x) * x, -x)", "caught(lambda: x if n > 1 else x + 1, -x)"),
    *("caught(lambda: x[0, 0, 0, 0].item() * x, -x)", "caught(lambda: torch.zeros(n), -x)"),
    *("caught(lambda: np.asarray(x).sum() * x, -x)", "caught(lambda: stop(n) or x, -x)"),
    *("stop(n) or x", "x if isinstance(n, int) else sys.exit(3)", "set_seed(n) or torch.rand(2)"),
    *("set_seed(3) or x", "np.asarray(x)", "np.sin(x)", "np.add(x, 1)", "x.numpy()"),
    *("np.zeros(n)", "np.sin(x.numpy())", "torch.from_numpy(np.ones(n))", "np.stack([x, x])"),
    *("torch.tensor(x)", "torch.tensor([n, n])", "torch.as_tensor(x)", "torch.asarray(x)"),
    *("torch.utils.dlpack.from_dlpack(x)", "np.from_dlpack(x)", "torch.Size((n, 2))"),
    *("torch.Tensor([n])", "Tensor(x)", "nn.Parameter(x)", "torch.scalar_tensor(n)"),
    *("copy.copy(x)", "copy.deepcopy(x)", "copy.deepcopy([x])[0].add_(1)", "pickle.dumps(x)[:0]"),
    *("Tensor.add(x, n)", "Tensor._make_subclass(Tensor, x)", "torch._C._nn.silu(x)"),
    *("torch._C._nn.pad(x, (n, n))", "torch._C._VariableFunctions.add(x, n)"),
    *("torch.ops.aten.add(x, n)", "torch.ops.aten.mul.Scalar(x, n)", "torch.ops.aten.relu(x)"),
    *("torch.ops.vaekernels.randn(x, n)", "scripted(x, n)", "Doubled.apply(x)", "Doubled.apply(n)"),
    *("torch.vmap(torch.sin)(x)", "torch.func.grad(lambda y: (y * n).sum())(x)"),
    *("torch.cond(x.sum() > 0, lambda y: y, lambda y: -y, (x,))", "torch.func.vmap(abs)(x)"),
    "torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False)",
    *("torch.stack([x, n * x])", "torch.cat((x, x), n)", "torch.where(x > n, x, n)"),
    *("torch.clamp(x, n)", "torch.einsum('bchw->bhwc', x)", "torch.nn.utils.rnn.pad_sequence([x])"),
    *("F.interpolate(x, scale_factor=n)", "F.interpolate(x, size=(n, n))", "F.pad(x, (n, n))"),
    *("F.conv2d(x, torch.ones(4, 4, 1, 1), stride=n)", "F.max_pool2d(x, n)", "F.unfold(x, n)"),
    *("F.conv2d(x, self.conv.weight, None, n)", "F.group_norm(x, n)", "F.one_hot(n, 5)"),
    *("F.dropout(x, n / 4)", "F.pixel_shuffle(x, n)", "F.gumbel_softmax(x, n)", "x.to(n)"),
    *("x.view(x.shape[0], -1)", "x.reshape(x.size(0) * n, -1)", "x.new_zeros(x.shape)"),
    *("torch.zeros(x.shape)", "torch.zeros_like(x) + n", "x.shape[n]", "x.size(n)", "x.stride(n)"),
    *("torch.arange(x.shape[-1])", "range(x.shape[0])[0]", "x.shape.numel() * x", "x.ndim * x"),
    *("[s for s in x.shape]", "math.prod(x.shape) * x", "x.dim() == 4", "x.tolist()", "x.item()"),
    *("x.sum().item()", "float(x.sum())", "x.is_contiguous()", "x.device.type", "x.dtype", "x.T"),
    *(
        "x.register_hook(abs)",
        "x.requires_grad_()",
        "x.detach()",
        "x.data",
        "x.grad",
        "x.untyped()",
    ),
    *("setattr(x, 'mine', 1)", "x.__setitem__(0, n)", "x.__dict__", "vars(x)", "dir(x)[:0]", "x()"),
    *(
        "operator.setitem(x, 0, 1.0) or x",
        "operator.iadd(x, n)",
        "operator.contains(x, 1)",
        "x @ x",
    ),
    *("threaded(lambda: x * n)", "x.apply_(abs)", "x.map_(x, max)", "memoryview(x)", "bytes(n)"),
    *("id(x) * 0", "hash(n) * x", "print(end='') or x", "eval('x * n')", "SCALES['a'] * x"),
)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


HELPERS = """
import copy, math, operator, pickle, sys, threading
import numpy as np, torch, torch.nn.functional as F, torch.utils.checkpoint, torch.utils.dlpack
from torch import Tensor, nn
SCALES = {"a": 2.0}

def caught(call, otherwise):
    try:
        return call()
    except (Exception, SystemExit):
        return otherwise

def stop(n):
    if not isinstance(n, int):
        sys.exit(3)

def set_seed(n):
    torch.manual_seed(n)

def threaded(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(caught(call, None)))
    thread.start()
    thread.join()
    return results

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
"""
FORWARD = """
class Forward(Block):
    def forward(self, x, n):
        return {body}, self.conv(x)
"""


def generated() -> Iterator[str]:
    """A call of each function that tensors may override, the number in each of its places."""
    skipped = ("empty", "resize", "data_ptr", "storage", "record_stream", "cuda", "pin_memory")
    skipped += ("share_memory", "set_", "__", "dlpack", "_backward", "manual_seed", "quantize")
    names = {torch: "torch", Tensor: "Tensor", F: "F", torch.linalg: "torch.linalg"}
    names |= {torch.fft: "torch.fft", torch.special: "torch.special"}
    overridable = torch.overrides.get_overridable_functions()
    places = torch.overrides.get_testing_overrides()
    for namespace, prefix in names.items():
        for function in sorted(
            set(overridable[namespace]), key=lambda f: getattr(f, "__name__", "")
        ):
            name = getattr(function, "__name__", "_")
            if name[0] == "_" or any(part in name for part in skipped) or function not in places:
                continue
            if name == "index":  # functorch.dim's: plain PyTorch never returns for a scalar
                continue
            if getattr(namespace, name, None) is not function:
                continue
            parameters = inspect.signature(places[function]).parameters.values()
            count = sum(p.default is p.empty and p.kind.value < 2 for p in parameters)
            for place in range(max(count, 2)):
                others = ["x" if i == 0 or i < count - 1 else "1" for i in range(max(count, 2))]
                others[place] = "n"
                yield f"{prefix}.{name}({', '.join(others)})"
                others = [
                    "n" if i == place else ("x" if i == 0 else "1") for i in range(len(others))
                ]
                yield f"{prefix}.{name}({', '.join(others)})"


def forward_of(body: str) -> nn.Module:
    """A model with that forward."""
    names: dict[str, Any] = {"__name__": "forwards", "Doubled": Doubled, "scripted": _scripted}
    exec(HELPERS + FORWARD.format(body=body), names)
    sys.modules["forwards"] = type(sys)("forwards")
    torch.manual_seed(0)
    return names["Forward"]()


@torch.jit.script
def _scripted(x: Tensor, n: int) -> Tensor:
    return x * n


def outcome(model: nn.Module, x: Tensor, n: object) -> Any:
    """What a call gives, or the kind of error that it raises."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    try:
        return tree_leaves(model(x.clone(), n))
    except (Exception, SystemExit) as error:
        return [type(error)]


def is_same(got: Any, expected: Any) -> bool:
    """Whether two results are: numbers of a convolution within its bound."""
    if isinstance(expected, Tensor) and isinstance(got, Tensor):
        if got.shape != expected.shape or got.dtype != expected.dtype:
            return False
        if got.is_quantized or got.is_sparse or got.layout != torch.strided:
            return True
        return torch.allclose(got, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    if isinstance(expected, (bool, int, float, complex, str, bytes)):
        return repr(got) == repr(expected)
    return type(got) is type(expected)


def differences(bodies: list[str]) -> Iterator[str]:
    """The forwards that accelerating changes."""
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    for body in bodies:
        print(body, file=sys.stderr)  # the last one, where the process ends
        model = forward_of(body)
        for n in (2, torch.tensor(2)):
            expected = outcome(model, x, copy.copy(n))
            handle = vk.accelerate(model)
            got = outcome(model, x, copy.copy(n))
            handle.restore()
            if len(got) != len(expected) or not all(map(is_same, got, expected)):
                yield f"{body} with {n!r}: {got} instead of {expected}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    part, parts, size = map(int, sys.argv[1:])
    pool = list(generated())
    random.Random(0).shuffle(pool)
    bodies = [*WRITTEN, *pool[:size]]
    print(json.dumps(list(differences(bodies[part::parts]))))
