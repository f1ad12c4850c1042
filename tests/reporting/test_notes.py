"""Notes below the tables."""

import dataclasses

import pytest

from histoedge import reporting
from histoedge.benchmark import Results
from histoedge.metrics import Interval


def _exactly(value):
    """Return an interval without width."""
    return Interval(value, value, value)


def test_rows_without_figures_have_their_reason_in_all_forms(results, printed, hostile):
    flat = " ".join(printed(reporting.terminal(results)).split())
    assert f"failed: prune50_int8.tflite @ litert: {hostile}" in flat
    assert "unavailable: int8.onnx @ openvino: not installed; pip install openvino" in flat
    assert "not installed; pip install openvino" in reporting.markdown(results)
    assert "not installed; pip install openvino" in reporting.html(results)


def test_sparsity_is_always_shown_with_its_effect_on_latency(results, printed):
    for text in (printed(reporting.terminal(results)), reporting.markdown(results), reporting.html(results)):
        assert "zeros and shared values do not reduce latency" in " ".join(text.split())
    dense = Results({}, {}, results.measurements[:2])
    assert "zeros and shared values" not in printed(reporting.terminal(dense))


def test_notes_state_the_width_of_the_plan_and_compare_equal_shapes(whole):
    unsettled = dataclasses.replace(whole.measurements[0], status="unsettled", reason="wide")
    plan = {"plan": {"settled_width": 0.05}}
    assert "wider than 5% of p50" in reporting.markdown(Results({}, plan, (unsettled,)))
    assert "wider than the limit of the plan" in reporting.markdown(Results({}, {}, (unsettled,)))
    int8 = [dataclasses.replace(row, p50_ms=_exactly(0.08 * row.batch)) for row in whole.measurements[:2]]
    slim = [
        dataclasses.replace(row, model="slim50_int8.onnx", recipe="slim50_int8", p50_ms=_exactly(0.02 * row.batch))
        for row in int8
    ]
    text = reporting.markdown(Results({}, {}, (*int8[::-1], *slim)))
    assert text.count("p50 of int8 over that of slim50\\_int8: 4.00 (onnx @ onnxruntime)") == 1


@pytest.mark.parametrize(
    ("trained", "words"), [(0.9101, "training beats post-training"), (0.9, "training does not beat")]
)
def test_the_notes_state_whether_training_beats_post_training_quantisation(results, trained, words):
    first = results.measurements[0]
    untrained = dataclasses.replace(first, status="ok", recipe="int8ptq", model="int8ptq.onnx", auc=_exactly(0.91))
    rows = (dataclasses.replace(untrained, recipe="int8", model="int8.onnx", auc=_exactly(trained)), untrained)
    assert f"quantisation-aware {words}" in reporting.markdown(dataclasses.replace(results, measurements=rows))
    alone = reporting.markdown(dataclasses.replace(results, measurements=(untrained,)))
    assert "no int8 file to compare with" in alone


def test_the_notes_state_the_effect_of_slimming(results):
    first = dataclasses.replace(
        results.measurements[0], status="ok", recipe="int8", model="int8.onnx", p50_ms=_exactly(0.08)
    )
    slim = dataclasses.replace(first, recipe="slim50_int8", model="slim50_int8.onnx", p50_ms=_exactly(0.04))
    text = reporting.markdown(dataclasses.replace(results, measurements=(first, slim)))
    assert "p50 of int8 over that of slim50\\_int8: 2.00 (onnx @ onnxruntime)" in text
    assert "no int8 file to compare with" in reporting.markdown(dataclasses.replace(results, measurements=(slim,)))
