"""OpenVINO: opens ``.onnx`` files on the CPU (it reads TFLite from a path alone, never from checked bytes)."""

import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelError
from .patches import check_patches
from .runtimes import Operator

ONE_PATCH = (1, 96, 96, 3)
SHAPES_KEPT = 4  # a patch, a batch, a field and what is left of it; compiling takes a tenth of a second
FLOATS = ("f16", "bf16", "f32", "f64")
IN_FLOATS = {"LP_TRANSFORMS_MODE": "NO"}  # leave QuantizeLinear and its floats as they are: src/plugins/intel_cpu


def open_openvino(
    content: bytes, *, threads: int = 1, may_saturate: bool = False, stride_px: int = 1
) -> "OpenVINORunner":
    """A runner for the bytes of an ``.onnx`` file, on OpenVINO's CPU plug-in.

    Integers stay integers; what is float is computed in float32. ``may_saturate`` has the whole file computed in floats
    on x86 CPUs without VNNI, where its integer kernels would overflow 16 bits: slower, and right to a quantum.

    Raises:
        ModelError: not a file that OpenVINO can run.
    """
    import openvino

    release = openvino.__version__.split("-")[0]
    in_floats = may_saturate and not _adds_in_32_bits()
    return OpenVINORunner(_model(content), threads=threads, stride_px=stride_px, version=release, in_floats=in_floats)


def _adds_in_32_bits() -> bool:
    """Whether the kernels of this CPU add products of bytes in 32 bits: all but x86 without VNNI, as far as is known.

    Source: "Saturation (overflow) Issue Workaround" in OpenVINO's documentation.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"):
        return True
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in told or "avx_vnni" in told


def openvino_operators(content: bytes, *, may_saturate: bool = False) -> tuple[Operator, ...]:
    """The operators of the CPU plug-in's runtime graph that work on the patches.

    An operator is integer when its outputs and its ``runtimePrecision`` are (a float convolution may give integers).
    What constants alone feed, or the patches' shape alone, is left out: it is no part of the arithmetic. Each is named
    by kind and place, because OpenVINO's own names count on from model to model within a process.

    Raises:
        ModelError: see ``open_openvino``.
    """
    found: list[Operator] = []
    fed: set[str] = set()  # the nodes that the patches' values reach
    in_floats = may_saturate and not _adds_in_32_bits()
    compiled = _compiled(_model(content), ONE_PATCH, threads=1, in_floats=in_floats)
    for node in compiled.get_runtime_model().get_ordered_ops():
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


def _compiled(model: Any, shape: tuple[int, ...], *, threads: int, in_floats: bool) -> Any:
    import openvino

    model.reshape(list(shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", settings | (IN_FLOATS if in_floats else {}))


class OpenVINORunner:
    """A ``Runner`` over an OpenVINO model, compiled for each shape: faster than one compiled for all of them."""

    runtime = "openvino"

    def __init__(self, model: Any, *, threads: int, stride_px: int, version: str, in_floats: bool) -> None:
        self.version, self.kernels = version, "cpu plug-in, in floats" if in_floats else "cpu plug-in"
        self._in_floats = in_floats
        self._model, self._threads, self._stride_px = model, threads, stride_px
        self._turn = threading.Lock()  # a request holds one call's values
        self._requests: dict[tuple[int, ...], Any] = {}
        self._compile(ONE_PATCH)

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        patches = check_patches(patches, stride_px=self._stride_px)
        with self._turn:
            request = self._requests.get(patches.shape) or self._compile(patches.shape)
            logits: np.ndarray = request.infer([patches], share_inputs=True)[0]  # its outputs are copies
        return logits

    def _compile(self, shape: tuple[int, ...]) -> Any:
        while len(self._requests) >= SHAPES_KEPT:
            del self._requests[next(iter(self._requests))]
        compiled = _compiled(self._model, shape, threads=self._threads, in_floats=self._in_floats)
        self._requests[shape] = compiled.create_infer_request()
        return self._requests[shape]
