"""Gates on handmade results: each outcome, and wrongly written gates."""

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from histoedge.benchmark import Results, gates, junit, noise
from histoedge.edge.errors import ConfigError
from histoedge.metrics import Interval

AGAINST_FP32 = {"d_auc": Interval(-0.001, -0.002, 0.0), "p50_ratio": Interval(0.50, 0.45, 0.54)}


@pytest.fixture
def row(make_measurement):
    times = {"p50_ms": Interval(0.50, 0.48, 0.52), "p99_ms": Interval(0.9, 0.8, 1.0)}
    return make_measurement(auc=0.93, size_bytes=113_000, **times, **AGAINST_FP32)


@pytest.fixture
def litert(row):
    ratio = Interval(0.50, 0.45, 0.60)
    return dataclasses.replace(row, model="int8.tflite", format="tflite", runtime="litert", p50_ratio=ratio)


@pytest.fixture
def crashed(make_measurement):
    return make_measurement(runtime="openvino", status="failed", reason="killed by SIGSEGV", p50_ms=None, auc=None)


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
    (judgement,) = judged(text, row)
    assert judgement.outcome == outcome
    assert (judgement.gate, judgement.cell) == (text, "int8.onnx @ onnxruntime")
    assert ("the interval contains" in (judgement.reason or "")) == (outcome == "undecided")


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
def test_a_gate_can_select_cells(which, cells, row, litert):
    judgements = judged(f"{which}p50_ms < 1", row, litert)
    assert [judgement.outcome for judgement in judgements] == ["passed"] * cells


def test_a_gate_selects_a_model_in_a_folder_by_its_file_name(row):
    nested = dataclasses.replace(row, model="edge/models/int8.onnx")
    (judgement,) = judged("int8.onnx: auc > 0.9", nested)
    assert judgement.outcome == "passed"


def test_a_cell_without_the_figure_is_skipped_with_a_reason(row, crashed):
    passed, skipped = judged("p50_ratio < 0.55", row, crashed)
    assert (passed.outcome, skipped.outcome) == ("passed", "skipped")
    assert skipped.reason == "failed: killed by SIGSEGV"


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ("auc > 0.5", [], "the results are empty"),
        ("@openvino: auc > 0.5", ["crashed"], "all 1 are skipped, the first because: failed: killed by SIGSEGV"),
        ("int9: auc > 0.5", ["row"], "none matches int9@*; the cells are int8.onnx@onnxruntime"),
        ("ece < 0.1", ["row"], "ece is not measured"),
    ],
)
def test_a_gate_that_judged_no_cell_fails(text, rows, message, request):
    last = judged(text, *map(request.getfixturevalue, rows))[-1]
    assert (last.outcome, last.cell) == ("failed", "")
    assert message in last.reason


def test_a_single_round_decides_nothing_about_time(row):
    figures = {"p50_ms": Interval(0.5, 0.5, 0.5), "patches_per_s": Interval(2000.0, 2000.0, 2000.0)}
    one_round = dataclasses.replace(row, status="unsettled", **figures)
    for gate in ("p50_ms < 9", "patches_per_s > 9"):
        (judgement,) = judged(gate, one_round)
        assert judgement.outcome == "undecided"
        assert judgement.reason == "one round shows no spread; measure several"


def test_an_undecided_speed_requires_more_rounds_not_more_patches(row):
    measured = dataclasses.replace(row, patches_per_s=Interval(2000.0, 1900.0, 2100.0))
    (judgement,) = judged("patches_per_s > 1950", measured)
    assert (judgement.outcome, "measure more rounds" in judgement.reason) == ("undecided", True)


@pytest.mark.parametrize(
    ("text", "message"),
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
        ("p50_vs_baseline < 1.1", "add --baseline OLD.json"),
    ],
)
def test_a_wrongly_written_gate_is_refused(text, message):
    with pytest.raises(ConfigError, match="--gate") as refused:
        gates.parse([text])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("p50_ms", "outcome"), [(0.25, "failed"), (0.5, "passed"), (0.46, "undecided")]
)  # ratios of 2, 1 and 1.09, with intervals of about 10 % to each side
def test_the_interval_of_a_time_against_a_baseline_includes_drift(p50_ms, outcome, row):
    old = dataclasses.replace(row, p50_ms=Interval(p50_ms, 0.96 * p50_ms, 1.04 * p50_ms))
    (judgement,) = judged("p50_vs_baseline < 1.15", row, baseline=results(old))
    assert judgement.value == pytest.approx(0.5 / p50_ms)
    assert judgement.outcome == outcome


def test_auc_against_a_baseline_is_exact_for_the_same_file(row):
    (same,) = judged("auc_vs_baseline >= 0", row, baseline=results(row))
    assert (same.outcome, same.value, same.lo, same.hi) == ("passed", 0, 0, 0)
    (other,) = judged("auc_vs_baseline >= 0", dataclasses.replace(row, sha256="b" * 64), baseline=results(row))
    assert other.outcome == "undecided"


def test_times_of_another_machine_decide_nothing(row):
    (judgement,) = judged("p50_vs_baseline < 9", row, baseline=results(row, cpu="Ryzen"))
    assert judgement.outcome == "undecided"
    assert "another machine (cpu: Ryzen -> Xeon)" in judgement.reason


def test_a_cell_missing_in_the_baseline_is_skipped(row, litert, crashed):
    judgements = judged("p50_vs_baseline < 1.15", row, litert, crashed, baseline=results(row, crashed))
    assert [judgement.outcome for judgement in judgements] == ["passed", "skipped", "skipped"]
    assert [judgement.reason for judgement in judgements[1:]] == [
        "the baseline has no such cell",
        "failed: killed by SIGSEGV",
    ]


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
    assert undecided.get("message").startswith("0.5 [0.45, 0.6]: the interval contains 0.55; measure more")
    assert cases["auc > 0.95", "int8.onnx @ onnxruntime"].find("failure").get("type") == "failed"
    assert 'failed: killed by <"SIGSEGV">' in cases["auc > 0.95", "int8.onnx @ openvino"].find("skipped").get("message")
    assert cases["int9: auc > 0", "no cell"].find("failure") is not None


def test_the_guide_shows_valid_gates_and_the_drift():
    guide = Path(__file__).parents[2] / "histoedge" / "GUIDE.md"
    if not guide.is_file():
        pytest.skip("not a checkout")
    texts = re.findall(r"--gate '([^']+)'", guide.read_text())
    assert len(texts) == 5
    parsed = gates.parse(texts, baseline=True)
    assert [(gate.model, gate.runtime) for gate in parsed].count(("int8.onnx", "onnxruntime")) == 1
    assert {gate.column for gate in parsed} >= set(gates.BASELINE)
    assert f"a drift of {100 * noise.DRIFT:.1f} %" in " ".join(guide.read_text().split())
