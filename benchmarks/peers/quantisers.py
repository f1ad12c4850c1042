"""Other quantisers for the fp32 network of a run; all calibrate with the patches of int8ptq."""

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
    """Input of a quantiser: a finished run, calibration patches uint8 (N, 96, 96, 3) and the valid split."""

    run: Path
    patches: np.ndarray
    valid: Split


@dataclass(frozen=True)
class QuantisedFile:
    """Output of a quantiser: a file, its settings where there was a choice, and the AUC on valid of each choice."""

    model: Path
    settings: str | None = None
    candidates: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Quantiser:
    """A quantiser: its package, the runtime of its files, and a function that writes a file into an empty folder."""

    package: str
    runtime: str
    quantise: Callable[[QuantiserJob, Path], QuantisedFile]


@dataclass(frozen=True)
class StaticSettings:
    """Settings of ``quantize_static``; always QDQ with int8 weights."""

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
"""Limit for percentile and entropy calibration, which keep all activations of all patches in memory."""


def quantize_static(job: QuantiserJob, folder: Path) -> QuantisedFile:
    """Quantise with ONNX Runtime, preprocessed as in its manual; keep the settings with the highest AUC on valid."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    candidates = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(job.run / "models/fp32.onnx"), str(prepared), skip_symbolic_shape=True)
        for number, settings in enumerate(STATIC_SETTINGS):
            candidate = Path(scratch) / f"{number}.onnx"
            _static(prepared, candidate, settings, job.patches)
            candidates.append((_auc(candidate.read_bytes(), job.valid), str(settings), candidate))
        _, best_settings, chosen = max(candidates, key=lambda candidate: candidate[0])
        model = folder / "model.onnx"
        model.write_bytes(chosen.read_bytes())
    tried = tuple({"settings": settings, "auc_valid": area} for area, settings, _ in candidates)
    return QuantisedFile(model, best_settings, tried)


def _static(prepared: Path, out: Path, settings: StaticSettings, patches: np.ndarray) -> None:
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
        str(out),
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


def tflite_converter(job: QuantiserJob, folder: Path) -> QuantisedFile:
    """Quantise the folded network with TensorFlow's converter, to integer kernels only."""
    source = checkpoint.read(job.run / SOURCE)
    model = weights.build(backend.tf_keras(), source.network, folded=True)
    weights.set_weights(model, source.folded, where=SOURCE)
    path = folder / "model.tflite"
    path.write_bytes(calibrated(model, job.patches))
    return QuantisedFile(path)


def calibrated(model: Any, patches: Sequence[np.ndarray] | np.ndarray) -> bytes:
    """Return the int8 TFLite file of a ``tf_keras`` model of pixels in 0..1: raw pixels in, float32 out.

    Raises:
        DataError: no patch has a white pixel: the input's range would not be 0..1.
    """
    if np.max(patches) < WHITE:
        raise DataError("no calibration patch has a pixel of 255: the converter's uint8 input would not be raw pixels")
    tf = backend.tensorflow()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([patch[None].astype(np.float32) / 255.0] for patch in patches)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8  # with a range of 0..1, raw pixels are the quantised input
    converter.inference_output_type = tf.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def nncf_quantize(job: QuantiserJob, folder: Path) -> QuantisedFile:
    """Quantise with NNCF's default settings, on the OpenVINO model read from the ONNX file."""
    os.environ["NNCF_CI"] = "1"  # otherwise NNCF sends telemetry (nncf/telemetry/wrapper.py)
    import nncf
    from openvino import Core, save_model

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset([patch[None] for patch in job.patches])
    source = Core().read_model(job.run / "models/fp32.onnx")
    quantised = nncf.quantize(source, calibration, subset_size=len(job.patches))
    path = folder / "model.xml"
    save_model(quantised, path, compress_to_fp16=False)
    return QuantisedFile(path)


QUANTISERS = {
    "quantize_static": Quantiser("onnxruntime-gpu", "onnxruntime", quantize_static),
    "TFLite converter": Quantiser("tensorflow", "litert", tflite_converter),
    "NNCF": Quantiser("nncf", "openvino", nncf_quantize),
}
