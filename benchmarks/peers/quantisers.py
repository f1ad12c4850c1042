"""Other quantisers of a run's own fp32 network; all see the calibration patches that int8ptq sees."""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.cell import PREDICT_BATCH, SOURCE
from histoedge.data import Split
from histoedge.edge import ort
from histoedge.edge.errors import DataError
from histoedge.lab import backend, checkpoint, to_tflite, weights

WHITE = 255


@dataclass(frozen=True)
class QuantiserJob:
    """What a quantiser is given: a finished run, calibration patches uint8 (N, 96, 96, 3) and the valid split."""

    run: Path
    patches: np.ndarray
    valid: Split


@dataclass(frozen=True)
class Made:
    """What it gives: a file, its settings in words where there was a choice, and the AUC on valid of each choice."""

    model: Path
    settings: str | None = None
    candidates: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Peer:
    """A quantiser: its distribution, the runtime its files are made for, and what makes one in an empty folder."""

    package: str
    runtime: str
    make: Callable[[QuantiserJob, Path], Made]


@dataclass(frozen=True)
class StaticSettings:
    """One choice of ``quantize_static``; QDQ with int8 weights in all."""

    calibration: str = "MinMax"
    per_channel: bool = True
    activations: str = "QUInt8"

    def __str__(self) -> str:
        kernels = "per channel" if self.per_channel else "per tensor"
        return f"{kernels}, {self.calibration}, {self.activations.removeprefix('Q').lower()} activations"


STATIC_SETTINGS = (
    StaticSettings(),
    StaticSettings(calibration="Percentile"),
    StaticSettings(calibration="Entropy"),
    StaticSettings(per_channel=False),
    StaticSettings(activations="QInt8"),
)
HISTOGRAM_PATCHES = 256
"""Percentile and entropy calibration keep every activation of every patch in memory until the end."""


def quantize_static(job: QuantiserJob, folder: Path) -> Made:
    """ONNX Runtime, preprocessed as its manual asks: of ``STATIC_SETTINGS`` the one with the highest AUC on valid."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    found = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(job.run / "models/fp32.onnx"), str(prepared), skip_symbolic_shape=True)
        for number, settings in enumerate(STATIC_SETTINGS):
            made = Path(scratch) / f"{number}.onnx"
            _static(prepared, made, settings, job.patches)
            found.append((_auc(made.read_bytes(), job.valid), str(settings), made))
        _, settings_shown, chosen = max(found, key=lambda one: one[0])
        model = folder / "model.onnx"
        model.write_bytes(chosen.read_bytes())
    return Made(model, settings_shown, tuple({"settings": told, "auc_valid": area} for area, told, _ in found))


def _static(prepared: Path, made: Path, settings: StaticSettings, patches: np.ndarray) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, patches: np.ndarray) -> None:
            self._batches = iter(np.array_split(patches, max(1, len(patches) // PREDICT_BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {to_tflite.INPUT: batch}

    few = patches if settings.calibration == "MinMax" else patches[:: max(1, len(patches) // HISTOGRAM_PATCHES)]
    quantization.quantize_static(
        str(prepared),
        str(made),
        Reader(few),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=settings.per_channel,
        activation_type=quantization.QuantType[settings.activations],
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[settings.calibration],
    )


def _auc(content: bytes, split: Split) -> float:
    runner = ort.open_ort(content, threads=os.cpu_count() or 1)
    starts = range(0, len(split.labels), PREDICT_BATCH)
    logits = [runner.predict(np.asarray(split.patches[at : at + PREDICT_BATCH])).reshape(-1) for at in starts]
    return metrics.auc(split.labels, np.concatenate(logits))


def tflite_converter(job: QuantiserJob, folder: Path) -> Made:
    """TensorFlow: full integer kernels for the folded network."""
    source = checkpoint.read(job.run / SOURCE)
    model = weights.build(backend.tf_keras(), source.network, folded=True)
    weights.set_weights(model, source.folded, where=SOURCE)
    made = folder / "model.tflite"
    made.write_bytes(calibrated(model, job.patches))
    return Made(made)


def calibrated(model: Any, patches: Sequence[np.ndarray] | np.ndarray) -> bytes:
    """The TFLite file of a ``tf_keras`` model of pixels in 0..1, int8 after training: raw pixels in, float32 out.

    Raises:
        DataError: no patch is white somewhere, so that the input's range would not be 0..1.
    """
    if np.max(patches) < WHITE:
        raise DataError("no calibration patch has a pixel of 255: the converter's uint8 input would not be raw pixels")
    tf = backend.tensorflow()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([patch[None].astype(np.float32) / 255.0] for patch in patches)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8  # its range is 0..1, so raw pixels are the quantised input
    converter.inference_output_type = tf.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def nncf_quantize(job: QuantiserJob, folder: Path) -> Made:
    """NNCF: its default settings on the OpenVINO model read from the ONNX file."""
    os.environ["NNCF_CI"] = "1"  # without it NNCF reports its use to its makers (nncf/telemetry/wrapper.py)
    import nncf
    from openvino import Core, save_model

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset([patch[None] for patch in job.patches])
    source = Core().read_model(job.run / "models/fp32.onnx")
    quantised = nncf.quantize(source, calibration, subset_size=len(job.patches))
    made = folder / "model.xml"
    save_model(quantised, made, compress_to_fp16=False)
    return Made(made)


PEERS = {
    "quantize_static": Peer("onnxruntime-gpu", "onnxruntime", quantize_static),
    "TFLite converter": Peer("tensorflow", "litert", tflite_converter),
    "NNCF": Peer("nncf", "openvino", nncf_quantize),
}
