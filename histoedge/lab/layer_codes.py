"""Activations of the convolutions of an int8 file, as codes 0 .. 255 with channels last for both formats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from histoedge import edge
from histoedge.edge.errors import RuntimeUnavailable
from histoedge.lab import readback
from histoedge.lab.architecture import Network
from histoedge.lab.graph import KERNELS


@dataclass(frozen=True)
class Opened:
    """An opened integer file: (quantum, zero point) by layer, and a function from patches to codes by layer."""

    quanta: Mapping[str, tuple[float, int]]
    codes: Callable[[np.ndarray], dict[str, np.ndarray]]


def open_codes(content: bytes, format_: str, network: Network) -> Opened:
    """Open an int8 file of this network.

    Raises:
        RuntimeUnavailable: the extra ``lab`` is not installed.
    """
    runtime, opener = OPENERS[format_]
    if not edge.RUNTIMES[runtime].installed():
        raise RuntimeUnavailable(
            f"{format_} files require {runtime}, which is not installed: pip install 'histoedge[lab]'"
        )
    names = [node.name for node in network.from_output() if node.row.kind in KERNELS]
    return opener(content, names)


def _open_tflite(content: bytes, names: Sequence[str]) -> Opened:
    """Open with LiteRT and XNNPACK, as ``edge`` does: LiteRT's own kernels round differently, by up to 3 codes."""
    from ai_edge_litert.interpreter import Interpreter

    outputs = [operator.Outputs(0) for operator in readback.tflite_convolutions(content)]
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    layers = dict(zip(names, outputs, strict=True))
    input_index = interpreter.get_input_details()[0]["index"]

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(input_index, patches.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(input_index, patches)
        interpreter.invoke()
        return {name: _shift_to_zero(interpreter.get_tensor(index)) for name, index in layers.items()}

    quanta = {}
    for name, index in layers.items():
        quantum, zero = tensors[index]["quantization"]
        quanta[name] = (float(quantum), int(_shift_to_zero(np.asarray(zero, tensors[index]["dtype"]))))
    return Opened(quanta, codes)


def _open_onnx(content: bytes, names: Sequence[str]) -> Opened:
    """Open with ONNX Runtime, which fuses each Conv with its QuantizeLinear although this is now a graph output."""
    import onnx

    from histoedge.edge import ort  # before onnxruntime, to switch its telemetry off

    import onnxruntime  # isort: skip

    model = onnx.load_from_string(content)
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    quantisers = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    layers = {name: quantisers[output] for name, output in zip(names, outputs, strict=True)}
    types = {np.dtype(np.uint8): onnx.TensorProto.UINT8, np.dtype(np.int8): onnx.TensorProto.INT8}
    quanta = {}
    for name, node in layers.items():
        quantum, zero = (constants[value] for value in node.input[1:])
        quanta[name] = (float(quantum), int(_shift_to_zero(zero)))
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], types[zero.dtype], None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ort.EXACT_SUMS, "1")  # to measure rounding, not the saturation of this CPU
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    patches_name = model.graph.input[0].name

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        values = session.run([node.output[0] for node in layers.values()], {patches_name: patches})
        return {name: _shift_to_zero(np.moveaxis(value, 1, -1)) for name, value in zip(layers, values, strict=True)}

    return Opened(quanta, codes)


def _shift_to_zero(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.int16) - np.iinfo(codes.dtype).min


OPENERS: dict[str, tuple[str, Callable[[bytes, Sequence[str]], Opened]]] = {
    "tflite": ("litert", _open_tflite),
    "onnx": ("onnxruntime", _open_onnx),
}
