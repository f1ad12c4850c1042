"""One measured cell as data, and ``bench.json``: what was measured, on what, from what."""

import dataclasses
import json
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, TypeVar

from histoedge import files
from histoedge.benchmark import curves, environment
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.layer_errors import FileLayers, Layer
from histoedge.benchmark.quality import PERCENTS, Robustness
from histoedge.edge.errors import DataError

FORMAT = 1
STATUSES = ("ok", "unsettled", "unavailable", "failed")
LARGEST_RESULTS_BYTES = 1 << 26

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One file on one runtime with one shape. Times are milliseconds per call of ``batch`` square fields of
    ``field_px``; None where not measured. ``scenario`` is the name of the shape, a key of ``config.SCENARIOS``; None
    where it has no name.

    ``status``: ``ok``; ``unsettled``: measured, but the 95 % interval of p50 is wider than the plan's
    ``settled_width`` (or there was one round only); ``unavailable``: the runtime or its device is not here, or fewer
    CPUs than ``threads``; ``failed``. All but ``ok`` have a ``reason``.

    ``compressed_bytes`` is the file after zlib at its highest level, ``zeros`` the share of zeros in its kernels.
    ``load_ms`` opens the file (the runtime's modules imported before), ``first_ms`` is the first call after it.
    ``p50_lo`` and ``p50_hi`` bound ``p50_ms``, the others likewise; ``n_calls`` were timed in ``n_rounds``. A call
    gives ``n_outputs`` logits; ``patches_per_s`` counts these, ``mpx_per_s`` millions of pixels that went in. ``cpus``
    is how many CPUs the threads of the process may run on, ``os_threads`` how many threads it has after the first call.
    ``peak_rss_bytes`` is the whole process, interpreter included, ``rss_over_empty_bytes`` what that is more than of
    one that opens nothing. ``energy_mj`` is millijoules of all CPU packages per call, whoever used them. ``peak_share``
    is MACs per second at p50 over the fastest of the environment's ``integer_peak_gmacs`` for these threads; None for
    larger fields, whose MACs no manifest tells, on a GPU, and where no runtime could be asked.
    ``reference`` is what ``d_auc`` (this AUC less the reference's, paired DeLong) and ``p50_ratio`` (this p50 over the
    reference's in a round, the median of all rounds) compare with: the fp32 file of the same format on the same
    runtime; for fp32 files the source network, with no ratio. All intervals are 95 %. ``sha256`` is the model file's.

    ``ece`` is ``metrics.calibration_error`` of the probabilities at the manifest's temperature, of the source network
    at that of its fp32 file, None without one. ``sensitivity_at_95_specificity`` has a bootstrap interval that chooses
    the threshold anew. Both are of the test split; results of before they were measured have None.
    """

    model: str
    recipe: str
    format: str
    network: str | None = None
    runtime: str
    runtime_version: str | None = None
    kernels: str | None = None
    scenario: str | None = None
    threads: int
    cpus: int | None = None
    os_threads: int | None = None
    batch: int
    field_px: int
    status: str
    reason: str | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    zeros: float | None = None
    params: int | None = None
    macs: int | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    p50_ms: float | None = None
    p50_lo: float | None = None
    p50_hi: float | None = None
    p90_ms: float | None = None
    p90_lo: float | None = None
    p90_hi: float | None = None
    p95_ms: float | None = None
    p95_lo: float | None = None
    p95_hi: float | None = None
    p99_ms: float | None = None
    p99_lo: float | None = None
    p99_hi: float | None = None
    n_calls: int | None = None
    n_rounds: int | None = None
    n_outputs: int | None = None
    patches_per_s: float | None = None
    patches_per_s_lo: float | None = None
    patches_per_s_hi: float | None = None
    mpx_per_s: float | None = None
    peak_rss_bytes: int | None = None
    rss_over_empty_bytes: int | None = None
    energy_mj: float | None = None
    peak_share: float | None = None
    auc: float | None = None
    auc_lo: float | None = None
    auc_hi: float | None = None
    n_patches: int | None = None
    ece: float | None = None
    sensitivity_at_95_specificity: float | None = None
    sensitivity_at_95_specificity_lo: float | None = None
    sensitivity_at_95_specificity_hi: float | None = None
    reference: str | None = None
    d_auc: float | None = None
    d_auc_lo: float | None = None
    d_auc_hi: float | None = None
    p50_ratio: float | None = None
    p50_ratio_lo: float | None = None
    p50_ratio_hi: float | None = None
    sha256: str | None = None
    sensitivity_at_90_specificity: float | None = None
    sensitivity_at_90_specificity_lo: float | None = None
    sensitivity_at_90_specificity_hi: float | None = None
    sensitivity_at_99_specificity: float | None = None
    sensitivity_at_99_specificity_lo: float | None = None
    sensitivity_at_99_specificity_hi: float | None = None
    specificity_at_90_sensitivity: float | None = None
    specificity_at_90_sensitivity_lo: float | None = None
    specificity_at_90_sensitivity_hi: float | None = None
    specificity_at_95_sensitivity: float | None = None
    specificity_at_95_sensitivity_lo: float | None = None
    specificity_at_95_sensitivity_hi: float | None = None
    specificity_at_99_sensitivity: float | None = None
    specificity_at_99_sensitivity_lo: float | None = None
    specificity_at_99_sensitivity_hi: float | None = None
    brier: float | None = None
    brier_lo: float | None = None
    brier_hi: float | None = None
    auc_slides_lo: float | None = None
    auc_slides_hi: float | None = None
    flips: int | None = None
    flips_to_positive: int | None = None
    flips_to_negative: int | None = None
    mcnemar_p: float | None = None
    d_auc_slides_lo: float | None = None
    d_auc_slides_hi: float | None = None
    ms_quantiles: tuple[float, ...] | None = None
    roc: Roc | None = None
    reliability: Reliability | None = None
    robustness: tuple[Robustness, ...] | None = None

    @property
    def measured(self) -> bool:
        """Whether it has figures: ``ok`` or ``unsettled``."""
        return self.status in ("ok", "unsettled")


@dataclass(frozen=True)
class Results:
    """The content of a ``bench.json``. ``layers`` is empty where the weights were not there to compare with."""

    environment: dict[str, Any]
    inputs: dict[str, Any]
    measurements: tuple[Measurement, ...]
    layers: tuple[FileLayers, ...] = ()


def is_int8(row: Measurement) -> bool:
    """Whether it is of a file that computes in integers, by the name of its recipe."""
    return "int8" in row.recipe


def write_results(
    path: Path,
    measurements: Sequence[Measurement],
    *,
    inputs: dict[str, Any],
    about: dict[str, Any] | None = None,
    layers: Sequence[FileLayers] = (),
) -> None:
    """Write ``bench.json`` with a description of this machine, whole or not at all.

    ``about`` adds to the description what was measured of the machine.

    Raises:
        WriteError: the place cannot be written.
    """
    rows = [dataclasses.asdict(measurement) for measurement in measurements]
    machine = {**environment.this_machine(), **(about or {})}
    document = {"format": FORMAT, "environment": machine, "inputs": inputs, "measurements": rows}
    if layers:
        document["layers"] = [dataclasses.asdict(one) for one in layers]
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    files.write_text(path, _NUMBERS.sub(lambda found: " ".join(found[0].split()), text))


def read_results(path: Path) -> Results:
    """The results in a ``bench.json``, every key and type checked.

    Raises:
        DataError: missing, not JSON, of another format, or with keys or values that do not belong.
    """
    try:
        if path.stat().st_size > LARGEST_RESULTS_BYTES:
            raise DataError(f"{path}: larger than {LARGEST_RESULTS_BYTES >> 20} MB; this is not a results file")
        document = json.loads(path.read_text(), parse_constant=_refuse)
    except FileNotFoundError:
        raise DataError(f"{path}: no such results file; histoedge bench writes one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON document ({error}); measure again") from error
    if not isinstance(document, dict) or "measurements" not in document:
        raise DataError(f"{path}: not a results file of histoedge bench")
    if document.get("format") != FORMAT:
        raise DataError(f"{path}: results format {document.get('format')!r}, expected {FORMAT}; measure again")
    rows, about, inputs = document["measurements"], document.get("environment"), document.get("inputs")
    if not isinstance(rows, list) or not isinstance(about, dict) or not isinstance(inputs, dict):
        raise DataError(f"{path}: environment, inputs or measurements missing; measure again")
    checked = tuple(_measurement(row, f"{path}: measurement {number}") for number, row in enumerate(rows, start=1))
    try:
        layers = _rows_from(FileLayers, document.get("layers", []), layers=lambda content: _rows_from(Layer, content))
    except DataError as error:
        raise DataError(f"{path}: layers: {error}; measure again") from error
    return Results(about, inputs, checked, layers)


def results_are_current(path: Path, inputs: dict[str, Any]) -> bool:
    """Whether ``path`` holds readable results measured from these inputs."""
    try:
        return read_results(path).inputs == inputs
    except DataError:
        return False


_NUMBERS = re.compile(r"\[\n[-+.,eE\d\s]+\]")
"""A list of numbers over many lines; no text in JSON holds a line break."""

_LATER = {
    *("ece", "scenario", "os_threads", "n_rounds", "n_outputs", "mpx_per_s", "patches_per_s_lo", "patches_per_s_hi"),
    *(f"{name}_{bound}" for name in ("p90", "p95", "p99") for bound in ("lo", "hi")),
    *("rss_over_empty_bytes", "energy_mj", "peak_share"),
    *(f"sensitivity_at_{percent}_specificity{bound}" for percent in PERCENTS for bound in ("", "_lo", "_hi")),
    *(f"specificity_at_{percent}_sensitivity{bound}" for percent in PERCENTS for bound in ("", "_lo", "_hi")),
    *("brier", "brier_lo", "brier_hi", "auc_slides_lo", "auc_slides_hi", "d_auc_slides_lo", "d_auc_slides_hi"),
    *("flips", "flips_to_positive", "flips_to_negative", "mcnemar_p"),
    *("ms_quantiles", "roc", "reliability", "robustness"),
}
"""Keys that results files of format 1 may lack, because they are younger."""

_TYPES = {
    name: typing.get_args(hint) or (hint,) for name, hint in typing.get_type_hints(Measurement).items()
}  # such as p50_ms: (float, NoneType)


_PLAIN = {name: kinds for name, kinds in _TYPES.items() if set(kinds) <= {str, int, float, NoneType}}


def _rows_from(kind: type[Row], content: Any, **parsers: Callable[[Any], Any]) -> tuple[Row, ...]:
    """Dataclasses from what JSON holds of them; ``parsers`` are for the fields that are no single value."""
    hints = typing.get_type_hints(kind)
    found = []
    for row in content if isinstance(content, list) else [None]:
        if not isinstance(row, dict) or row.keys() != hints.keys():
            raise DataError(f"expected a list of objects with the keys {', '.join(hints)}")
        for name in hints.keys() - parsers.keys():
            kinds = typing.get_args(hints[name]) or (hints[name],)
            if not _fits(row[name], kinds):
                raise DataError(f"{name} is {str(row[name])[:40]!r}, expected {_spoken(kinds)}")
        found.append(kind(**row | {name: parse(row[name]) for name, parse in parsers.items()}))
    return tuple(found)


_COMPOUND: Mapping[str, Callable[[Any], Any]] = {
    "ms_quantiles": curves.ms_quantiles_from,
    "roc": lambda content: curves.curve_from(Roc, content),
    "reliability": lambda content: curves.curve_from(Reliability, content),
    "robustness": lambda content: _rows_from(Robustness, content),
}


def _measurement(row: Any, where: str) -> Measurement:
    if not isinstance(row, dict):
        raise DataError(f"{where} is {type(row).__name__}, expected an object")
    if odd := sorted((row.keys() ^ _TYPES.keys()) - (_LATER - row.keys())):
        raise DataError(f"{where}: keys missing or unknown: {', '.join(odd[:5])}; measure again")
    for name, value in row.items():
        if name in _PLAIN and not _fits(value, _PLAIN[name]):
            raise DataError(f"{where}: {name} is {str(value)[:40]!r}, expected {_spoken(_PLAIN[name])}")
    if row["status"] not in STATUSES:
        raise DataError(f"{where}: status {row['status']!r}, expected one of {', '.join(STATUSES)}")
    compound = {}
    for name, parse in _COMPOUND.items():
        if row.get(name) is not None:
            try:
                compound[name] = parse(row[name])
            except DataError as error:
                raise DataError(f"{where}: {name}: {error}; measure again") from error
    return Measurement(**{**row, **compound})


def _spoken(kinds: Iterable[type]) -> str:
    return " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if type(value) in kinds:
        return not isinstance(value, float) or math.isfinite(value)
    return type(value) is int and float in kinds


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
