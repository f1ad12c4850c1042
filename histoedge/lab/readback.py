"""Read the kernels back from an exported file and check them: layers that may saturate, share of zeros."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import graph, stem
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

LARGEST_PAIR = 128  # sum of two codes: 255 x 128 fits into 16 bits, 255 x 129 does not


def read_kernels(content: bytes, format_: str, network: Network) -> Arrays:
    """Return the kernels (height, width, in, out) of a file by layer: int8 codes, or floats; a file may have both.

    Args:
        content: a ``.tflite`` or ``.onnx`` file of this network.
        format_: ``tflite`` or ``onnx``.
        network: the architecture.

    Raises:
        ModelError: kernels of other shapes than the network's, or a kernel that is not a constant.
    """
    kernels = {"tflite": _from_tflite, "onnx": _from_onnx}[format_](content)
    nodes = [node for node in network.from_output() if node.row.kind in graph.KERNELS]
    shapes = [node.kernel_shape for node in nodes]
    if kernels and kernels[0].dtype == np.int8 and stem.packs(network):
        rows, stride = format_ == "tflite", network.rows[0].stride
        if kernels[0].shape == stem.pack(np.zeros(shapes[0]), stride, rows=rows).shape:
            kernels[0] = stem.unpack(kernels[0], shapes[0], stride, rows=rows)
    if [kernel.shape for kernel in kernels] != shapes:
        raise ModelError(f"the {format_} file has kernels {[k.shape for k in kernels]}, its network expects {shapes}")
    by_name = {node.name: kernel for node, kernel in zip(nodes, kernels, strict=True)}
    return {name: by_name[name] for name in network.convolutions}


def may_saturate(codes: Mapping[str, np.ndarray]) -> list[str]:
    """Return the layers whose sums may saturate on x86 CPUs without VNNI.

    On these CPUs, uint8 x int8 kernels add two products in int16 (``vpmaddubsw``). An activation is at most 255: two
    codes of the same sign overflow if their sum is above 128. Which codes form a pair depends on the implementation;
    this takes the two largest of each output channel. An empty list proves that all CPUs compute the same logits.

    Args:
        codes: kernels (height, width, in, out) by layer, without depthwise ones: kernels for these add in 32 bits
            (MLAS's ``ConvSymDepthwise`` and ``qdwconv``). Float kernels have no such sums.
    """
    layers = []
    for name, kernel in codes.items():
        if kernel.dtype.kind == "f":
            continue
        columns = np.sort(kernel.reshape(-1, kernel.shape[-1]).astype(np.int64), axis=0)
        positive = np.maximum(columns[-2:], 0).sum(axis=0)
        negative = -np.minimum(columns[:2], 0).sum(axis=0)
        if max(positive.max(), negative.max()) > LARGEST_PAIR:
            layers.append(name)
    return layers


def zero_share(codes: Mapping[str, np.ndarray]) -> float:
    """Return the share of zeros among the weights of all kernels."""
    size = sum(kernel.size for kernel in codes.values())
    return float(sum(np.count_nonzero(kernel == 0) for kernel in codes.values()) / max(size, 1))


def tflite_graph(content: bytes) -> tuple[Any, Any, Any]:
    """Return the schema of TFLite files, and the model and the graph of this file as objects of it."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    return schema, model, model.Subgraphs(0)


def tflite_convolutions(content: bytes) -> list[Any]:
    """Return the convolutions of a TFLite file, depthwise ones too, in the order of ``Network.from_output``.

    The items are ``Operator`` objects of the schema; ``Inputs(1)`` is the index of the kernel.
    """
    schema, model, subgraph = tflite_graph(content)
    operators = [subgraph.Operators(number) for number in range(subgraph.OperatorsLength())]
    producers = {str(operator.Outputs(0)): operator for operator in operators}
    inputs = {
        name: tuple(str(operator.Inputs(place)) for place in range(operator.InputsLength()))
        for name, operator in producers.items()
    }
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    order = [producers[name] for name in graph.from_output(inputs, str(subgraph.Outputs(0)))]
    return [entry for entry in order if model.OperatorCodes(entry.OpcodeIndex()).BuiltinCode() in kinds]


def _from_tflite(content: bytes) -> list[np.ndarray]:
    schema, model, subgraph = tflite_graph(content)
    operators = [subgraph.Operators(number) for number in range(subgraph.OperatorsLength())]
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

    def kernel(operator: Any) -> np.ndarray:
        index = operator.Inputs(1)
        tensor = subgraph.Tensors(constants.get(index, index))
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise ModelError(f"the TFLite file's kernel {tensor.Name()!r} is not a constant")
        shaped = data.view(types[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
        depthwise = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() != schema.BuiltinOperator.CONV_2D
        return shaped.transpose((1, 2, 0, 3) if depthwise else (1, 2, 3, 0))

    return [kernel(operator) for operator in tflite_convolutions(content)]


def _from_onnx(content: bytes) -> list[np.ndarray]:
    import onnx

    nodes = onnx.load_from_string(content).graph
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in nodes.initializer}
    producers = {output: node for node in nodes.node for output in node.output}
    kernels = []
    for node in nodes.node:  # in the order of ``graph.from_output``, see ``to_onnx.canonicalise``
        if node.op_type != "Conv":
            continue
        name = node.input[1]
        if name in producers:  # DequantizeLinear of int8 codes, or Cast of float16
            name = producers[name].input[0]
        if name not in constants:
            raise ModelError(f"the ONNX file's kernel of {node.name} is not a constant")
        kernels.append(constants[name].transpose(2, 3, 1, 0))
    return kernels
