"""``vk.graph``: a model's inference as a CUDA graph, with new noise at each replay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from vaekernels.backends import registry
from vaekernels.ops._precision import conv_precision
from vaekernels.ops._seed import seed_tensor
from vaekernels.utils import tree

_WARMUP_CALLS = 3  # before the capture, in which libraries cannot autotune nor Triton compile


def graph(model: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Graph:
    """Record ``model(*args, **kwargs)`` as a CUDA graph, and replay it at each call.

    .. code-block:: python

        decode = vk.graph(vae.decode, latents)  # recorded
        images = decode(latents).sample
        more = decode(other_latents).sample  # another shape is recorded at its first call

    Equivalent PyTorch: ``torch.cuda.CUDAGraph`` with a buffer for each argument; a call copies its
    arguments to the buffers and replays the graph. The host time of a call does not depend on the
    number of kernels.

    Args:
        model: a module, one of its methods or another function. It must not synchronise with the
            device. No gradients are recorded. Parameters are read at their addresses: they may be
            modified in place, and after a move the next call records again. Python code of the
            model, such as hooks, runs only when the model is recorded.
        args: example arguments, with all tensors on one CUDA device. Without example arguments
            nothing is recorded yet.
        kwargs: example keyword arguments. A ``seed``, an integer or a tensor, is copied to the
            device at each call; all other arguments that are not tensors are constants of the
            recording.

    Returns:
        A :class:`Graph`, which is called like ``model``.

    Raises:
        TypeError: ``model`` is not callable, or its result contains objects that cannot be copied.
        ValueError: no tensor is on a CUDA device, or one is on another device.
        RuntimeError: the model cannot be recorded.

    Noise: without ``seed`` each call draws a seed on the device, from the default generator or from
    a ``generator`` on that device. Every replay therefore has new noise, and ``torch.manual_seed``
    is honoured. With ``seed`` a call has the noise of that seed
    (``docs/noise.md``), as outside of the graph.
    """
    if not callable(model):
        raise TypeError(f"graph: model must be a module or a function; got {type(model).__name__}")
    made = Graph(model, CudaRecorder())
    return made.record(*args, **kwargs) if args or kwargs else made


class Graph:
    """A function as CUDA graphs, one for each signature of a call; see :func:`graph`.

    The signature consists of the shapes and dtypes of the tensors, the other arguments, the mode of
    the module and of each submodule, the addresses of their parameters and buffers, and the
    settings that select kernels: autocast, the precision of convolutions, the backend, and
    ``torch.backends``. A signature is recorded at its first call, or by :meth:`record`. All
    recordings share their scratch memory. A call returns new tensors. Only one stream may call at
    a time.

    Args:
        function: the function that is recorded.
        recorder: records and replays it.
    """

    def __init__(self, function: Callable[..., Any], recorder: CudaRecorder) -> None:
        self._function = function
        self._recorder = recorder
        self._recordings: dict[Hashable, Recording] = {}

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the function for these arguments."""
        arguments = self._flatten_arguments(args, kwargs)
        recording = self._recording(arguments)
        for buffer, value in zip(recording.inputs, arguments.tensors, strict=True):
            buffer.copy_(value, non_blocking=True)
        recording.replay()
        return map_tensors(recording.result, Tensor.clone)

    @torch.no_grad()
    def record(self, *args: Any, **kwargs: Any) -> Graph:
        """Record the signature of these arguments if necessary; returns the graph itself."""
        self._recording(self._flatten_arguments(args, kwargs))
        return self

    def __len__(self) -> int:
        """The number of recordings."""
        return len(self._recordings)

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"<Graph of {name}: {len(self)} recordings>"

    def _flatten_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Arguments:
        seed = kwargs.get("seed")
        if seed is not None:
            kwargs = {**kwargs, "seed": seed_tensor("graph", seed, None, torch.device("cpu"))}
        leaves, spec = tree_flatten((args, kwargs))
        return _Arguments(leaves, spec, None if seed is None else kwargs["seed"])

    def _recording(self, arguments: _Arguments) -> Recording:
        key = _module_state(_owner(self._function)), _settings(), arguments.key()
        if key not in self._recordings:
            self._recordings[key] = self._record(arguments)
        return self._recordings[key]

    def _record(self, arguments: _Arguments) -> Recording:
        device = self._recorder.device_of(self._function, arguments)
        # The buffers have the memory format of the first call.
        inputs = [
            torch.empty_like(tensor, device=device).copy_(tensor) for tensor in arguments.tensors
        ]
        args, kwargs = arguments.with_tensors(inputs)

        def call() -> Any:
            return self._function(*args, **kwargs)

        replay, result = self._recorder.record(call, device, arguments.generators)
        map_tensors(result, lambda tensor: tensor)  # raises if it cannot be copied
        return Recording(inputs, replay, result)


class Recording(NamedTuple):
    """The recording of one signature.

    Attributes:
        inputs: the buffers that a replay reads.
        replay: launches the recording.
        result: the result of the recorded call, whose tensors a replay writes.
    """

    inputs: Sequence[Tensor]
    replay: Callable[[], None]
    result: Any


