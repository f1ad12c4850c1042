"""Headline figures, and warnings about wrong answers and lost AUC."""

from collections.abc import Callable
from typing import Any

import pytest

from histoedge import reporting
from histoedge.benchmark import Measurement, Results
from histoedge.metrics import Interval
from histoedge.reporting import facts

Cell = Callable[..., Measurement]


def results(*rows: Measurement, **environment: Any) -> Results:
    return Results(environment, {}, rows)


def against(row: Measurement, d_auc: float, *, width: float = 0.005) -> dict[str, Any]:
    return {
        "reference": f"{row.model} @ {row.runtime}",
        "p50_ratio": Interval(0.5, 0.49, 0.51),
        "d_auc": Interval(d_auc, d_auc - width, d_auc + width),
    }


def headline(content: Results, name: str) -> facts.Headline | None:
    return next((headline for headline in facts.headlines(content) if headline.name == name), None)


@pytest.fixture
def fp32(make_measurement: Cell) -> Measurement:
    return make_measurement("fp32.onnx", p50_ms=4.0, auc=0.94)


@pytest.fixture
def with_broken(make_measurement: Cell, fp32: Measurement) -> Results:
    """The fastest cell, one file on one runtime, has nearly random answers."""
    sound = make_measurement("int8.onnx", p50_ms=2.0, auc=0.939, **against(fp32, -0.001))
    other = make_measurement("fp32.onnx", "openvino", p50_ms=4.0, auc=0.94)
    fields = against(other, -0.42) | {"p50_ratio": Interval(0.1, 0.09, 0.11)}
    broken = make_measurement("int8.onnx", "openvino", p50_ms=0.4, auc=0.52, **fields)
    return results(fp32, sound, other, broken)


def test_a_file_with_wrong_answers_has_a_warning_and_no_headline(with_broken: Results) -> None:
    fastest, shortest = headline(with_broken, "fastest"), headline(with_broken, "shortest")
    assert fastest is not None
    assert shortest is not None
    assert (fastest.row.runtime, fastest.figure) == ("onnxruntime", Interval(2.0, 1.98, 2.02))
    assert (shortest.row.runtime, shortest.figure) == ("onnxruntime", Interval(0.5, 0.49, 0.51))
    line = "int8.onnx @ openvino: wrong answers: AUC .520 [.510 .530], reference .940"
    assert facts.warnings(with_broken) == [line]
    page = reporting.html(with_broken)
    assert page.index(line) < page.index("Cells measured")
    assert "2,000 µs" in page
    assert f"warning: {line}" in reporting.markdown(with_broken).replace("\\_", "_")


def test_wrong_answers_are_detected_without_a_reference(make_measurement: Cell, fp32: Measurement) -> None:
    twin = make_measurement("fp32.tflite", "litert", p50_ms=1.0, auc=0.88)
    assert facts.warnings(results(fp32, twin)) == [
        "fp32.tflite @ litert: wrong answers: AUC .880 [.870 .890], fp32.onnx @ onnxruntime .940"
    ]
    near = make_measurement(
        "fp32.tflite", "litert", p50_ms=1.0, auc=0.92
    )  # lower, but by less than 0.01 between the intervals
    assert facts.warnings(results(fp32, near)) == []
    below_chance = make_measurement("nano/int8.onnx", auc=0.1)
    assert facts.warnings(results(fp32, below_chance))[0].startswith("nano/int8.onnx @ onnxruntime: wrong answers")


def test_a_certain_material_loss_has_a_warning_and_no_headline(make_measurement: Cell, fp32: Measurement) -> None:
    lost = make_measurement("slim50.onnx", p50_ms=1.0, auc=0.92, **against(fp32, -0.02))
    content = results(fp32, lost)
    assert facts.warnings(content) == [
        "slim50.onnx @ onnxruntime: loss of AUC: -.0200 [-.0250 -.0150] against fp32.onnx @ onnxruntime"
    ]
    assert headline(content, "shortest") is None
    possible_loss = make_measurement("slim50.onnx", p50_ms=1.0, auc=0.92, **against(fp32, -0.012))
    fastest = headline(results(fp32, possible_loss), "fastest")
    assert fastest is not None
    assert fastest.row is possible_loss
    assert facts.warnings(results(fp32, possible_loss)) == []


def test_wrong_answers_in_one_shape_exclude_the_file_in_all_shapes(make_measurement: Cell, fp32: Measurement) -> None:
    broken = make_measurement("int8.onnx", auc=0.5, p50_ms=1.0)
    again = make_measurement("int8.onnx", auc=None, p50_ms=0.1, threads=2)
    fastest = headline(results(fp32, broken, again), "fastest")
    assert fastest is not None
    assert fastest.row is fp32
    assert len(facts.warnings(results(fp32, broken, again))) == 1


def test_no_network_is_the_best_if_intervals_overlap(make_measurement: Cell, fp32: Measurement) -> None:
    int8 = make_measurement("int8.onnx", auc=0.941)
    best = headline(results(fp32, int8), "auc")
    assert best is not None
    assert (best.row, best.clearly_best, best.rivals, best.others) == (int8, False, 1, 1)
    assert "no file is clearly best: int8.onnx is highest" in reporting.html(results(fp32, int8))
    worse = make_measurement("prune50.onnx", auc=0.91)
    same = make_measurement("fp32.tflite", "litert", auc=0.94)  # the same network is not a rival
    best = headline(results(fp32, same, worse), "auc")
    assert best is not None
    assert best.clearly_best
    assert "no file is clearly best" not in reporting.html(results(fp32, same, worse))


def test_speed_has_a_headline_if_no_auc_was_measured(make_measurement: Cell) -> None:
    fastest = headline(
        results(make_measurement(auc=None, p50_ms=2.0), make_measurement(auc=None, p50_ms=1.0)), "fastest"
    )
    assert fastest is not None
    assert fastest.figure.value == 1.0
    assert facts.headlines(results(make_measurement(status="failed", p50_ms=None, auc=None))) == []
    assert facts.headlines(results()) == []


def test_an_auc_of_synthetic_patches_is_labelled(fp32: Measurement) -> None:
    assert "Highest AUC, synthetic patches" in reporting.html(results(fp32, data="synthetic"))
    assert "AUC on 0 synthetic patches" in reporting.markdown(results(fp32, data="synthetic"))
    assert "synthetic" not in reporting.html(results(fp32)) + reporting.markdown(results(fp32))
