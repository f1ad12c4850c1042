"""Convert a network to a TFLite file with uint8 raw pixels as input and float32 tumour logits as output."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from histoedge.config import Precision
from histoedge.lab import backend, quantise, stem, weights
from histoedge.lab.architecture import Network

INPUT, OUTPUT = "patches", "tumour_logit"

Shape = tuple[int | None, int | None, int | None, int]  # of the input; None for a variable side


def convert(
    network: Network,
    arrays: Mapping[str, np.ndarray],
    *,
    precision: Precision,
    for_onnx: bool = False,
    packed: bool = True,
) -> bytes:
    """Return the bytes of the TFLite file; the same input gives the same bytes.

    Args:
        network: the architecture.
        arrays: ``layer/kernel`` and ``layer/bias``, folded; for int8 also ``layer/range``.
        precision: ``fp32``, ``int8``, or ``fp16``: weights stored as 16-bit floats, arithmetic in 32-bit floats.
        for_onnx: write the file that is converted to ONNX, with a variable batch or, for dense networks, variable
            sides: an interpreter cannot allocate these.
        packed: for int8, compute a first convolution with a stride over blocks of pixels (see ``stem``).
    """
    backend.tf_keras().backend.clear_session()  # resets the counters in layer names
    shape: Shape = (1, network.patch_px, network.patch_px, 3)
    if for_onnx:
        shape = (1, None, None, 3) if network.dense else (None, *shape[1:])
    if precision == "int8":
        return _integers(network, arrays, shape, packed=packed and stem.packs(network))
    tf = backend.tensorflow()
    model = _on_raw_pixels(network, arrays, shape)
    converter = _converter(lambda patches: model(patches, training=False), tf.uint8, shape, model)
    if precision == "fp16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return run_converter(converter)


def _integers(network: Network, arrays: Mapping[str, np.ndarray], shape: Shape, *, packed: bool) -> bytes:
    """Return the integer file: the deployed one, or with a variable shape the plain layout for conversion to ONNX."""
    tf = backend.tensorflow()
    deployed = None not in shape
    in_float = [quantise.float_key(node.name) in arrays for node in network.nodes]

    def answer(pixels: Any) -> Any:
        return quantise.simulate(network, arrays, pixels, packed=packed and deployed, mark=tf.floor)

    converter = _converter(answer, tf.float32, shape, tf.Module())
    if not all(in_float):  # a graph without any rounding would get rounded kernels
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if deployed or in_float[0]:
        content = run_converter(converter)
        return with_raw_input(_without_marks(content) if any(in_float) else content)
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    return _without_marks(run_converter(converter)) if any(in_float) else run_converter(converter)


def _converter(answer: Callable[[Any], Any], dtype: Any, shape: Shape, owner: Any) -> Any:
    tf = backend.tensorflow()
    spec = tf.TensorSpec(shape, dtype, name=INPUT)
    concrete = tf.function(lambda patches: {OUTPUT: answer(patches)}).get_concrete_function(spec)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], owner)


def run_converter(converter: Any) -> bytes:
    """Return the bytes that a converter of TensorFlow writes, without its log output."""
    with backend.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def with_raw_input(content: bytes) -> bytes:
    """Return the file with raw uint8 pixels as input and a DEQUANTIZE with scale 1/255 before its float input.

    The converter would insert a QUANTIZE from uint8 to int8. XNNPACK does not support it, and LiteRT computes it one
    value at a time on x86, which takes longer than any convolution of a small network. XNNPACK supports DEQUANTIZE
    and the QUANTIZE after it, and the codes are the same.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    (pixels,) = graph.inputs
    codes = schema.TensorT()
    codes.name, codes.type, codes.hasRank = INPUT.encode(), schema.TensorType.UINT8, True
    codes.shape, codes.shapeSignature = graph.tensors[pixels].shape, graph.tensors[pixels].shapeSignature
    codes.buffer = len(model.buffers)
    codes.quantization = schema.QuantizationParametersT()
    codes.quantization.scale = np.array([1 / 255], np.float32)
    codes.quantization.zeroPoint = np.array([0], np.int64)
    model.buffers.append(schema.BufferT())
    graph.tensors[pixels].name = b"pixels"
    graph.tensors.append(codes)
    index = len(graph.tensors) - 1
    kinds = [code.builtinCode for code in model.operatorCodes]
    if schema.BuiltinOperator.DEQUANTIZE not in kinds:  # all layers are in float
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
        code.version = 2
        kinds.append(code.builtinCode)
        model.operatorCodes.append(code)
    dequantise = schema.OperatorT()
    dequantise.opcodeIndex = kinds.index(schema.BuiltinOperator.DEQUANTIZE)  # the logit's
    dequantise.inputs, dequantise.outputs = np.array([index], np.int32), np.array([pixels], np.int32)
    graph.operators.insert(0, dequantise)
    graph.inputs = np.array([index], np.int32)
    for signature in model.signatureDefs or ():
        for entry in signature.inputs:
            entry.tensorIndex = index
    return _packed(model, len(content))


def _without_marks(content: bytes) -> bytes:
    """Return the file without its FLOOR operators, which ``_integers`` puts around the layers in float.

    The converter would quantise a layer between codes although its kernel is not rounded. FLOOR has no integer form, so
    that it leaves everything between two of them in float.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    kinds = [code.builtinCode for code in model.operatorCodes]
    mark = kinds.index(schema.BuiltinOperator.FLOOR)
    marks = [entry for entry in graph.operators if entry.opcodeIndex == mark]
    sources = {entry.outputs[0]: entry.inputs[0] for entry in marks}
    graph.operators = [entry for entry in graph.operators if entry.opcodeIndex != mark]
    for entry in graph.operators:
        entry.inputs = np.array([sources.get(index, index) for index in entry.inputs], np.int32)
        entry.opcodeIndex -= entry.opcodeIndex > mark
    model.operatorCodes.pop(mark)
    return _packed(model, len(content))


def _packed(model: Any, size: int) -> bytes:
    """Return the bytes of a model of the schema; ``size`` is about how many."""
    import flatbuffers

    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _on_raw_pixels(network: Network, arrays: Mapping[str, np.ndarray], shape: Shape) -> Any:
    """Return the folded network on uint8 pixels, with the division by 255 in the first kernel."""
    keras, tf = backend.tf_keras(), backend.tensorflow()
    folded = weights.build(keras, network, folded=True, field_px=shape[1])
    first = f"{network.convolutions[0]}/kernel"
    scaled = {**arrays, first: (arrays[first] / np.float32(255)).astype(np.float32)}
    weights.set_weights(folded, scaled, where=network.name)
    patches = keras.Input(shape[1:], dtype="uint8", name=INPUT)
    return keras.Model(patches, folded(tf.cast(patches, tf.float32)), name=OUTPUT)
