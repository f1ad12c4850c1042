"""OpenVINO: opens ``.onnx`` files on the CPU (it reads TFLite only from a path, not from checked bytes)."""

import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelError
from .patches import PATCH_PX, check_patches
from .runtimes import Operator

SHAPES_CACHED = 4  # a patch, a batch, a field and the last, smaller field; compiling takes a tenth of a second
FLOATS = ("f16", "bf16", "f32", "f64")
IN_FLOATS = {"LP_TRANSFORMS_MODE": "NO"}  # compute QuantizeLinear in floats: src/plugins/intel_cpu


def open_openvino(
    content: bytes, *, threads: int = 1, may_saturate: bool = False, stride_px: int = 1, patch_px: int = PATCH_PX
) -> "OpenVINORunner":
    """Return a runner for the bytes of an ``.onnx`` file, on OpenVINO's CPU plug-in.

    Integer operators are computed in integers, float operators in float32. With ``may_saturate``, x86 CPUs without
    VNNI, whose integer kernels would overflow 16 bits, compute the whole file in floats: slower, and correct to one
    quantum.

    Raises:
        ModelError: OpenVINO cannot run this file.
    """
    import openvino

    release = openvino.__version__.split("-")[0]
    in_floats = may_saturate and not _sums_in_32_bits()
    settings: dict[str, Any] = {"threads": threads, "version": release, "in_floats": in_floats}
    return OpenVINORunner(_model(content, patch_px), stride_px=stride_px, patch_px=patch_px, **settings)


def _sums_in_32_bits() -> bool:
    """Whether this CPU's kernels sum products of bytes in 32 bits: all CPUs except x86 without VNNI.

    Source: "Saturation (overflow) Issue Workaround" in OpenVINO's documentation.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"):
        return True
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in cpuinfo or "avx_vnni" in cpuinfo


def openvino_operators(content: bytes, *, may_saturate: bool = False, patch_px: int = PATCH_PX) -> tuple[Operator, ...]:
    """Return the operators of the CPU plug-in's runtime graph that process the patches.

    An operator is integer when its outputs and its ``runtimePrecision`` are (a float convolution may return integers).
    Operators that only depend on constants or on the patches' shape are left out: they are no part of the arithmetic.
    The name is kind and position: OpenVINO's own names contain a counter that continues from model to model in a
    process.

    Raises:
        ModelError: see ``open_openvino``.
    """
    operators: list[Operator] = []
    reached: set[str] = set()  # names of the nodes that depend on the patches' values
    in_floats = may_saturate and not _sums_in_32_bits()
    model = _model(content, patch_px)
    compiled = _compiled(model, (1, patch_px, patch_px, 3), threads=1, in_floats=in_floats)
    for node in compiled.get_runtime_model().get_ordered_ops():
        name, info = node.get_friendly_name(), node.get_rt_info()
        kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        sources = {node.input_value(at).get_node().get_friendly_name() for at in range(node.get_input_size())}
        if kind == "Input":
            reached.add(name)
        elif sources & reached and kind not in ("Output", "ShapeOf"):
            reached.add(name)
            outputs = [output.get_element_type() for output in node.outputs()]
            integer = precision not in FLOATS and not any(type_.is_real() for type_ in outputs)
            operators.append(Operator(f"{kind}_{len(operators)}", kind, integer))
    return tuple(operators)


def _model(content: bytes, patch_px: int) -> Any:
    import openvino

    try:
        model = openvino.Core().read_model(content)
        _quantise_pixels(model)
        model.reshape([1, patch_px, patch_px, 3])
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot open this file: {str(error).strip().splitlines()[-1]}") from error
    return model


def _quantise_pixels(model: Any) -> None:
    """Replace the pixels' DequantizeLinear by FakeQuantize, or the plug-in computes the first convolution in floats.

    The plug-in fuses FakeQuantize, but not DequantizeLinear (Convert, Subtract 0, Multiply) on a uint8 input.
    Both compute pixel x scale.
    """
    from openvino import opset13 as operators

    def consumer(node: Any, *kinds: str) -> Any:
        consumers = [target.get_node() for target in node.output(0).get_target_inputs()]
        return consumers[0] if len(consumers) == 1 and consumers[0].get_type_name() in kinds else None

    end = model.get_parameters()[0]
    while (layout := consumer(end, "Reshape", "Transpose")) is not None:
        end = layout
    convert = consumer(end, "Convert")
    if convert is None:
        return
    zero = consumer(convert, "Subtract")
    multiply = consumer(zero or convert, "Multiply")
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
    """Return the constant second input of a node, before any Convert or Reshape; None when it is computed."""
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

    def __init__(
        self, model: Any, *, threads: int, stride_px: int, patch_px: int, version: str, in_floats: bool
    ) -> None:
        self.version, self.kernels = version, "cpu plug-in, in floats" if in_floats else "cpu plug-in"
        self._in_floats = in_floats
        self._model, self._threads, self._stride_px, self._patch_px = model, threads, stride_px, patch_px
        self._lock = threading.Lock()  # a request stores the values of one call
        self._requests: dict[tuple[int, ...], Any] = {}
        self._compile((1, patch_px, patch_px, 3))

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return the logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels.

        Raises:
            ModelError: the file cannot compute an array of this shape.
        """
        patches = check_patches(patches, patch_px=self._patch_px, stride_px=self._stride_px)
        with self._lock:
            request = self._requests.get(patches.shape) or self._compile(patches.shape)
            logits: np.ndarray = request.infer([patches], share_inputs=True)[0]  # outputs are copies
        return logits

    def _compile(self, shape: tuple[int, ...]) -> Any:
        while len(self._requests) >= SHAPES_CACHED:
            del self._requests[next(iter(self._requests))]
        try:
            compiled = _compiled(self._model, shape, threads=self._threads, in_floats=self._in_floats)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"OpenVINO cannot run this file on pixels of shape {shape}: {reason}") from error
        self._requests[shape] = compiled.create_infer_request()
        return self._requests[shape]
