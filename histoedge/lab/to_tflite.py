"""A network to the bytes of a TFLite file: uint8 raw pixels in, float32 tumour logits out."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from histoedge.config import Precision
from histoedge.lab import backend, quantise, stem, weights
from histoedge.lab.architecture import PATCH_PX, Network

INPUT, OUTPUT = "patches", "tumour_logit"


def convert(
    network: Network,
    arrays: Mapping[str, np.ndarray],
    *,
    precision: Precision,
    field_px: int | None = PATCH_PX,
    packed: bool = True,
) -> bytes:
    """The file for folded weights; the same input gives the same bytes.

    Args:
        network: the architecture.
        arrays: ``layer/kernel`` and ``layer/bias``; for int8 also ``layer/range``.
        precision: ``fp32``; ``fp16`` stores the weights as 16-bit floats and computes in 32; ``int8``.
        field_px: side of the input; None leaves it open (only for a conversion to ONNX: an interpreter cannot
            allocate it).
        packed: int8 with the first convolution over blocks of pixels, where it has a stride (see ``stem``).
    """
    backend.tf_keras().backend.clear_session()  # layer names count up from one conversion to the next otherwise
    if precision == "int8":
        return _integers(network, arrays, field_px=field_px, packed=packed and stem.packs(network))
    tf = backend.tensorflow()
    model = _on_raw_pixels(network, arrays, field_px=field_px)
    converter = _converter(lambda patches: model(patches, training=False), tf.uint8, field_px, model)
    if precision == "fp16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return _converted(converter)


def _integers(network: Network, arrays: Mapping[str, np.ndarray], *, field_px: int | None, packed: bool) -> bytes:
    """The integer file: as it is deployed, or for a conversion to ONNX in the plain layout that this starts from."""
    tf = backend.tensorflow()
    deployed = field_px is not None

    def answer(pixels: Any) -> Any:
        return quantise.simulate(network, arrays, pixels, packed=packed and deployed)

    converter = _converter(answer, tf.float32, field_px, tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if deployed:
        return _from_codes(_converted(converter))
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    return _converted(converter)


def _converter(answer: Callable[[Any], Any], dtype: Any, field_px: int | None, owner: Any) -> Any:
    tf = backend.tensorflow()
    spec = tf.TensorSpec((1, field_px, field_px, 3), dtype, name=INPUT)
    concrete = tf.function(lambda patches: {OUTPUT: answer(patches)}).get_concrete_function(spec)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], owner)


def _converted(converter: Any) -> bytes:
    with backend.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def _from_codes(content: bytes) -> bytes:
    """The file with a float input of pixels in 0..1 behind a DEQUANTIZE of uint8 codes, scale 1/255: raw pixels.

    The converter would put a QUANTIZE from uint8 to int8 there, which XNNPACK does not take and LiteRT computes one
    value at a time on x86, longer than any convolution of a small network takes. DEQUANTIZE and the QUANTIZE behind
    it are XNNPACK's, and give the same codes.
    """
    import flatbuffers
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
    place = len(graph.tensors) - 1
    kinds = [code.builtinCode for code in model.operatorCodes]
    dequantise = schema.OperatorT()
    dequantise.opcodeIndex = kinds.index(schema.BuiltinOperator.DEQUANTIZE)  # the logit's
    dequantise.inputs, dequantise.outputs = np.array([place], np.int32), np.array([pixels], np.int32)
    graph.operators.insert(0, dequantise)
    graph.inputs = np.array([place], np.int32)
    for signature in model.signatureDefs or ():
        for entry in signature.inputs:
            entry.tensorIndex = place
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _on_raw_pixels(network: Network, arrays: Mapping[str, np.ndarray], *, field_px: int | None) -> Any:
    """The folded network with the division by 255 inside the stem's kernel, on uint8 pixels."""
    keras, tf = backend.tf_keras(), backend.tensorflow()
    folded = weights.build(keras, network, folded=True, field_px=field_px)
    scaled = {**arrays, "stem/kernel": (arrays["stem/kernel"] / np.float32(255)).astype(np.float32)}
    weights.set_weights(folded, scaled, where=network.name)
    patches = keras.Input((field_px, field_px, 3), dtype="uint8", name=INPUT)
    return keras.Model(patches, folded(tf.cast(patches, tf.float32)), name=OUTPUT)
