"""The facts of a report as one JSON document, for programs that would otherwise read a table."""

from typing import Any

from histoedge.benchmark import Measurement, Results
from histoedge.reporting import facts, subject
from histoedge.reporting.notes import notes

COLUMNS = (
    *("model", "runtime", "threads", "batch", "field_px", "status", "p50_ms", "p50_lo", "p50_hi"),
    *("p50_ratio", "p50_ratio_lo", "p50_ratio_hi", "auc", "auc_lo", "auc_hi", "d_auc", "d_auc_lo", "d_auc_hi"),
    "size_bytes",
)


def document(results: Results, *, name: str | None = None) -> dict[str, Any]:
    """What the report says, as JSON.

    ``title``: a line. ``run``, ``networks`` (a list), ``data`` (``content_hash`` SHA-256, ``patches`` a count,
    ``synthetic`` whether they were drawn; None where not recorded).
    ``headlines``: ``fastest`` (ms per call at p50), ``shortest`` (p50 over that of the fp32 file) and ``auc`` (the
    highest), each None or an object of ``value``, ``lo``, ``hi``, ``model``, ``runtime``, ``threads``; ``auc`` has also
    ``clearly_best``: whether its interval overlaps that of no other network here. Files that answer wrong or lose AUC
    for certain are in none of the first two.
    ``warnings``: a line for each of these files. ``notes``: as below the table.
    ``rows``: an object per cell with the keys of ``COLUMNS``, which are those of a results file.
    ``environment``: that of the results file, with the ``date`` in UTC, the ``commit`` and histoedge's version.

    Args:
        results: what was measured.
        name: of the run, where the results do not tell it.
    """
    found = {one.name: one for one in facts.headlines(results)}
    synthetic = facts.is_synthetic(results) if "data" in results.environment else None
    return {
        "title": subject.title(results, name),
        "run": subject.run_name(results, name),
        "networks": subject.networks_of(results),
        "data": {
            "content_hash": results.inputs.get("data"),
            "patches": subject.patches_of(results.measurements),
            "synthetic": synthetic,
        },
        "headlines": {key: _headline(found[key]) if key in found else None for key in ("fastest", "shortest", "auc")},
        "warnings": facts.warnings(results),
        "notes": notes(results),
        "rows": [_row(row) for row in results.measurements],
        "environment": results.environment,
    }


def _headline(one: facts.Headline) -> dict[str, Any]:
    told: dict[str, Any] = {"value": one.value, "lo": one.lo, "hi": one.hi}
    told |= {"model": one.row.model, "runtime": one.row.runtime, "threads": one.row.threads}
    return {**told, "clearly_best": one.clearly_best} if one.name == "auc" else told


def _row(row: Measurement) -> dict[str, Any]:
    return {key: getattr(row, key) for key in COLUMNS}
