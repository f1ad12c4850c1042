"""OpenVINO: opens ``.onnx`` files on the CPU (it reads TFLite from a path alone, never from checked bytes)."""

from typing import Any

import numpy as np

from . import Operator, check_patches
from .errors import ModelError

FLOATS = ("f16", "bf16", "f32", "f64")


def open_model(content: bytes, *, threads: int = 1, may_saturate: bool = False) -> "OpenVINORunner":
    """A runner for the bytes of an ``.onnx`` file, on OpenVINO's CPU plug-in, computing in float32.

    ``may_saturate`` changes nothing: OpenVINO has no option for exact sums.

    Raises:
        ModelError: not a file that OpenVINO can run.
    """
    import openvino

    return OpenVINORunner(_compiled(content, threads=threads), openvino.__version__.split("-")[0])


def operators(content: bytes) -> tuple[Operator, ...]:
    """The operators of the CPU plug-in's runtime graph that work on the patches.

    An operator is integer when its outputs and its ``runtimePrecision`` are (a float convolution may give integers).
    What constants alone feed, or the patches' shape alone, is left out: it is no part of the arithmetic. Each is named
    by kind and place, because OpenVINO's own names count on from model to model within a process.

    Raises:
        ModelError: see ``open_model``.
    """
    found: list[Operator] = []
    fed: set[str] = set()  # the nodes that the patches' values reach
    for node in _compiled(content, threads=1).get_runtime_model().get_ordered_ops():
        name, told = node.get_friendly_name(), node.get_rt_info()
        kind, precision = (told[key].astype(str) for key in ("layerType", "runtimePrecision"))
        sources = {node.input_value(at).get_node().get_friendly_name() for at in range(node.get_input_size())}
        if kind == "Input":
            fed.add(name)
        elif sources & fed and kind not in ("Output", "ShapeOf"):
            fed.add(name)
            outputs = [output.get_element_type() for output in node.outputs()]
            integer = precision not in FLOATS and not any(type_.is_real() for type_ in outputs)
            found.append(Operator(f"{kind}_{len(found)}", kind, integer))
    return tuple(found)


def _compiled(content: bytes, *, threads: int) -> Any:
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(content)
        shape = model.input(0).partial_shape
        if shape.is_static:
            shape[0] = -1
            model.reshape(shape)
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot open this file: {str(error).strip().splitlines()[-1]}") from error


class OpenVINORunner:
    """A ``Runner`` over one compiled OpenVINO model."""

    runtime = "openvino"
    kernels = "cpu plug-in"

    def __init__(self, compiled: Any, version: str) -> None:
        self.version = version
        self._request = compiled.create_infer_request()

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        results = self._request.infer([check_patches(patches)], share_inputs=True)
        return np.array(results[0])