class CudaRecorder:
    """Records with ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self._pool: Any = None  # memory that is used only during a replay

    def device_of(self, function: Callable[..., Any], arguments: _Arguments) -> torch.device:
        """The CUDA device of all tensors, or of the module if there are none.

        Raises:
            ValueError: there is no tensor and no module, or one is on another device.
        """
        placed: list[Tensor] = [
            tensor for tensor in arguments.tensors if tensor is not arguments.seed
        ]
        if not placed:
            owner = _owner(function)
            placed += list(owner.parameters())[:1] if isinstance(owner, nn.Module) else []
        if not placed:
            raise ValueError("graph: expected a tensor or a module on a CUDA device; got neither")
        device = placed[0].device
        for index, tensor in enumerate(placed):
            if tensor.device.type != "cuda" or tensor.device != device:
                expected = device if device.type == "cuda" else "a CUDA device"
                raise ValueError(
                    f"graph: expected every tensor on {expected}; got tensor {index} of the "
                    f"arguments, {tuple(tensor.shape)}, on {tensor.device}"
                )
        for generator in arguments.generators:
            if generator.device.type != "cuda":
                raise ValueError(
                    f"graph: expected a generator on {device}, which draws anew at each replay; "
                    f"got one on {generator.device} (seed= takes an integer from anywhere)"
                )
        return device

    def record(
        self,
        call: Callable[[], Any],
        device: torch.device,
        generators: Sequence[torch.Generator],
    ) -> tuple[Callable[[], None], Any]:
        """Call a few times to warm up, then capture a call.

        Args:
            call: the function that is recorded.
            device: the device that it runs on.
            generators: the generators that it uses besides the default one.

        Returns:
            A function that replays the recording, and the result that each replay overwrites.

        Raises:
            RuntimeError: the call cannot be captured.
        """
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARMUP_CALLS):
                    call()
            torch.cuda.current_stream().wait_stream(stream)
            recorded = torch.cuda.CUDAGraph()
            for generator in generators:
                recorded.register_generator_state(generator)
            try:
                with torch.cuda.graph(recorded, pool=self._pool, stream=stream):
                    result = call()
            except RuntimeError as failure:
                raise RuntimeError(
                    "graph: the model ran and could not be recorded; a recorded model must not "
                    f"synchronise with the device, as .item() and .cpu() do: {failure}"
                ) from failure
            self._pool = recorded.pool()
        return recorded.replay, result


class _Arguments(NamedTuple):
    """The flattened arguments of a call."""

    leaves: list[Any]
    spec: TreeSpec
    seed: Tensor | None

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def generators(self) -> list[torch.Generator]:
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Generator)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with ``tensors`` in place of their tensors."""
        others = iter(tensors)
        leaves = [next(others) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return args, kwargs

    def key(self) -> Hashable:
        """A key that is equal for calls with the same signature."""
        leaves = tuple(self._key(leaf) for leaf in self.leaves)
        return repr(self.spec), leaves  # specs may not be hashable

    def _key(self, leaf: Any) -> Hashable:
        if leaf is self.seed and leaf is not None:
            return "seed"  # independent of its device
        if isinstance(leaf, Tensor):
            return leaf.shape, leaf.dtype, leaf.device
        try:
            hash(leaf)
        except TypeError:
            raise TypeError(
                "graph: an argument that is no tensor must be hashable, as it is a constant of "
                f"the recording; got {type(leaf).__name__}"
            ) from None
        return type(leaf), leaf  # 1 is not True, nor 1.0


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Copy ``value`` and apply ``change`` to its tensors, once to each distinct tensor.

    Supports tuples, lists, dicts, dataclasses and objects whose attributes are such values, as
    :class:`vk.DiagonalGaussian`.

    Raises:
        TypeError: ``value`` contains another kind of object.
    """
    changed: dict[int, Tensor] = {}

    def change_once(path: str, tensor: Tensor) -> Tensor:
        if id(tensor) not in changed:
            changed[id(tensor)] = change(tensor)
        return changed[id(tensor)]

    def other(value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
            return value
        if hasattr(value, "__dict__") and not isinstance(value, nn.Module) and not callable(value):
            made = copy.copy(value)
            vars(made).update(tree.map_tensors(vars(value), change_once, other))
            return made
        raise TypeError(
            "graph: a result must be tensors, in tuples, lists, dicts or objects of such; "
            f"got {type(value).__name__}"
        )

    return tree.map_tensors(value, change_once, other)


def _owner(function: Callable[..., Any]) -> Any:
    """The module itself, or the object of a bound method."""
    return function if isinstance(function, nn.Module) else getattr(function, "__self__", None)


def _module_state(owner: Any) -> Hashable:
    """The mode of every module in ``owner`` and the addresses of its tensors."""
    if not isinstance(owner, nn.Module):
        return getattr(owner, "training", None)
    return tuple(
        (
            id(module),
            module.training,
            *(t.data_ptr() for t in module._parameters.values() if t is not None),
            *(t.data_ptr() for t in module._buffers.values() if t is not None),
        )
        for module in owner.modules()
    )


def _settings() -> Hashable:
    """The global settings that affect which kernels a function launches."""
    backends: Any = torch.backends
    cudnn, cuda, deterministic = backends.cudnn, backends.cuda, torch.utils.deterministic
    return (
        *((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cuda", "cpu")),
        conv_precision("graph", None),
        registry.requested(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        # Reading the older allow_tf32 raises if convolutions and recurrent networks differ.
        backends.fp32_precision,
        cudnn.conv.fp32_precision,
        cudnn.rnn.fp32_precision,
        cuda.matmul.fp32_precision,
        cuda.matmul.allow_fp16_reduced_precision_reduction,
        cuda.matmul.allow_bf16_reduced_precision_reduction,
        cuda.matmul.allow_fp16_accumulation,
        (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()),
        (cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()),
        cuda.fp16_bf16_reduction_math_sdp_allowed(),
        str(cuda.preferred_blas_library()),
    )
