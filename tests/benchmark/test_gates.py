"""Gates on results by hand: each outcome, and every way to write one wrong."""

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from histoedge.benchmark import Results, gates, junit, noise
from histoedge.edge.errors import ConfigError

PAIRED = {"d_auc": -0.001, "d_auc_lo": -0.002, "d_auc_hi": 0.0}
FASTER = {"p50_ratio": 0.50, "p50_ratio_lo": 0.45, "p50_ratio_hi": 0.54}


@pytest.fixture
def row(cell):
    times = {"p50_ms": 0.50, "p50_lo": 0.48, "p50_hi": 0.52, "p99_ms": 0.9}
    return cell(auc=0.93, size_bytes=113_000, **times, **PAIRED, **FASTER)


@pytest.fixture
def litert(row):
    return dataclasses.replace(row, model="int8.tflite", format="tflite", runtime="litert", p50_ratio_hi=0.60)


@pytest.fixture
def crashed(cell):
    return cell(runtime="openvino", status="failed", reason="killed by SIGSEGV", p50_ms=None, auc=None)


def results(*rows, cpu="Xeon", data="d"):
    return Results({"cpu": cpu}, {"data": data}, rows)


def judged(text, *rows, baseline=None):
    parsed = gates.parse([text], baseline=baseline is not None)
    return gates.judge_gates(parsed, results(*rows), baseline=baseline)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("p50_ratio < 0.55", "passed"),  # 0.45 to 0.54
        ("p50_ratio < 0.50", "undecided"),
        ("p50_ratio < 0.45", "failed"),
        ("p50_ratio >= 0.45", "passed"),
        ("p50_ratio > 0.45", "undecided"),
        ("p50_ms <= 0.52", "passed"),  # 0.48 to 0.52
        ("p50_ms < 0.52", "undecided"),
        ("auc > 0.95", "failed"),
        ("d_auc_lo > -0.005", "passed"),  # a bound is a number
        ("d_auc_lo > -0.002", "failed"),
        ("d_auc > -0.002", "undecided"),
        ("size_bytes<=113e3", "passed"),  # no interval
    ],
)
def test_the_whole_interval_decides(text, outcome, row):
    (one,) = judged(text, row)
    assert one.outcome == outcome
    assert (one.gate, one.cell) == (text, "int8.onnx @ onnxruntime")
    assert ("reaches both sides" in (one.reason or "")) == (outcome == "undecided")


@pytest.mark.parametrize(
    ("which", "cells"),
    [
        ("", 2),
        ("int8: ", 2),
        ("int8.onnx: ", 1),
        ("*.tflite@*: ", 1),
        ("@onnxruntime: ", 1),
        ("int8.onnx @ onnxruntime: ", 1),
    ],
)
def test_a_gate_can_be_for_some_cells(which, cells, row, litert):
    found = judged(f"{which}p50_ms < 1", row, litert)
    assert [one.outcome for one in found] == ["passed"] * cells


def test_a_model_in_a_folder_is_found_by_its_file_name(row):
    nested = dataclasses.replace(row, model="edge/models/int8.onnx")
    assert [one.outcome for one in judged("int8.onnx: auc > 0.9", nested)] == ["passed"]


def test_a_cell_without_the_figure_is_skipped_and_says_why(row, crashed):
    passed, skipped = judged("p50_ratio < 0.55", row, crashed)
    assert (passed.outcome, skipped.outcome) == ("passed", "skipped")
    assert skipped.reason == "failed: killed by SIGSEGV"


@pytest.mark.parametrize(
    ("text", "rows", "says"),
    [
        ("auc > 0.5", [], "the results are empty"),
        ("@openvino: auc > 0.5", ["crashed"], "all 1 are skipped, the first because: failed: killed by SIGSEGV"),
        ("int9: auc > 0.5", ["row"], "none is int9@*; there are int8.onnx@onnxruntime"),
        ("ece < 0.1", ["row"], "ece is not measured"),
    ],
)
def test_a_gate_that_judged_nothing_fails(text, rows, says, request):
    last = judged(text, *map(request.getfixturevalue, rows))[-1]
    assert (last.outcome, last.cell) == ("failed", "")
    assert says in last.reason


def test_a_single_round_decides_nothing_about_time(row):
    rate = dict.fromkeys(("patches_per_s", "patches_per_s_lo", "patches_per_s_hi"), 2000.0)
    one_round = dataclasses.replace(row, status="unsettled", p50_lo=0.5, p50_hi=0.5, **rate)
    for gate in ("p50_ms < 9", "patches_per_s > 9"):
        (one,) = judged(gate, one_round)
        assert (one.outcome, one.reason) == ("undecided", "one round shows no spread; measure several")


