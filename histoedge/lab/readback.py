"""The kernels as an exported file holds them, whatever the weights were meant to be, and what can be proved of them."""

from collections.abc import Mapping

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import stem
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

LARGEST_PAIR = 128  # codes; 255 x 128 fits 16 bits, 255 x 129 does not


def kernels(content: bytes, format_: str, network: Network) -> Arrays:
    """The kernel (height, width, in, out) of every convolution in a file: int8 codes, or floats.

    Args:
        content: a ``.tflite`` or ``.onnx`` file of this network.
        format_: which of the two.
        network: names the layers, in the order of the file's convolutions.

    Raises:
        ModelError: other convolutions than the network's, or a kernel that is no constant.
    """
    found = {"tflite": _from_tflite, "onnx": _from_onnx}[format_](content)
    shapes = list(network.kernel_shapes.values())
    if found and found[0].dtype == np.int8 and stem.packs(network):
        rows, stride = format_ == "tflite", network.rows[0].stride
        if found[0].shape == stem.pack(np.zeros(shapes[0]), stride, rows=rows).shape:
            found[0] = stem.unpack(found[0], shapes[0], stride, rows=rows)
    if [kernel.shape for kernel in found] != shapes:
        raise ModelError(f"the {format_} file holds kernels {[k.shape for k in found]}, its network expects {shapes}")
    return dict(zip(network.convolutions, found, strict=True))


def may_saturate(codes: Mapping[str, np.ndarray]) -> list[str]:
    """The layers whose sums may saturate on x86 CPUs without VNNI; none is a proof that every CPU answers alike.

    There, uint8 x int8 kernels add two products in int16 (``vpmaddubsw``). An activation is at most 255, so two codes
    of one sign overflow when they add up to more than 128; which two meet depends on the kernel, so the largest two of
    each output channel are taken.

    Args:
        codes: int8 kernels (height, width, in, out) by layer.
    """
    found = []
    for name, kernel in codes.items():
        columns = np.sort(kernel.reshape(-1, kernel.shape[-1]).astype(np.int64), axis=0)
        positive = np.maximum(columns[-2:], 0).sum(axis=0)
        negative = -np.minimum(columns[:2], 0).sum(axis=0)
        if max(positive.max(), negative.max()) > LARGEST_PAIR:
            found.append(name)
    return found


def zeros(codes: Mapping[str, np.ndarray]) -> float:
    """The share of zeros among all weights of all kernels."""
    return float(sum(np.count_nonzero(kernel == 0) for kernel in codes.values()) / sum(k.size for k in codes.values()))


def _from_tflite(content: bytes) -> list[np.ndarray]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    kinds = [model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() for operator in operators]
    constants = {  # what a DEQUANTIZE of a float16 constant gives, by tensor
        operator.Outputs(0): operator.Inputs(0)
        for operator, kind in zip(operators, kinds, strict=True)
        if kind == schema.BuiltinOperator.DEQUANTIZE
    }
    types = {
        schema.TensorType.INT8: np.int8,
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.FLOAT16: np.float16,
    }

    def constant(place: int) -> np.ndarray:
        tensor = graph.Tensors(constants.get(place, place))
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise ModelError(f"the TFLite file's kernel {tensor.Name()!r} is no constant")
        return data.view(types[tensor.Type()]).reshape(tensor.ShapeAsNumpy()).transpose(1, 2, 3, 0)

    return [
        constant(operator.Inputs(1))
        for operator, kind in zip(operators, kinds, strict=True)
        if kind == schema.BuiltinOperator.CONV_2D
    ]


def _from_onnx(content: bytes) -> list[np.ndarray]:
    import onnx

    graph = onnx.load_from_string(content).graph
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    found = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        name = node.input[1]
        if name in producers:  # DequantizeLinear of codes, or Cast of float16
            name = producers[name].input[0]
        if name not in constants:
            raise ModelError(f"the ONNX file's kernel of {node.name} is no constant")
        found.append(constants[name].transpose(2, 3, 1, 0))
    return found
