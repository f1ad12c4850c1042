"""Files of a network of Keras layers: TFLite by its converter, ONNX from that TFLite file, and what proves them.

These layers have no simulation of integers here: the converter chooses ranges and rounding, and operators without an
integer form stay in floats. The runtimes may then round differently, by how much is measured.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import onnx

from histoedge.config import Precision
from histoedge.edge import litert, ort
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import backend, layer_graph, onnx_passes, readback, to_onnx, to_tflite
from histoedge.lab.layer_graph import LayerGraph
from histoedge.lab.weights import Arrays

TFLITE = "file/tflite"
"""Name of the int8 file among the arrays of a checkpoint: its ranges come from patches, which an export has not."""

LARGEST_DIFFERENCE = 1e-4  # of logits between the fp32 files and Keras: float32 sums in another order
_PASSES = (
    onnx_passes.absorb_clipping,
    onnx_passes.activations_to_uint8,
    onnx_passes.constants_to_uint8,
    onnx_passes.drop_requantisation,
)
MARGIN = 2  # on the largest difference that was measured


def to_tflite_file(
    graph: LayerGraph,
    arrays: Mapping[str, np.ndarray],
    *,
    precision: Precision,
    calibration: Iterable[np.ndarray] = (),
) -> bytes:
    """Return the bytes of the TFLite file: uint8 raw pixels of one patch -> float32 logit.

    Args:
        graph: the network.
        arrays: its weights.
        precision: for ``int8``, the converter quantises after training whatever has an integer form.
        calibration: for ``int8``, batches of float32 (n, side, side, 3) pixels in 0..1, which set the ranges.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow.
        ModelError: the converter cannot express a layer.
    """
    keras = backend.keras()
    if (name := backend.name()) != "tensorflow":
        raise ConfigError(
            f"network {graph.name} consists of Keras layers, which only TensorFlow converts; run this command with "
            f"KERAS_BACKEND=tensorflow instead of {name}"
        )
    tf = backend.tensorflow()
    keras.utils.clear_session()  # resets the counters in layer names
    model = layer_graph.build_graph(graph, arrays, where=graph.name)

    def answer(patches: Any) -> Any:
        pixels = patches if precision == "int8" else tf.cast(patches, tf.float32) * np.float32(1 / 255)
        return {to_tflite.OUTPUT: tf.reshape(model(pixels, training=False), (-1, 1, 1, 1))}

    from tensorflow.lite.python.convert_phase import ConverterError
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    kind = tf.float32 if precision == "int8" else tf.uint8
    spec = tf.TensorSpec((1, graph.patch_px, graph.patch_px, 3), kind, name=to_tflite.INPUT)
    frozen = convert_variables_to_constants_v2(tf.function(answer).get_concrete_function(spec))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([pixels[None]] for batch in calibration for pixels in batch)
    try:
        content = to_tflite.run_converter(converter)
        return to_tflite.with_raw_input(content) if precision == "int8" else content
    except (ConverterError, RuntimeError, ValueError) as error:
        raise ModelError(f"network {graph.name}: TensorFlow cannot convert it: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def tflite_of(graph: LayerGraph, arrays: Mapping[str, np.ndarray], *, precision: Precision) -> bytes:
    """Return the TFLite file of a checkpoint: for int8 the one that it contains.

    Raises:
        ConfigError, ModelError: see ``to_tflite_file``.
    """
    if precision != "int8":
        return to_tflite_file(graph, arrays, precision=precision)
    if TFLITE not in arrays:
        raise ModelError(f"network {graph.name}: these weights contain no int8 file; compress again")
    return arrays[TFLITE].tobytes()


def to_onnx_file(tflite: bytes, graph: LayerGraph, *, precision: Precision, target_ort: str) -> bytes:
    """Return the bytes of the ONNX file with the numbers of the TFLite file and a variable batch.

    Raises:
        ModelError: a layer that tf2onnx cannot convert, or not for any batch.
    """
    opset, ir_version = to_onnx.opset_and_ir_version(target_ort)
    remedy = "export with --format tflite, or replace the layer"
    try:
        model = to_onnx.from_tflite(tflite, opset)
        onnx_passes.spell_gelu(model.graph)
        if unknown := [node.op_type for node in model.graph.node if node.op_type.startswith("TFL_")]:
            raise ModelError(f"network {graph.name}: {unknown[0].removeprefix('TFL_')} has no form in ONNX; {remedy}")
        for clean in _PASSES:
            clean(model.graph)
        onnx_passes.free_batch(model)
        if precision == "fp16":
            onnx_passes.store_half_precision(model.graph)
        model = to_onnx.canonicalise(model, ir_version=ir_version, patch_px=graph.patch_px)
        onnx.checker.check_model(model, full_check=True)
    except (ValueError, KeyError, RuntimeError, TypeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"network {graph.name}: tf2onnx cannot convert it ({_one_line(error)}); {remedy}") from error
    content = bytes(model.SerializeToString(deterministic=True))
    patches = np.random.default_rng(0).integers(0, 256, (3, graph.patch_px, graph.patch_px, 3), np.uint8)
    try:
        opened = ort.open_ort(content, patch_px=graph.patch_px, may_saturate=True)
        alone = np.concatenate([opened.predict(patch[None]) for patch in patches])
        together = opened.predict(patches)
    except ModelError as error:
        raise ModelError(f"network {graph.name}: {error}; {remedy}") from error
    if together.shape != alone.shape or not np.allclose(together, alone, rtol=1e-4, atol=1e-4):
        raise ModelError(f"network {graph.name}: its ONNX form computes only single patches; {remedy}")
    return content


def check_fp32(content: bytes, format_: str, graph: LayerGraph, arrays: Arrays, patches: np.ndarray) -> None:
    """Compare a file of floats with the Keras model.

    Raises:
        ModelError: a logit that differs by more than ``LARGEST_DIFFERENCE``.
    """
    expected = layer_graph.predictor(graph, arrays)(patches.astype(np.float32) / 255).ravel()
    difference = float(np.abs(_logits(content, format_, graph, patches) - expected).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"network {graph.name}: the fp32 {format_} file differs by {difference:.2g} in a logit from Keras, "
            f"expected at most {LARGEST_DIFFERENCE:g}; please report this model"
        )


def int8_tolerance(tflite: bytes, graph: LayerGraph, patches: np.ndarray, *, target_ort: str) -> tuple[float, str]:
    """Return the tolerance of the golden logits of an int8 network, and its reason, measured on these patches."""
    expected = _logits(tflite, "tflite", graph, patches)
    others = {"LiteRT's own kernels": _logits(tflite, "tflite", graph, patches, kernels="builtin")}
    with suppress(ModelError):  # without a form in ONNX there is nothing to compare with
        content = to_onnx_file(tflite, graph, precision="int8", target_ort=target_ort)
        others["ONNX Runtime"] = _logits(content, "onnx", graph, patches)
    largest = {name: float(np.abs(logits - expected).max()) for name, logits in others.items()}
    name = max(largest, key=lambda other: largest[other])
    reason = (
        f"runtimes round these layers differently: {name} by up to {largest[name]:.2g} on {len(patches)} synthetic "
        f"patches; {MARGIN} times this, at least one output quantum"
    )
    return max(MARGIN * largest[name], 1.01 * output_quantum(tflite), LARGEST_DIFFERENCE), reason


def _logits(content: bytes, format_: str, graph: LayerGraph, patches: np.ndarray, **options: str) -> np.ndarray:
    open_file: Any = {"tflite": litert.open_litert, "onnx": ort.open_ort}[format_]
    runner = open_file(content, patch_px=graph.patch_px, may_saturate=True, **options)
    return np.concatenate([runner.predict(patches[at : at + 64]).ravel() for at in range(0, len(patches), 64)])


# ---- what a TFLite file contains -----------------------------------------------------------------------------------


def output_quantum(tflite: bytes) -> float:
    """Return the quantum of the logit; 0 if a float operator computes it."""
    schema, model, graph = readback.tflite_graph(tflite)
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        kind = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if operator.Outputs(0) == graph.Outputs(0) and kind == schema.BuiltinOperator.DEQUANTIZE:
            return float(graph.Tensors(operator.Inputs(0)).Quantization().Scale(0))
    return 0.0


def read_kernels(tflite: bytes) -> Arrays:
    """Return the kernels (..., out) of convolutions and dense layers by operator, int8 codes or floats.

    Those of depthwise convolutions are left out: their sums fit (``readback.may_saturate``).
    """
    schema, model, graph = readback.tflite_graph(tflite)
    kinds = {schema.BuiltinOperator.CONV_2D: "conv", schema.BuiltinOperator.FULLY_CONNECTED: "dense"}
    dtypes = {schema.TensorType.INT8: np.int8, schema.TensorType.FLOAT32: np.float32}
    dtypes[schema.TensorType.FLOAT16] = np.float16
    constants: dict[int, int] = {}
    kernels: Arrays = {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        kind = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if kind == schema.BuiltinOperator.DEQUANTIZE:  # of float16
            constants[operator.Outputs(0)] = operator.Inputs(0)
        if kind in kinds:
            tensor = graph.Tensors(constants.get(operator.Inputs(1), operator.Inputs(1)))
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            if isinstance(data, np.ndarray) and tensor.Type() in dtypes:
                kernel = data.view(dtypes[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
                kernels[f"{kinds[kind]}{len(kernels) + 1}"] = np.moveaxis(kernel, 0, -1)
    return kernels
