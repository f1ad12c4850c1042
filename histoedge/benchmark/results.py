"""``bench.json``: the measurements of a benchmark with their inputs and environment."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, TypeVar

from histoedge import files
from histoedge.benchmark import columns, curves, environment
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.layer_errors import FileLayers, Layer
from histoedge.benchmark.quality import PERCENTS, Robustness
from histoedge.benchmark.result_row import STATUSES, Measurement
from histoedge.edge.errors import DataError

FORMAT = 1
LARGEST_RESULTS_BYTES = 1 << 26

Row = TypeVar("Row")


@dataclass(frozen=True)
class Results:
    """The content of a ``bench.json``. ``layers`` is empty if the layers were not compared with their weights."""

    environment: dict[str, Any]
    inputs: dict[str, Any]
    measurements: tuple[Measurement, ...]
    layers: tuple[FileLayers, ...] = ()


def write_results(
    path: Path,
    measurements: Sequence[Measurement],
    *,
    inputs: dict[str, Any],
    about: dict[str, Any] | None = None,
    layers: Sequence[FileLayers] = (),
) -> None:
    """Write ``bench.json`` with a description of this machine. The file appears complete or not at all.

    Args:
        path: the file.
        measurements: its rows.
        inputs: everything that the figures depend on, as JSON.
        about: more entries for the environment, such as the memory of an empty process.
        layers: errors of single layers.

    Raises:
        WriteError: the path cannot be written.
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "environment": {**environment.this_machine(), **(about or {})},
        "inputs": inputs,
        "measurements": [columns.as_columns(row) for row in measurements],
    }
    if layers:
        document["layers"] = [columns.as_columns(file) for file in layers]
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    files.write_text(path, _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), text))


def read_results(path: Path) -> Results:
    """Return the results in a ``bench.json`` after a check of every key and type.

    Raises:
        DataError: the file is missing, not JSON, of another format, or has wrong keys or values.
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
    measurements = tuple(_measurement(row, f"{path}: measurement {number}") for number, row in enumerate(rows, start=1))
    try:
        layers = _rows_from(FileLayers, document.get("layers", []), layers=lambda content: _rows_from(Layer, content))
    except DataError as error:
        raise DataError(f"{path}: layers: {error}; measure again") from error
    return Results(about, inputs, measurements, layers)


def results_are_current(path: Path, inputs: dict[str, Any]) -> bool:
    """Whether ``path`` contains readable results that were measured from these inputs."""
    try:
        return read_results(path).inputs == inputs
    except DataError:
        return False


_NUMBERS = re.compile(r"\[\n[-+.,eE\d\s]+\]")
"""A list of numbers over several lines. Strings in JSON contain no line breaks."""

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
"""Columns that older results files of format 1 may lack."""

_TYPES = columns.column_types(Measurement)

_SINGLE = {name: kinds for name, kinds in _TYPES.items() if set(kinds) <= {str, int, float, NoneType}}
"""Columns of single values: no lists, no objects."""


def _rows_from(kind: type[Row], content: Any, **parsers: Callable[[Any], Any]) -> tuple[Row, ...]:
    """Return dataclasses from a list of JSON objects; ``parsers`` are for columns that are not single values."""
    types = {name: kinds for name, kinds in columns.column_types(kind).items() if name not in parsers}
    rows = []
    for row in content if isinstance(content, list) else [None]:
        if not isinstance(row, dict) or row.keys() != types.keys() | parsers.keys():
            raise DataError(f"expected a list of objects with the keys {', '.join(columns.column_types(kind))}")
        columns.check_types(types, row)
        rows.append(columns.from_columns(kind, row | {name: parse(row[name]) for name, parse in parsers.items()}))
    return tuple(rows)


_COMPOUND: Mapping[str, Callable[[Any], Any]] = {
    "ms_quantiles": curves.ms_quantiles_from,
    "roc": lambda content: curves.curve_from(Roc, content),
    "reliability": lambda content: curves.curve_from(Reliability, content),
    "robustness": lambda content: _rows_from(Robustness, content),
}


def _measurement(row: Any, where: str) -> Measurement:
    if not isinstance(row, dict):
        raise DataError(f"{where} is {type(row).__name__}, expected an object")
    if wrong := sorted((row.keys() ^ _TYPES.keys()) - (_LATER - row.keys())):
        raise DataError(f"{where}: keys missing or unknown: {', '.join(wrong[:5])}; measure again")
    compound = {}
    try:
        columns.check_types(_SINGLE, row)
        if row["status"] not in STATUSES:
            raise DataError(f"status {row['status']!r}, expected one of {', '.join(STATUSES)}")
        for name, parse in _COMPOUND.items():
            if row.get(name) is not None:
                compound[name] = _parsed_column(name, row[name], parse)
        return columns.from_columns(Measurement, row | compound)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _parsed_column(name: str, content: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(content)
    except DataError as error:
        raise DataError(f"{name}: {error}; measure again") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
