"""Read the kernels back from an exported file and check them: layers that may saturate, share of zeros."""

from collections.abc import Mapping

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import stem
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

LARGEST_PAIR = 128  # sum of two codes: 255 x 128 fits into 16 bits, 255 x 129 does not


def read_kernels(content: bytes, format_: str, network: Network) -> Arrays:
    """Return the kernels (height, width, in, out) of a file by layer: int8 codes, or floats.

    Args:
        content: a ``.tflite`` or ``.onnx`` file of this network.
        format_: ``tflite`` or ``onnx``.
        network: the architecture, with the layer names in the order of the file's convolutions.

    Raises:
        ModelError: kernels of other shapes than the network's, or a kernel that is not a constant.
    """
    kernels = {"tflite": _from_tflite, "onnx": _from_onnx}[format_](content)
    shapes = list(network.kernel_shapes.values())
    if kernels and kernels[0].dtype == np.int8 and stem.packs(network):
        rows, stride = format_ == "tflite", network.rows[0].stride
        if kernels[0].shape == stem.pack(np.zeros(shapes[0]), stride, rows=rows).shape:
            kernels[0] = stem.unpack(kernels[0], shapes[0], stride, rows=rows)
    if [kernel.shape for kernel in kernels] != shapes:
        raise ModelError(f"the {format_} file has kernels {[k.shape for k in kernels]}, its network expects {shapes}")
    return dict(zip(network.convolutions, kernels, strict=True))


def may_saturate(codes: Mapping[str, np.ndarray]) -> list[str]:
    """Return the layers whose sums may saturate on x86 CPUs without VNNI.

    On these CPUs, uint8 x int8 kernels add two products in int16 (``vpmaddubsw``). An activation is at most 255: two
    codes of the same sign overflow if their sum is above 128. Which codes form a pair depends on the implementation;
    this takes the two largest of each output channel. An empty list proves that all CPUs compute the same logits.

    Args:
        codes: int8 kernels (height, width, in, out) by layer.
    """
    layers = []
    for name, kernel in codes.items():
        columns = np.sort(kernel.reshape(-1, kernel.shape[-1]).astype(np.int64), axis=0)
        positive = np.maximum(columns[-2:], 0).sum(axis=0)
        negative = -np.minimum(columns[:2], 0).sum(axis=0)
        if max(positive.max(), negative.max()) > LARGEST_PAIR:
            layers.append(name)
    return layers


def zero_share(codes: Mapping[str, np.ndarray]) -> float:
    """Return the share of zeros among the weights of all kernels."""
    return float(sum(np.count_nonzero(kernel == 0) for kernel in codes.values()) / sum(k.size for k in codes.values()))


def _from_tflite(content: bytes) -> list[np.ndarray]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    kinds = [model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() for operator in operators]
    constants = {  # float16 input of a DEQUANTIZE, by its output tensor
        operator.Outputs(0): operator.Inputs(0)
        for operator, kind in zip(operators, kinds, strict=True)
        if kind == schema.BuiltinOperator.DEQUANTIZE
    }
    types = {
        schema.TensorType.INT8: np.int8,
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.FLOAT16: np.float16,
    }

    def constant(index: int) -> np.ndarray:
        tensor = graph.Tensors(constants.get(index, index))
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise ModelError(f"the TFLite file's kernel {tensor.Name()!r} is not a constant")
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
    kernels = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        name = node.input[1]
        if name in producers:  # DequantizeLinear of int8 codes, or Cast of float16
            name = producers[name].input[0]
        if name not in constants:
            raise ModelError(f"the ONNX file's kernel of {node.name} is not a constant")
        kernels.append(constants[name].transpose(2, 3, 1, 0))
    return kernels
