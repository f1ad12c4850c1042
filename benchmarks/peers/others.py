"""Other networks for the same patches: common starting points, built in Keras, quantised by TensorFlow.

Untrained networks are measured for latency and size only. Each network is exported to four files, fp32 and int8 as
TFLite and ONNX, that accept one patch of raw uint8 pixels per call.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import quantisers

from histoedge.cell import SOURCE
from histoedge.edge.errors import ModelError
from histoedge.edge.patches import PATCH_PX
from histoedge.lab import backend, catalogue, checkpoint, onnx_passes, to_onnx, to_tflite, weights

CALIBRATION_PATCHES = 128  # of those of int8ptq: the ranges of untrained networks need no more
RESNET18 = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and stride of its stages, two blocks each (He et al. 2016, table 1)."""


@dataclass(frozen=True)
class Other:
    """Another network: its name, whether its weights are trained, and a function that builds its Keras model."""

    name: str
    trained: bool
    build: Callable[[], Any]


def other_networks(baseline: Path | None) -> list[Other]:
    """Return MobileNetV2 0.35, ResNet-18 and ``baseline``, the latter with the weights of a run where given.

    Raises:
        ModelError: the run is of another network.
    """
    if baseline is not None and (name := checkpoint.read(baseline / SOURCE).network.name) != "baseline":
        raise ModelError(f"{baseline}: a run of network {name}, expected baseline")
    return [
        Other("MobileNetV2 0.35", False, mobilenet),
        Other("ResNet-18", False, resnet18),
        Other("baseline", baseline is not None, lambda: plain(baseline)),
    ]


def mobilenet() -> Any:
    """Return Keras' MobileNetV2 of width 0.35 with one logit and random weights."""
    keras, side = backend.tf_keras(), PATCH_PX
    body = keras.applications.MobileNetV2((side, side, 3), alpha=0.35, weights=None, include_top=False)
    return keras.Model(body.input, _logit(body.output), name="mobilenetv2")


def resnet18() -> Any:
    """Return ResNet-18 (He et al. 2016) with one logit and random weights; Keras has only ResNet-50 and larger."""
    keras = backend.tf_keras()
    layers = keras.layers

    def normed(tensor: Any, channels: int, kernel: int, stride: int) -> Any:
        convolution = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False)
        return layers.BatchNormalization()(convolution(tensor))

    inputs = keras.Input((PATCH_PX, PATCH_PX, 3))
    tensor = layers.ReLU()(normed(inputs, 64, 7, 2))
    tensor = layers.MaxPooling2D(3, 2, padding="same")(tensor)
    for channels, first_stride in RESNET18:
        for stride in (first_stride, 1):
            shortcut = tensor
            if stride != 1 or shortcut.shape[-1] != channels:
                shortcut = normed(shortcut, channels, 1, stride)
            tensor = layers.ReLU()(normed(tensor, channels, 3, stride))
            tensor = layers.ReLU()(layers.Add()([normed(tensor, channels, 3, 1), shortcut]))
    return keras.Model(inputs, _logit(tensor), name="resnet18")


def _logit(tensor: Any) -> Any:
    """Return global average pooling and a dense layer; a 1 x 1 convolution, because tf2onnx loses the rank of Dense."""
    layers = backend.tf_keras().layers
    return layers.Conv2D(1, 1)(layers.GlobalAveragePooling2D(keepdims=True)(tensor))


def plain(run: Path | None) -> Any:
    """Return histoedge's ``baseline`` with folded batch norm, and the weights of a run where given."""
    model = weights.build(backend.tf_keras(), catalogue.get_network("baseline"), folded=True)
    if run is not None:
        weights.set_weights(model, checkpoint.read(run / SOURCE).folded, where=SOURCE)
    return model


def params(model: Any) -> int:
    """Return the number of trainable parameters: all weights except the running statistics of batch norm."""
    return int(sum(math.prod(weight.shape) for weight in model.trainable_weights))


def macs(model: Any) -> int:
    """Return the multiply-accumulates of the convolutions and dense layers for one patch."""
    total = 0
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name.rpartition("/")[2].startswith(("kernel", "depthwise_kernel")):
                total += math.prod(layer.output_shape[1:-1]) * math.prod(weight.shape)
    return total


def export_others(model: Any, patches: np.ndarray, folder: Path) -> list[Path]:
    """Write ``fp32`` and ``int8`` as ``.tflite`` and ``.onnx`` into an empty folder; return the paths.

    Args:
        model: accepts float32 pixels in 0..1.
        patches: uint8 (N, 96, 96, 3), for the ranges.
        folder: for the files.
    """
    chosen = patches[:: max(1, len(patches) // CALIBRATION_PATCHES)]
    _settle(model, chosen)
    contents = {"fp32": _floats(model), "int8": quantisers.calibrated(model, chosen)}
    paths = []
    for precision, content in contents.items():
        for suffix, file_content in (("tflite", content), ("onnx", _onnx(content))):
            paths.append(folder / f"{precision}.{suffix}")
            paths[-1].write_bytes(file_content)
    return paths


def _settle(model: Any, patches: np.ndarray) -> None:
    """Set batch norm's statistics to those of these patches: with fresh ones the signal of a deep network vanishes.

    A quantiser would then see ranges of zero and choose other operators than for a trained network.
    """
    norms = [layer for layer in model.layers if isinstance(layer, backend.tf_keras().layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # replaces the old statistics completely
    if norms:
        model(patches.astype(np.float32) / 255.0, training=True)


def _floats(model: Any) -> bytes:
    keras, tf = backend.tf_keras(), backend.tensorflow()
    side = PATCH_PX
    patches = keras.Input((side, side, 3), batch_size=1, dtype="uint8", name=to_tflite.INPUT)
    raw = keras.Model(patches, model(tf.cast(patches, tf.float32) / 255.0))
    return bytes(tf.lite.TFLiteConverter.from_keras_model(raw).convert())


def _onnx(tflite: bytes) -> bytes:
    """Convert with tf2onnx and the same passes as histoedge's files: ONNX Runtime then fuses the integer parts."""
    model = to_onnx.from_tflite(tflite, to_onnx.OPSET)
    for clean in onnx_passes.PASSES:
        clean(model.graph)
    model = to_onnx.canonicalise(model, ir_version=to_onnx.IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
