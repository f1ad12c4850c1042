"""The sidecar of an exported file: what it is, how to feed it, how to read its answer, and its hashes."""

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ConfigError, ModelError

CONTRACT = 1
LARGEST_MODEL_BYTES = 1 << 30
LARGEST_SIDECAR_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold chosen on the split ``valid``, and the sensitivity and specificity measured there.

    ``name`` is what was asked for, such as ``sensitivity 0.95`` (the largest threshold that has it) or ``specificity
    0.95`` (the smallest). ``threshold`` is a calibrated probability, halfway between the score that decides and the
    next lower one seen; 1 where no score is high enough. The bounds are Wilson's 95 % intervals over ``n_positive``
    and ``n_negative`` patches, with the threshold taken as given: on other patches, slides or scanners expect more
    spread.
    """

    name: str
    threshold: float
    sensitivity: float
    sensitivity_lo: float
    sensitivity_hi: float
    specificity: float
    specificity_lo: float
    specificity_hi: float
    n_positive: int
    n_negative: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a host needs beside the model file. Read from ``<model file name>.json``.

    Output (i, j) of a field belongs to the ``patch_px`` patch whose corner is at (i, j) x ``stride_px``;
    the label speaks of the ``label_px`` square in the middle of that patch. The probability is
    ``1 / (1 + exp(-logit / temperature))``, calibrated by a ``temperature`` fitted on ``valid``, and the verdict is
    positive where it is ``threshold`` or above; ``operating_points`` are other thresholds to choose from.
    ``parents`` holds the SHA-256 of what the file was made from. ``tolerance`` is the largest
    difference in logits to the golden ones that a correct runtime shows. ``zeros`` is the share of zeros among the
    weights of all kernels. ``may_saturate`` names the convolutions of an int8 file whose sums may overflow 16 bits
    on x86 CPUs without VNNI, which then answer differently; where it is empty that is proved impossible.
    """

    contract: int
    format: str
    recipe: str
    network: str
    params: int
    macs: int
    sha256: str
    golden_sha256: str
    parents: dict[str, str]
    fp32: str
    stride_px: int
    receptive_field_px: int
    centre_offset_px: float
    label_px: int
    patch_px: int
    um_per_px: float
    edge_mode: str
    temperature: float
    threshold: float
    operating_points: tuple[OperatingPoint, ...]
    golden_runtime: str
    tolerance: float
    tolerance_reason: str
    output_quantum: float | None
    zeros: float
    may_saturate: list[str]
    tools: dict[str, str]

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """The probability of tumour in the centre, float64, for logits of any shape."""
        return probability(logits, self.temperature)

    def operating_point(self, name: str) -> OperatingPoint:
        """The operating point of that name, such as ``specificity 0.95``.

        Raises:
            ConfigError: there is none of that name; the message lists those there are.
        """
        for point in self.operating_points:
            if point.name == name:
                return point
        known = ", ".join(repr(point.name) for point in self.operating_points) or "none"
        raise ConfigError(f"no operating point is called {name!r}; there are: {known}")

    def as_json(self) -> dict[str, Any]:
        """The JSON document, ``digest`` included."""
        body = dataclasses.asdict(self)
        return {**body, "digest": digest(body)}


@dataclass(frozen=True)
class Golden:
    """Synthetic patches, uint8 (N, 96, 96, 3), with labels, uint8 (N,), and expected logits, float32 (N,).

    ``saturated`` are the logits, float32 (N,), that ONNX Runtime gives on x86 CPUs without VNNI unless it is asked for
    exact sums; None where the manifest's ``may_saturate`` is empty or the file was exported without them.
    """

    patches: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    saturated: np.ndarray | None = None


def probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    """``1 / (1 + exp(-logit / temperature))``, float64, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64) / temperature)))


def digest(body: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no white space) of a manifest without its ``digest``."""
    rest = {key: value for key, value in body.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_path(model: Path) -> Path:
    """``int8.onnx`` -> ``int8.onnx.json``."""
    return model.with_name(f"{model.name}.json")


def golden_path(model: Path) -> Path:
    """``int8.onnx`` -> ``int8.onnx.golden.npz``."""
    return model.with_name(f"{model.name}.golden.npz")


def verdict_path(model: Path) -> Path:
    """``int8.onnx`` -> ``int8.onnx.verdict.json``."""
    return model.with_name(f"{model.name}.verdict.json")


def read(model: Path) -> Manifest:
    """The manifest beside ``model``.

    Raises:
        ModelError: no model or no manifest there, not JSON, altered, or of another contract.
    """
    path = manifest_path(model)
    if not model.is_file():
        also = " (its manifest is there)" if path.is_file() else ""
        raise ModelError(
            f"{model}: no such model file{also}; expected a .tflite or .onnx file made by histoedge export"
        )
    if not path.is_file():
        raise ModelError(
            f"{path}: the manifest is missing; copy the model together with its .json and .golden.npz files"
        )
    try:
        body = json.loads(_bounded(path, LARGEST_SIDECAR_BYTES))
    except ValueError as error:
        raise ModelError(f"{path}: not a JSON document ({error}); export the model again") from error
    if not isinstance(body, dict) or body.get("contract") != CONTRACT:
        found = body.get("contract") if isinstance(body, dict) else type(body).__name__
        raise ModelError(f"{path}: contract version {found!r}, expected {CONTRACT}; use the histoedge that made it")
    if body.get("digest") != digest(body):
        raise ModelError(f"{path}: altered after it was written (its digest does not match); export the model again")
    body = {key: value for key, value in body.items() if key != "digest"}
    names = {field.name for field in dataclasses.fields(Manifest)}
    if missing := sorted(names - body.keys()) + sorted(body.keys() - names):
        raise ModelError(f"{path}: keys missing or unknown: {', '.join(missing)}; export the model again")
    try:
        points = tuple(OperatingPoint(**point) for point in body["operating_points"])
    except TypeError as error:
        raise ModelError(f"{path}: operating points that are not ours ({error}); export the model again") from error
    return Manifest(**{**body, "operating_points": points})


def checked_bytes(model: Path, manifest: Manifest) -> bytes:
    """The bytes of the model file, hashed before any interpreter sees them.

    Raises:
        ModelError: too large, or not the bytes that the manifest names.
    """
    content = _bounded(model, LARGEST_MODEL_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.sha256:
        raise ModelError(
            f"{model}: changed after its manifest was written (SHA-256 {found[:12]}, "
            f"the manifest says {manifest.sha256[:12]}); copy or export it again"
        )
    return content


def read_golden(model: Path, manifest: Manifest) -> Golden:
    """The golden patches beside ``model``, hash and shapes checked.

    Raises:
        ModelError: missing, altered, or not arrays of the expected shapes.
    """
    path = golden_path(model)
    if not path.is_file():
        raise ModelError(f"{path}: the golden patches are missing; copy them together with the model")
    found = hashlib.sha256(_bounded(path, LARGEST_SIDECAR_BYTES)).hexdigest()
    if found != manifest.golden_sha256:
        raise ModelError(f"{path}: changed after the manifest was written; copy or export the model again")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            patches, labels, logits = (arrays[name] for name in ("patches", "labels", "logits"))
            golden = Golden(patches, labels, logits, arrays.get("saturated"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: not a golden file ({error}); export the model again") from error
    count, side = len(golden.labels), manifest.patch_px
    if golden.patches.shape != (count, side, side, 3) or golden.logits.shape != (count,):
        raise ModelError(f"{path}: shapes {golden.patches.shape} and {golden.logits.shape} do not fit; export again")
    if golden.saturated is not None and golden.saturated.shape != (count,):
        raise ModelError(f"{path}: shape {golden.saturated.shape} of saturated logits does not fit; export again")
    return golden


def _bounded(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise ModelError(f"{path}: {size} bytes, expected at most {limit}; this is not a file of ours")
    return path.read_bytes()
