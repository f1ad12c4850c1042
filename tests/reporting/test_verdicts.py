"""Gates and comparisons on the terminal."""

import dataclasses
import io

import pytest
from rich.console import Console

from histoedge.benchmark import Results, compare, gates
from histoedge.metrics import Interval
from histoedge.reporting import verdicts

SLOW = Interval(0.128, 0.126, 0.130)


@pytest.fixture
def row(make_measurement):
    return make_measurement(
        "prune50_int8.tflite", "litert", p50_ms=Interval(0.064, 0.063, 0.065), auc=0.93, size_bytes=113_000
    )


@pytest.fixture
def crashed(row):
    return dataclasses.replace(
        row, runtime="openvino", status="failed", reason="[bold]killed[/bold]", p50_ms=None, auc=None
    )


def printed(table):
    output = io.StringIO()
    Console(file=output, width=100, color_system=None).print(table)
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


def test_a_gate_is_one_line_and_cells_that_did_not_pass_are_below(row, crashed):
    parsed = gates.parse(["auc > 0.5", "auc > 0.925", "p50_ms < 0.01"])
    lines = printed(verdicts.gates(gates.judge_gates(parsed, Results({}, {}, (row, crashed)))))
    assert lines[:4] == [
        "gate passed failed undecided skipped",
        "auc > 0.5 1 0 0 1 passes",
        "auc > 0.925 0 0 1 1 does not pass: undecided",
        "p50_ms < 0.01 0 1 0 1 does not pass: failed",
    ]
    below = " ".join(lines[4:])
    assert "failed: p50_ms < 0.01: prune50_int8.tflite @ litert: 0.064 [0.063, 0.065] undecided:" in below
    assert "skipped: auc > 0.5: prune50_int8.tflite @ openvino: failed: [bold]killed[/bold]" in below
    assert "passed: auc > 0.5" not in below


def test_a_comparison_is_one_line_per_cell_and_other_differences_are_below(row, crashed):
    slower = dataclasses.replace(row, p50_ms=SLOW, auc=Interval(0.9312, 0.92, 0.94), sha256="b" * 64)
    other = dataclasses.replace(row, runtime="onnxruntime", kernels="mlas")
    a = Results({"python": "3.11"}, {"data": "d"}, (row, crashed))
    b = Results({"python": "3.12"}, {"data": "d"}, (slower, dataclasses.replace(crashed, status="unavailable"), other))
    lines = printed(verdicts.comparison(compare.compare(a, b)))
    assert lines[1].startswith("prune50_int8.tflite @ litert changed 113 +.0012 64.0 -> 128 2.00 [1.")
    assert lines[1].endswith("slower")
    assert "added: prune50_int8.tflite @ onnxruntime (ok)" in lines
    assert "status: prune50_int8.tflite @ openvino: failed -> unavailable" in lines
    assert "environment: python: 3.11 -> 3.12" in lines


def test_a_certainly_lower_auc_is_marked(row):
    lower = dataclasses.replace(row, auc=Interval(0.92, 0.91, 0.93))
    a, b = (Results({}, {"data": "d"}, (each,)) for each in (row, lower))
    assert "-.0100*" in printed(verdicts.comparison(compare.compare(a, b)))[1]


def test_another_machine_is_reported(row):
    a, b = (Results({"cpu": cpu}, {}, (row,)) for cpu in ("Xeon", "Ryzen"))
    lines = printed(verdicts.comparison(compare.compare(a, b)))
    assert lines[1].endswith("1.00 other machine")
    assert "times do not compare: another machine (cpu: Xeon -> Ryzen)" in lines


def test_a_comparison_keeps_the_names_of_cells_whole_in_eighty_columns(row):
    named = dataclasses.replace(row, model="exported/accurate/models/prune50_int8.tflite")
    slower = dataclasses.replace(named, p50_ms=SLOW, sha256="b" * 64)
    output = io.StringIO()
    Console(file=output, width=80, color_system=None).print(
        verdicts.comparison(compare.compare(*(Results({}, {"data": "d"}, (each,)) for each in (named, slower))))
    )
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert {"exported/accurate/models/prune50_int8.tflite", "litert", "slower", "2.00"} <= set(words)
