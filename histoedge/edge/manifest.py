"""The manifest next to an exported file: its identity, input, output, decision threshold and hashes."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import lookalike
from .errors import ConfigError, ModelError
from .json_types import has_type
from .patches import LARGEST_PATCH_PX, SMALLEST_PATCH_PX

CONTRACT = 3
CLASSLESS = 2  # the earlier contract, still read: its classes are normal and tumour
DENSE, SINGLE = "valid", "patch"
EDGE_MODES = (DENSE, SINGLE)
"""Whether a field has a meaning to the file. ``valid``: it is fully convolutional with valid padding, and the outputs
of a field equal those of its patches. ``patch``: only single patches have a meaning, and a map is computed from
them."""
CLASSES = ("normal", "tumour")
LONGEST_CLASS = 64
LARGEST_MODEL_BYTES = 1 << 30
LARGEST_MANIFEST_BYTES = 1 << 18
LARGEST_NUMBER = 1e15  # floats represent integers exactly up to 2^53
FORMATS = ("tflite", "onnx")
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("params", "macs"), (1, LARGEST_NUMBER)),
    **dict.fromkeys(("stride_px", "receptive_field_px", "label_px"), (1, 1 << 20)),
    "patch_px": (SMALLEST_PATCH_PX, LARGEST_PATCH_PX),
    "temperature": (1e-3, 1e3),
    "um_per_px": (1e-6, 1e6),
    **dict.fromkeys(("tolerance", "n_positive", "n_negative"), (0, LARGEST_NUMBER)),
    **dict.fromkeys(("zeros", "threshold", "sensitivity", "sensitivity_lo", "sensitivity_hi"), (0, 1)),
    **dict.fromkeys(("specificity", "specificity_lo", "specificity_hi"), (0, 1)),
}
"""The smallest and the largest valid value of a field of ``Manifest`` or ``OperatingPoint``."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold chosen on the split ``valid``, and the sensitivity and specificity measured there.

    ``name`` is the goal, such as ``sensitivity 0.95`` (the largest threshold that reaches it) or ``specificity 0.95``
    (the smallest). ``threshold`` is a calibrated probability, halfway between the deciding score and the next lower
    score; 1 where no score is high enough. The bounds are Wilson's 95 % intervals over ``n_positive`` and
    ``n_negative`` patches with the threshold fixed: expect more spread on other patches, slides or scanners.
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
    """Everything a host needs besides the model file. Read from ``<model file name>.json``.

    Output (i, j) of a field belongs to the ``patch_px`` patch with its corner at (i, j) x ``stride_px``; the label
    refers to the central ``label_px`` square of that patch, at ``um_per_px``. ``classes`` are the names of the negative
    and of the positive class; the logit is that of the positive one. ``edge_mode`` is ``valid`` or ``patch``, see
    ``EDGE_MODES``. The probability is
    ``1 / (1 + exp(-logit / temperature))``, with a ``temperature`` fitted on ``valid``; the verdict is positive when it
    is ``threshold`` or above. ``operating_points`` are other thresholds to choose from. ``parents`` contains the
    SHA-256 of everything the file is derived from. ``tolerance`` is the largest difference from the golden logits on a
    correct runtime. ``zeros`` is the share of zeros among the weights of all kernels. ``may_saturate`` lists the
    convolutions of an int8 file whose sums may overflow 16 bits on x86 CPUs without VNNI and then return other values;
    when it is empty, overflow is proved impossible. ``input_statistics`` is ``drift.describe`` of the training patches.
    ``float_layers`` lists the convolutions of an int8 file that compute in float32; if there are none, the JSON
    document has no such key.
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
    classes: tuple[str, str]
    temperature: float
    threshold: float
    operating_points: tuple[OperatingPoint, ...]
    golden_runtime: str
    tolerance: float
    tolerance_reason: str
    output_quantum: float | None
    zeros: float
    may_saturate: list[str]
    input_statistics: dict[str, dict[str, float]]
    tools: dict[str, str]
    float_layers: list[str] = dataclasses.field(default_factory=list)

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Return the calibrated probability of the positive class, float64, for logits of any shape."""
        return probability(logits, self.temperature)

    @property
    def is_dense(self) -> bool:
        """Whether the outputs of a field equal those of its patches."""
        return self.edge_mode == DENSE

    @property
    def threshold_logit(self) -> float:
        """The decision threshold as a logit."""
        return threshold_logit(self.threshold, self.temperature)

    def operating_point(self, name: str) -> OperatingPoint:
        """Return the operating point ``name``, such as ``specificity 0.95``.

        Raises:
            ConfigError: the manifest has no such operating point; the message lists the valid names.
        """
        for point in self.operating_points:
            if point.name == name:
                return point
        names = ", ".join(repr(point.name) for point in self.operating_points) or "none"
        raise ConfigError(f"no operating point {name!r}; this model has: {names}")

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document, including ``digest``."""
        body = dataclasses.asdict(self)
        if self.contract == CLASSLESS:
            del body["classes"]
        if not self.float_layers:
            del body["float_layers"]
        return {**body, "digest": digest(body)}


def probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return ``1 / (1 + exp(-logit / temperature))``, float64, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64) / temperature)))


def threshold_logit(threshold: float, temperature: float) -> float:
    """Return the logit whose calibrated probability is ``threshold``; minus or plus infinity at 0 or 1.

    Args:
        threshold: a probability, 0 to 1.
        temperature: above 0.
    """
    if threshold in (0, 1):
        return math.copysign(math.inf, threshold - 0.5)
    return temperature * math.log(threshold / (1 - threshold))


def digest(body: dict[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON (sorted keys, no white space) of a manifest without ``digest``."""
    rest = {key: value for key, value in body.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_path(model: Path) -> Path:
    """Return the path of the manifest: ``int8.onnx`` -> ``int8.onnx.json``."""
    return model.with_name(f"{model.name}.json")


def verdict_path(model: Path) -> Path:
    """Return the path of the verdict: ``int8.onnx`` -> ``int8.onnx.verdict.json``."""
    return model.with_name(f"{model.name}.verdict.json")


def read(model: Path) -> Manifest:
    """Return the manifest next to ``model``.

    Raises:
        ModelError: the model or its manifest is missing; the manifest is not JSON, altered, or of another contract.
    """
    path = manifest_path(model)
    if not model.is_file():
        note = " (its manifest exists)" if path.is_file() else ""
        raise ModelError(lookalike.explain_path(model) or f"{model}: no such model file{note}; {lookalike.EXPECTED}")
    if not path.is_file():
        if (message := lookalike.explain_path(model)) is not None:
            raise ModelError(message)
        raise ModelError(
            f"{path}: the manifest is missing; copy the model together with its .json and .golden.npz files"
        )
    try:
        body = json.loads(
            bounded_bytes(path, LARGEST_MANIFEST_BYTES),
            parse_float=_canonical_float,
            parse_constant=_canonical_float,
            object_pairs_hook=_unique_keys,
        )
        expected_digest = digest(body) if isinstance(body, dict) else None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a valid manifest ({error}); copy or export the model again") from error
    contract = body.get("contract") if isinstance(body, dict) else type(body).__name__
    if contract not in (CLASSLESS, CONTRACT) or type(contract) is not int:
        newer = isinstance(contract, int) and contract > CONTRACT
        remedy = "update histoedge, or the edge folder" if newer else "export the model again"
        raise ModelError(
            f"{path}: contract version {repr(contract)[:40]}, expected {CLASSLESS} or {CONTRACT}; {remedy}"
        )
    if body.get("digest") != expected_digest:
        raise ModelError(f"{path}: changed after it was written (its digest does not match); export the model again")
    body = {key: value for key, value in body.items() if key != "digest"}
    return _checked_fields(path, body)


def _canonical_float(text: str) -> float:
    """Return the number if ``text`` is its canonical spelling: a manifest with any other spelling has been altered."""
    number = float(text)
    if repr(number) != text or not math.isfinite(number):
        raise ValueError(f"{text} is not in canonical notation")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; a duplicate key is refused because another JSON reader might use its other value."""
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("duplicate key")
    return body


def _checked_fields(path: Path, body: dict[str, Any]) -> Manifest:
    names = {field.name for field in dataclasses.fields(Manifest)}
    if body["contract"] == CLASSLESS:
        names -= {"classes", "float_layers"}
    body = {"float_layers": [], **body} if "float_layers" in names else body
    if wrong := sorted(names - body.keys()) + sorted(body.keys() - names):
        listed = ", ".join(name if name in names else repr(name[:40]) for name in wrong[:5])
        raise ModelError(f"{path}: missing or unknown keys: {listed}; export the model again")
    if not _are_points(body["operating_points"]):
        raise ModelError(f"{path}: operating_points: missing or unknown keys; export the model again")
    points = tuple(OperatingPoint(**point) for point in body["operating_points"])
    classes = body.get("classes", CLASSES)
    if type(classes) is list:
        classes = tuple(classes)
    manifest = Manifest(**{**body, "operating_points": points, "classes": classes})
    records: tuple[Manifest | OperatingPoint, ...] = (manifest, *points)
    for record in records:
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            if not has_type(value, field.type, limit=LARGEST_NUMBER):
                kind = getattr(field.type, "__name__", str(field.type))
                raise ModelError(
                    f"{path}: {field.name} is {str(value)[:40]!r}, expected {kind}; export the model again"
                )
            least, largest = BOUNDS.get(field.name, (-LARGEST_NUMBER, LARGEST_NUMBER))
            if isinstance(value, int | float) and not least <= value <= largest:
                actual = f"{max(-1e300, min(value, 1e300)):.6g}"
                expected = f"at least {least:g}" if value < least else f"at most {largest:g}"
                raise ModelError(f"{path}: {field.name} is {actual}, expected {expected}; export the model again")
    if manifest.format not in FORMATS:
        expected = " or ".join(FORMATS)
        raise ModelError(f"{path}: format is {manifest.format[:40]!r}, expected {expected}; export the model again")
    _check_geometry(path, manifest)
    return manifest


def _check_geometry(path: Path, manifest: Manifest) -> None:
    if manifest.edge_mode not in EDGE_MODES:
        expected = " or ".join(EDGE_MODES)
        raise ModelError(
            f"{path}: edge_mode is {manifest.edge_mode[:40]!r}, expected {expected}; export the model again"
        )
    names = manifest.classes
    if len(set(names)) != 2 or len(names) != 2 or not all(map(is_class_name, names)):
        raise ModelError(
            f"{path}: classes are {str(names)[:80]}, expected the two names of the negative and the positive class; "
            "export the model again"
        )
    for name in ("label_px", "stride_px"):
        if getattr(manifest, name) > manifest.patch_px:
            raise ModelError(
                f"{path}: {name} is {getattr(manifest, name)}, expected at most {manifest.patch_px}, the patch_px; "
                "export the model again"
            )


def is_class_name(name: str) -> bool:
    """Whether a manifest may name a class so: one printable line of at most 64 characters, no space at its ends."""
    return name.isprintable() and name == name.strip() != "" and len(name) <= LONGEST_CLASS


def _are_points(points: Any) -> bool:
    """Whether a value read from JSON is a list of objects with the keys of ``OperatingPoint``."""
    names = {field.name for field in dataclasses.fields(OperatingPoint)}
    return type(points) is list and all(type(point) is dict and point.keys() == names for point in points)


def checked_bytes(model: Path, manifest: Manifest) -> bytes:
    """Return the bytes of the model file, after checking their SHA-256.

    Raises:
        ModelError: too large, or with another SHA-256 than the manifest states.
    """
    content = bounded_bytes(model, LARGEST_MODEL_BYTES)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != manifest.sha256:
        raise ModelError(
            f"{model}: changed after its manifest was written (SHA-256 {sha256[:12]}, "
            f"expected {manifest.sha256[:12]}); copy or export it again"
        )
    return content


def bounded_bytes(path: Path, limit: int) -> bytes:
    """Return the bytes of a file of at most ``limit`` bytes.

    Raises:
        ModelError: the file is larger.
    """
    size = path.stat().st_size
    if size > limit:
        raise ModelError(f"{path}: {size} bytes, expected at most {limit}; copy or export the model again")
    return path.read_bytes()
