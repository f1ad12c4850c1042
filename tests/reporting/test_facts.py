"""Which figures are praised, and which files are warned of."""

from collections.abc import Callable
from typing import Any

import pytest

from histoedge import reporting
from histoedge.benchmark import Measurement, Results
from histoedge.reporting import facts

Cell = Callable[..., Measurement]


def results(*rows: Measurement, **about: Any) -> Results:
    return Results(about, {}, rows)


def against(row: Measurement, d_auc: float, *, width: float = 0.005) -> dict[str, Any]:
    told = {"reference": f"{row.model} @ {row.runtime}", "p50_ratio": 0.5, "p50_ratio_lo": 0.49, "p50_ratio_hi": 0.51}
    return {**told, "d_auc": d_auc, "d_auc_lo": d_auc - width, "d_auc_hi": d_auc + width}


def headline(found: Results, name: str) -> facts.Headline | None:
    return next((one for one in facts.headlines(found) if one.name == name), None)


@pytest.fixture
def fp32(cell: Cell) -> Measurement:
    return cell("fp32.onnx", p50_ms=4.0, auc=0.94)


@pytest.fixture
def with_broken(cell: Cell, fp32: Measurement) -> Results:
    """The fastest file answers by chance on one runtime."""
    sound = cell("int8.onnx", p50_ms=2.0, auc=0.939, **against(fp32, -0.001))
    other = cell("fp32.onnx", "openvino", p50_ms=4.0, auc=0.94)
    told = against(other, -0.42) | {"p50_ratio": 0.1}
    broken = cell("int8.onnx", "openvino", p50_ms=0.4, auc=0.52, **told)
    return results(fp32, sound, other, broken)


def test_a_file_that_answers_wrong_is_not_praised_but_warned_of(with_broken: Results) -> None:
    fastest, shortest = headline(with_broken, "fastest"), headline(with_broken, "shortest")
    assert fastest is not None
    assert shortest is not None
    assert (fastest.row.runtime, fastest.value, fastest.lo, fastest.hi) == ("onnxruntime", 2.0, 1.98, 2.02)
    assert (shortest.row.runtime, shortest.value, shortest.lo, shortest.hi) == ("onnxruntime", 0.5, 0.49, 0.51)
    line = "int8.onnx @ openvino answers wrong: AUC .520 [.510 .530], reference .940"
    assert facts.warnings(with_broken) == [line]
    page = reporting.html(with_broken)
    assert page.index(line) < page.index("Cells measured")
    assert "2,000 µs" in page
    assert f"warning: {line}" in reporting.markdown(with_broken).replace("\\_", "_")


def test_a_wrong_answer_needs_no_reference_to_be_seen(cell: Cell, fp32: Measurement) -> None:
    twin = cell("fp32.tflite", "litert", p50_ms=1.0, auc=0.88)
    found = results(fp32, twin)
    assert facts.warnings(found) == [
        "fp32.tflite @ litert answers wrong: AUC .880 [.870 .890], fp32.onnx @ onnxruntime .940"
    ]
    near = cell("fp32.tflite", "litert", p50_ms=1.0, auc=0.92)  # lower, but the intervals are not 0.01 apart
    assert facts.warnings(results(fp32, near)) == []
    below_chance = cell("nano/int8.onnx", auc=0.1)
    assert facts.warnings(results(fp32, below_chance))[0].startswith("nano/int8.onnx @ onnxruntime answers wrong")


def test_a_loss_that_matters_for_certain_is_told_and_not_praised(cell: Cell, fp32: Measurement) -> None:
    lost = cell("slim50.onnx", p50_ms=1.0, auc=0.92, **against(fp32, -0.02))
    found = results(fp32, lost)
    assert facts.warnings(found) == [
        "slim50.onnx @ onnxruntime loses AUC: -.0200 [-.0250 -.0150] against fp32.onnx @ onnxruntime"
    ]
    assert headline(found, "shortest") is None
    perhaps = cell("slim50.onnx", p50_ms=1.0, auc=0.92, **against(fp32, -0.012))
    fastest = headline(results(fp32, perhaps), "fastest")
    assert fastest is not None
    assert fastest.row is perhaps
    assert facts.warnings(results(fp32, perhaps)) == []


def test_a_broken_file_is_broken_in_every_shape(cell: Cell, fp32: Measurement) -> None:
    broken = cell("int8.onnx", auc=0.5, p50_ms=1.0)
    again = cell("int8.onnx", auc=None, p50_ms=0.1, threads=2)
    fastest = headline(results(fp32, broken, again), "fastest")
    assert fastest is not None
    assert fastest.row is fp32
    assert len(facts.warnings(results(fp32, broken, again))) == 1


def test_no_network_is_called_best_where_intervals_overlap(cell: Cell, fp32: Measurement) -> None:
    int8 = cell("int8.onnx", auc=0.941)
    best = headline(results(fp32, int8), "auc")
    assert best is not None
    assert (best.row, best.clearly_best, best.rivals, best.others) == (int8, False, 1, 1)
    assert "no file is clearly best: int8.onnx is highest" in reporting.html(results(fp32, int8))
    worse = cell("prune50.onnx", auc=0.91)
    same = cell("fp32.tflite", "litert", auc=0.94)  # the same network again is no rival
    best = headline(results(fp32, same, worse), "auc")
    assert best is not None
    assert best.clearly_best
    assert "no file is clearly best" not in reporting.html(results(fp32, same, worse))


def test_speed_is_told_where_nothing_is_known_of_answers(cell: Cell) -> None:
    fastest = headline(results(cell(auc=None, p50_ms=2.0), cell(auc=None, p50_ms=1.0)), "fastest")
    assert fastest is not None
    assert fastest.value == 1.0
    assert facts.headlines(results(cell(status="failed", p50_ms=None, auc=None))) == []
    assert facts.headlines(results()) == []


def test_auc_of_synthetic_patches_is_called_so(fp32: Measurement) -> None:
    assert "Highest AUC, of synthetic patches" in reporting.html(results(fp32, data="synthetic"))
    assert "AUC on 0 synthetic patches" in reporting.markdown(results(fp32, data="synthetic"))
    assert "synthetic" not in reporting.html(results(fp32)) + reporting.markdown(results(fp32))
