"""Activations of the convolutions of an int8 file, as codes 0 .. 255 with channels last for both formats.

Those of layers in float are float32, activated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from histoedge import edge
from histoedge.edge.errors import RuntimeUnavailable
from histoedge.lab import readback
from histoedge.lab.architecture import Network
from histoedge.lab.graph import KERNELS, Node


@dataclass(frozen=True)
class Opened:
    """An opened integer file: (quantum, zero point) by integer layer, and a function from patches to codes by layer."""

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
    return opener(content, [node for node in network.from_output() if node.row.kind in KERNELS])


def _open_tflite(content: bytes, nodes: Sequence[Node]) -> Opened:
    """Open with LiteRT and XNNPACK, as ``edge`` does: LiteRT's own kernels round differently, by up to 3 codes."""
    from ai_edge_litert.interpreter import Interpreter

    outputs = [operator.Outputs(0) for operator in readback.tflite_convolutions(content)]
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    layers = {node.name: index for node, index in zip(nodes, outputs, strict=True)}
    input_index = interpreter.get_input_details()[0]["index"]

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(input_index, patches.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(input_index, patches)
        interpreter.invoke()
        return {name: _shift_to_zero(interpreter.get_tensor(index)) for name, index in layers.items()}

    quanta = {}
    for name, index in layers.items():
        if tensors[index]["dtype"] != np.float32:
            quantum, zero = tensors[index]["quantization"]
            quanta[name] = (float(quantum), int(_shift_to_zero(np.asarray(zero, tensors[index]["dtype"]))))
    return Opened(quanta, codes)


def _open_onnx(content: bytes, nodes: Sequence[Node]) -> Opened:
    """Open with ONNX Runtime, which fuses each Conv with its QuantizeLinear although this is now a graph output."""
    import onnx

    from histoedge.edge import ort  # before onnxruntime, to switch its telemetry off

    import onnxruntime  # isort: skip

    model = onnx.load_from_string(content)
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    convolutions = [entry for entry in model.graph.node if entry.op_type == "Conv"]
    quantisers = {entry.input[0]: entry for entry in model.graph.node if entry.op_type == "QuantizeLinear"}
    types = {np.dtype(np.uint8): onnx.TensorProto.UINT8, np.dtype(np.int8): onnx.TensorProto.INT8}
    quanta, outputs = {}, []
    for node, convolution in zip(nodes, convolutions, strict=True):
        output, type_ = convolution.output[0], onnx.TensorProto.FLOAT
        if convolution.input[1] not in constants:  # the kernel is a DequantizeLinear of codes
            quantise = quantisers[output]
            quantum, zero = (constants[value] for value in quantise.input[1:])
            quanta[node.name] = (float(quantum), int(_shift_to_zero(zero)))
            output, type_ = quantise.output[0], types[zero.dtype]
        outputs.append(output)
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, type_, None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ort.EXACT_SUMS, "1")  # to measure rounding, not the saturation of this CPU
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    patches_name = model.graph.input[0].name

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        values = session.run(outputs, {patches_name: patches})
        last = [np.moveaxis(value, 1, -1) for value in values]
        return {
            node.name: _shift_to_zero(value) if node.name in quanta else _activated(node, value)
            for node, value in zip(nodes, last, strict=True)
        }

    return Opened(quanta, codes)


def _activated(node: Node, sums: np.ndarray) -> np.ndarray:
    """Return the sums of a convolution after its activation, an item of ``graph.FUSED``."""
    kind = node.row.activated_by
    return sums if kind == "none" else np.clip(sums, 0, 6 if kind == "relu6" else None)


def _shift_to_zero(codes: np.ndarray) -> np.ndarray:
    """Return codes from 0 on; floats as they are."""
    if codes.dtype.kind == "f":
        return codes
    return codes.astype(np.int16) - np.iinfo(codes.dtype).min


OPENERS: dict[str, tuple[str, Callable[[bytes, Sequence[Node]], Opened]]] = {
    "tflite": ("litert", _open_tflite),
    "onnx": ("onnxruntime", _open_onnx),
}
