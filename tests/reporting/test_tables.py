"""Tables in Markdown and CSV."""

import csv
import dataclasses
import io
import re

from histoedge import reporting
from histoedge.benchmark import Measurement, Results, columns
from histoedge.reporting.tables import CURVES


def test_markdown_has_a_row_of_equal_width_for_every_cell(results):
    cost, quality = reporting.markdown(results).split("\n\n")[:2]
    assert len([line for line in quality.splitlines() if line]) == 2 + 3
    lines = cost.splitlines()
    assert len(lines) == 2 + len(results.measurements)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "0.9159 [0.9059, 0.9259]" in lines[3]
    assert "<script" not in reporting.markdown(results)


def test_calibration_is_shown_if_it_was_measured(results, printed):
    assert "| sens. at 95 % spec. | ECE |" in reporting.markdown(results)
    assert "| 0.583 [0.521, 0.640] | 0.0312 |" in reporting.markdown(results)
    assert "<td>0.583<small>0.521\u00a0… 0.640</small></td>" in reporting.html(results)
    assert "0.0312" in printed(reporting.terminal(results))
    names = ("ece", "sensitivity_at_95_specificity")
    old = [dataclasses.replace(row, **dict.fromkeys(names)) for row in results.measurements]
    for text in (reporting.markdown(Results({}, {}, tuple(old))), reporting.html(Results({}, {}, tuple(old)))):
        assert "ECE" not in text


def test_csv_contains_every_figure_of_every_cell(results, hostile):
    rows = list(csv.DictReader(io.StringIO(reporting.csv_text(results))))
    assert list(rows[0]) == [name for name in columns.column_types(Measurement) if name not in CURVES]
    assert [float(rows[1][name]) for name in ("p50_ms", "p50_lo", "p50_hi")] == list(
        dataclasses.astuple(results.measurements[1].p50_ms)
    )
    assert (rows[3]["status"], rows[3]["reason"], rows[3]["auc"]) == ("failed", hostile, "")
