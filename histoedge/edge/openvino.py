"""OpenVINO: opens ``.onnx`` files on the CPU (it reads TFLite from a path alone, never from checked bytes)."""

import threading
from typing import Any

import numpy as np

from . import Operator
from .errors import ModelError
from .patches import check_patches

ONE_PATCH = (1, 96, 96, 3)
FLOATS = ("f16", "bf16", "f32", "f64")


def open_model(content: bytes, *, threads: int = 1, may_saturate: bool = False, stride_px: int = 1) -> "OpenVINORunner":
    """A runner for the bytes of an ``.onnx`` file, on OpenVINO's CPU plug-in, computing in float32.

    ``may_saturate`` changes nothing: OpenVINO has no option for exact sums.

    Raises:
        ModelError: not a file that OpenVINO can run.
    """
    import openvino

    release = openvino.__version__.split("-")[0]
    return OpenVINORunner(_model(content), threads=threads, stride_px=stride_px, version=release)


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
    for node in _compiled(_model(content), ONE_PATCH, threads=1).get_runtime_model().get_ordered_ops():
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


def _model(content: bytes) -> Any:
    import openvino

    try:
        model = openvino.Core().read_model(content)
        _quantise_pixels(model)
        model.reshape(list(ONE_PATCH))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot open this file: {str(error).strip().splitlines()[-1]}") from error
    return model


def _quantise_pixels(model: Any) -> None:
    """Say that the pixels are quantised, in the form that the plug-in knows: else the first convolution is in floats.

    It fuses FakeQuantize, but not the DequantizeLinear (Convert, Subtract 0, Multiply) of a model's own uint8 input.
    Both give pixel x scale.
    """
    from openvino import opset13 as operators

    def reader(node: Any, *kinds: str) -> Any:
        readers = [target.get_node() for target in node.output(0).get_target_inputs()]
        return readers[0] if len(readers) == 1 and readers[0].get_type_name() in kinds else None

    end = model.get_parameters()[0]
    while (moved := reader(end, "Reshape", "Transpose")) is not None:
        end = moved
    convert = reader(end, "Convert")
    if convert is None:
        return
    zero = reader(convert, "Subtract")
    multiply = reader(zero or convert, "Multiply")
    if multiply is None or (zero is not None and np.any(_constant(zero))):
        return
    scale = _constant(multiply)
    if scale is None or scale.size != 1:
        return
    codes = np.float32(0), np.float32(255)
    values = np.float32(0), np.float32(255) * np.float32(scale.item())
    quantised = operators.fake_quantize(operators.convert(end, "f32"), *codes, *values, 256)
    for target in multiply.output(0).get_target_inputs():
        target.replace_source_output(quantised.output(0))


def _constant(node: Any) -> np.ndarray | None:
    """The constant second input of a node, whatever converts it on its way; None when it is computed."""
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Reshape"):
        source = source.input_value(0).get_node()
    return np.asarray(source.data) if source.get_type_name() == "Constant" else None


def _compiled(model: Any, shape: tuple[int, ...], *, threads: int) -> Any:
    import openvino

    model.reshape(list(shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", settings)


class OpenVINORunner:
    """A ``Runner`` over an OpenVINO model, compiled for each new shape: faster than one compiled for all shapes."""

    runtime = "openvino"
    kernels = "cpu plug-in"

    def __init__(self, model: Any, *, threads: int, stride_px: int, version: str) -> None:
        self.version = version
        self._model, self._threads, self._stride_px = model, threads, stride_px
        self._turn = threading.Lock()  # a request holds one call's values
        self._compile(ONE_PATCH)

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        patches = check_patches(patches, stride_px=self._stride_px)
        with self._turn:
            if patches.shape != self._shape:
                self._compile(patches.shape)
            logits: np.ndarray = self._request.infer([patches], share_inputs=True)[0]  # its outputs are copies
        return logits

    def _compile(self, shape: tuple[int, ...]) -> None:
        self._request = _compiled(self._model, shape, threads=self._threads).create_infer_request()
        self._shape = shape
