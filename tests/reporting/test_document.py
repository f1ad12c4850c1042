"""The report as JSON."""

import json
from collections.abc import Callable

from histoedge import reporting
from histoedge.benchmark import Measurement, Results
from histoedge.metrics import Interval

Cell = Callable[..., Measurement]


def test_the_document_contains_headlines_warnings_notes_rows_and_environment(make_measurement: Cell) -> None:
    fp32 = make_measurement("fp32.onnx", p50_ms=4.0, auc=0.94, n_patches=100, network="edge")
    int8 = make_measurement("int8.onnx", p50_ms=1.0, auc=0.939, network="edge", p50_ratio=Interval(0.25, 0.24, 0.26))
    broken = make_measurement("int8.onnx", "openvino", p50_ms=0.1, auc=0.5, network="edge")
    failed = make_measurement("int8.tflite", "litert", p50_ms=None, auc=None, status="failed", reason="killed")
    environment = {"date": "2026-11-28", "commit": None, "data": None}
    results = Results(environment, {"data": "4fca"}, (fp32, int8, broken, failed))
    document = json.loads(json.dumps(reporting.document(results, name="first"), allow_nan=False))
    assert document["title"] == "run first: network edge, 2 files on 2 runtimes"
    assert (document["run"], document["networks"]) == ("first", ["edge"])
    assert document["data"] == {"content_hash": "4fca", "patches": 100, "synthetic": False}
    place = {"model": "int8.onnx", "runtime": "onnxruntime", "threads": 1}
    assert document["headlines"]["fastest"] == {"value": 1.0, "lo": 0.99, "hi": 1.01, **place}
    assert document["headlines"]["shortest"] == {"value": 0.25, "lo": 0.24, "hi": 0.26, **place}
    assert document["headlines"]["auc"]["model"] == "fp32.onnx"
    assert document["headlines"]["auc"]["clearly_best"] is False
    assert [line.split(":")[0] for line in document["warnings"]] == ["int8.onnx @ openvino"]
    assert "failed: int8.tflite @ litert: killed" in document["notes"]
    assert [row["status"] for row in document["rows"]] == ["ok", "ok", "ok", "failed"]
    assert (document["rows"][1]["p50_ratio_hi"], document["rows"][3]["p50_ms"]) == (0.26, None)
    assert document["environment"] == environment


def test_a_report_without_cells_is_a_document() -> None:
    document = reporting.document(Results({}, {}, ()))
    assert document["headlines"] == {"fastest": None, "shortest": None, "auc": None}
    assert document["data"] == {"content_hash": None, "patches": None, "synthetic": None}
    assert document["rows"] == document["warnings"] == []
