"""A network to the bytes of a TFLite file: uint8 raw pixels in, float32 tumour logits out."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from histoedge.config import Precision
from histoedge.lab import backend, quantise
from histoedge.lab import network as networks
from histoedge.lab.network import PATCH_PX, Network

INPUT, OUTPUT = "patches", "tumour_logit"


def convert(
    network: Network, arrays: Mapping[str, np.ndarray], *, precision: Precision, field_px: int | None = PATCH_PX
) -> bytes:
    """The file for folded weights; the same input gives the same bytes.

    Args:
        network: the architecture.
        arrays: ``layer/kernel`` and ``layer/bias``; for int8 also ``layer/range``.
        precision: ``fp32``; ``fp16`` stores the weights as 16-bit floats and computes in 32; ``int8``.
        field_px: side of the input; None leaves it open (only for a conversion to ONNX: an interpreter cannot
            allocate it).
    """
    tf = backend.tensorflow()
    backend.tf_keras().backend.clear_session()  # layer names count up from one conversion to the next otherwise
    if precision == "int8":
        model, dtype = quantise.rebuild(network, arrays, field_px=field_px), tf.float32
    else:
        model, dtype = _on_raw_pixels(network, arrays, field_px=field_px), tf.uint8

    def answer(patches: Any) -> dict[str, Any]:
        return {OUTPUT: model(patches, training=False)}

    spec = tf.TensorSpec((1, field_px, field_px, 3), dtype, name=INPUT)
    concrete = tf.function(answer).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.uint8  # scale 1/255, zero point 0: raw pixels are the quantised input
        converter.inference_output_type = tf.float32
    if precision == "fp16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    with backend.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def _on_raw_pixels(network: Network, arrays: Mapping[str, np.ndarray], *, field_px: int | None) -> Any:
    """The folded network with the division by 255 inside the stem's kernel, on uint8 pixels."""
    keras, tf = backend.tf_keras(), backend.tensorflow()
    folded = networks.build(keras, network, folded=True, field_px=field_px)
    scaled = {**arrays, "stem/kernel": (arrays["stem/kernel"] / np.float32(255)).astype(np.float32)}
    networks.set_weights(folded, scaled, where=network.name)
    patches = keras.Input((field_px, field_px, 3), dtype="uint8", name=INPUT)
    return keras.Model(patches, folded(tf.cast(patches, tf.float32)), name=OUTPUT)
