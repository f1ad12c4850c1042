"""The content of a report as one JSON document, for programs."""

from typing import Any

from histoedge.benchmark import Measurement, Results, columns
from histoedge.reporting import facts, subject
from histoedge.reporting.notes import notes

COLUMNS = (
    *("model", "runtime", "threads", "batch", "field_px", "status", "p50_ms", "p50_lo", "p50_hi"),
    *("p50_ratio", "p50_ratio_lo", "p50_ratio_hi", "auc", "auc_lo", "auc_hi", "d_auc", "d_auc_lo", "d_auc_hi"),
    "size_bytes",
)


def document(results: Results, *, name: str | None = None) -> dict[str, Any]:
    """Return the content of the report as JSON.

    ``title``: one line. ``run``, ``networks`` (a list), ``data`` (``content_hash`` SHA-256, ``patches`` a count,
    ``synthetic`` true or false; None if not recorded).
    ``headlines``: ``fastest`` (ms per call at p50), ``shortest`` (p50 over that of the fp32 file) and ``auc`` (the
    highest), each None or an object of ``value``, ``lo``, ``hi``, ``model``, ``runtime``, ``threads``; ``auc`` also has
    ``clearly_best``: whether no other network's interval overlaps. Files with wrong answers or a certain loss of AUC
    are excluded from the first two.
    ``warnings``: a line for each of these files. ``notes``: as below the table.
    ``rows``: an object per cell with ``COLUMNS``, which are columns of a results file, in this order.
    ``environment``: from the results file, with the ``date`` in UTC, the ``commit`` and histoedge's version.

    Args:
        results: the measurements.
        name: of the run, used if the results do not record it.
    """
    headlines = {headline.name: headline for headline in facts.headlines(results)}
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
        "headlines": {key: _headline(headlines.get(key)) for key in ("fastest", "shortest", "auc")},
        "warnings": facts.warnings(results),
        "notes": notes(results),
        "rows": [_row(row) for row in results.measurements],
        "environment": results.environment,
    }


def _headline(headline: facts.Headline | None) -> dict[str, Any] | None:
    if headline is None:
        return None
    figure, row = headline.figure, headline.row
    fields: dict[str, Any] = {"value": figure.value, "lo": figure.lo, "hi": figure.hi}
    fields |= {"model": row.model, "runtime": row.runtime, "threads": row.threads}
    return fields | ({"clearly_best": headline.clearly_best} if headline.name == "auc" else {})


def _row(row: Measurement) -> dict[str, Any]:
    values = columns.as_columns(row)
    return {key: values[key] for key in COLUMNS}