def test_more_rounds_not_more_patches_decide_how_fast(row):
    rate = {"patches_per_s": 2000.0, "patches_per_s_lo": 1900.0, "patches_per_s_hi": 2100.0}
    (one,) = judged("patches_per_s > 1950", dataclasses.replace(row, **rate))
    assert (one.outcome, "measure more rounds" in one.reason) == ("undecided", True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("p50_ratoi < 0.55", "unknown numeric column 'p50_ratoi'; did you mean p50_ratio?"),
        ("status < 1", "unknown numeric column 'status'"),
        ("p50_ratio", "expected COLUMN OP NUMBER"),
        ("p50_ratio = 0.5", "expected COLUMN OP NUMBER"),
        ("p50_ratio < fast", "expected COLUMN OP NUMBER"),
        ("p50_ratio < nan", "expected COLUMN OP NUMBER"),
        ("p50_ratio < 0.5 0.6", "expected COLUMN OP NUMBER"),
        ("0.4 < p50_ratio < 0.5", "expected COLUMN OP NUMBER"),
        ("", "expected COLUMN OP NUMBER"),
        ("p50_vs_baseline < 1.1", "give --baseline OLD.json"),
    ],
)
def test_a_gate_written_wrong_is_refused(text, says):
    with pytest.raises(ConfigError, match="--gate") as refused:
        gates.parse([text])
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("p50_ms", "outcome"), [(0.25, "failed"), (0.5, "passed"), (0.46, "undecided")]
)  # the ratio to it is 2, 1 and 1.09, give or take a tenth
def test_time_against_a_baseline_knows_of_drift(p50_ms, outcome, row):
    old = dataclasses.replace(row, p50_ms=p50_ms, p50_lo=0.96 * p50_ms, p50_hi=1.04 * p50_ms)
    (one,) = judged("p50_vs_baseline < 1.15", row, baseline=results(old))
    assert one.value == pytest.approx(0.5 / p50_ms)
    assert one.outcome == outcome


def test_auc_against_a_baseline_is_exact_for_the_same_file(row):
    (one,) = judged("auc_vs_baseline >= 0", row, baseline=results(row))
    assert (one.outcome, one.value, one.lo, one.hi) == ("passed", 0, 0, 0)
    (other,) = judged("auc_vs_baseline >= 0", dataclasses.replace(row, sha256="b" * 64), baseline=results(row))
    assert other.outcome == "undecided"


def test_times_of_another_machine_decide_nothing(row):
    (one,) = judged("p50_vs_baseline < 9", row, baseline=results(row, cpu="Ryzen"))
    assert one.outcome == "undecided"
    assert "another machine (cpu: Ryzen -> Xeon)" in one.reason


def test_a_cell_that_the_baseline_lacks_is_skipped(row, litert, crashed):
    found = judged("p50_vs_baseline < 1.15", row, litert, crashed, baseline=results(row, crashed))
    assert [one.outcome for one in found] == ["passed", "skipped", "skipped"]
    assert [one.reason for one in found[1:]] == ["the baseline has no such cell", "failed: killed by SIGSEGV"]


def test_junit_has_a_case_per_gate_and_cell(tmp_path, row, litert, crashed):
    hostile = dataclasses.replace(crashed, reason='killed by <"SIGSEGV"> \x1b[31m\x00 & more')
    parsed = gates.parse(["p50_ratio < 0.55", "auc > 0.95", "int9: auc > 0"])
    junit.write_junit(tmp_path / "gates.xml", gates.judge_gates(parsed, results(row, litert, hostile)))
    root = ElementTree.parse(tmp_path / "gates.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("skipped"), root.get("errors")) == ("7", "4", "2", "0")
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert len(cases) == 7
    assert len(cases["p50_ratio < 0.55", "int8.onnx @ onnxruntime"]) == 0
    undecided = cases["p50_ratio < 0.55", "int8.tflite @ litert"].find("failure")
    assert undecided.get("type") == "undecided"
    assert undecided.get("message").startswith("0.5 [0.45, 0.6]: the interval reaches both sides of 0.55; measure more")
    assert cases["auc > 0.95", "int8.onnx @ onnxruntime"].find("failure").get("type") == "failed"
    assert 'failed: killed by <"SIGSEGV">' in cases["auc > 0.95", "int8.onnx @ openvino"].find("skipped").get("message")
    assert cases["int9: auc > 0", "no cell"].find("failure") is not None


def test_the_guide_shows_gates_and_the_drift_that_they_allow_for():
    guide = Path(__file__).parents[2] / "histoedge" / "GUIDE.md"
    if not guide.is_file():
        pytest.skip("not a checkout")
    texts = re.findall(r"--gate '([^']+)'", guide.read_text())
    assert len(texts) == 5
    parsed = gates.parse(texts, baseline=True)
    assert [(one.model, one.runtime) for one in parsed].count(("int8.onnx", "onnxruntime")) == 1
    assert {one.column for one in parsed} >= set(gates.BASELINE)
    assert f"a drift of {100 * noise.DRIFT:.1f} %" in " ".join(guide.read_text().split())
