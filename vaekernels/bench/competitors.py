"""Other engines for inference on CPU, as far as they are installed: the extra ``bench``.

Each takes a model and an example of its input, and returns a function that computes the same result
with as many threads as PyTorch.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Engine = Callable[[Tensor], Tensor]


def onnxruntime(model: nn.Module, example: Tensor, folder: Path) -> Engine:
    """ONNX Runtime, all graph optimisations."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    path = str(_onnx(model, example, folder))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def openvino(model: nn.Module, example: Tensor, folder: Path) -> Engine:
    """OpenVINO, float32, tuned for latency."""
    ov = importlib.import_module("openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    converted = ov.convert_model(model, example_input=example, input=list(example.shape))
    request = ov.compile_model(converted, "CPU", settings).create_infer_request()
    return lambda x: torch.from_numpy(request.infer([x.numpy()])[0])


def mnn(model: nn.Module, example: Tensor, folder: Path) -> Engine:
    """MNN, float32 ("high" precision: its default may be lower)."""
    engine = importlib.import_module("MNN")
    source, target = _onnx(model, example, folder), folder / "model.mnn"
    convert = Path(sys.executable).parent / "mnnconvert"
    command = [
        str(convert),
        "-f",
        "ONNX",
        "--modelFile",
        str(source),
        "--MNNModel",
        str(target),
        "--bizCode",
        "x",
    ]
    subprocess.run(command, check=True, capture_output=True)
    settings = {"backend": "CPU", "precision": "high", "numThread": torch.get_num_threads()}
    runtime = engine.nn.create_runtime_manager((settings,))
    module = engine.nn.load_module_from_file(str(target), ["x"], ["y"], runtime_manager=runtime)

    def run(x: Tensor) -> Tensor:
        given = engine.expr.const(x.numpy(), list(x.shape), engine.expr.NCHW, engine.expr.float)
        result = module.onForward([engine.expr.convert(given, engine.expr.NC4HW4)])[0]
        return torch.from_numpy(engine.expr.convert(result, engine.expr.NCHW).read().copy())

    return run


def ncnn(model: nn.Module, example: Tensor, folder: Path) -> Engine:
    """ncnn, converted by pnnx, float32 storage and arithmetic."""
    pnnx, engine = importlib.import_module("pnnx"), importlib.import_module("ncnn")
    source = folder / "model.pt"
    torch.jit.trace(model, example).save(str(source))
    shape = "[" + ",".join(map(str, example.shape)) + "]"
    # Not pnnx.export: it imports the Python that pnnx writes, whose names are not always valid.
    command = [pnnx.EXEC_PATH, str(source), f"inputshape={shape}f32", "fp16=0"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    net = engine.Net()
    net.opt.num_threads = torch.get_num_threads()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    for load, name in ((net.load_param, "param"), (net.load_model, "bin")):
        if load(str(folder / f"model.ncnn.{name}")) != 0:
            raise RuntimeError(f"ncnn could not read what pnnx converted ({name})")

    def run(x: Tensor) -> Tensor:
        extractor = net.create_extractor()
        extractor.input("in0", engine.Mat(x[0].numpy()).clone())  # of its own memory
        return torch.from_numpy(np.array(extractor.extract("out0")[1]))[None]

    return run


ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino, "mnn": mnn, "ncnn": ncnn}


def _onnx(model: nn.Module, example: Tensor, folder: Path) -> Path:
    path = folder / "model.onnx"
    if not path.exists():
        torch.onnx.export(
            model,
            (example,),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
        )
    return path
