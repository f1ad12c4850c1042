"""The report for programs."""

import json
from collections.abc import Callable

from histoedge import reporting
from histoedge.benchmark import Measurement, Results

Cell = Callable[..., Measurement]


def test_the_document_holds_headlines_warnings_notes_rows_and_environment(cell: Cell) -> None:
    fp32 = cell("fp32.onnx", p50_ms=4.0, auc=0.94, n_patches=100, network="edge")
    ratio = {"p50_ratio": 0.25, "p50_ratio_lo": 0.24, "p50_ratio_hi": 0.26}
    int8 = cell("int8.onnx", p50_ms=1.0, auc=0.939, network="edge", **ratio)
    broken = cell("int8.onnx", "openvino", p50_ms=0.1, auc=0.5, network="edge")
    failed = cell("int8.tflite", "litert", p50_ms=None, auc=None, status="failed", reason="killed")
    about = {"date": "2026-11-28", "commit": None, "data": None}
    results = Results(about, {"data": "4fca"}, (fp32, int8, broken, failed))
    found = json.loads(json.dumps(reporting.document(results, name="first"), allow_nan=False))
    assert found["title"] == "run first: network edge, 2 files on 2 runtimes"
    assert (found["run"], found["networks"]) == ("first", ["edge"])
    assert found["data"] == {"content_hash": "4fca", "patches": 100, "synthetic": False}
    place = {"model": "int8.onnx", "runtime": "onnxruntime", "threads": 1}
    assert found["headlines"]["fastest"] == {"value": 1.0, "lo": 0.99, "hi": 1.01, **place}
    assert found["headlines"]["shortest"] == {"value": 0.25, "lo": 0.24, "hi": 0.26, **place}
    assert found["headlines"]["auc"]["model"] == "fp32.onnx"
    assert found["headlines"]["auc"]["clearly_best"] is False
    assert [line.split(":")[0] for line in found["warnings"]] == ["int8.onnx @ openvino answers wrong"]
    assert "failed: int8.tflite @ litert: killed" in found["notes"]
    assert [row["status"] for row in found["rows"]] == ["ok", "ok", "ok", "failed"]
    assert (found["rows"][1]["p50_ratio_hi"], found["rows"][3]["p50_ms"]) == (0.26, None)
    assert found["environment"] == about


def test_an_empty_report_is_a_document_too() -> None:
    found = reporting.document(Results({}, {}, ()))
    assert found["headlines"] == {"fastest": None, "shortest": None, "auc": None}
    assert found["data"] == {"content_hash": None, "patches": None, "synthetic": None}
    assert found["rows"] == found["warnings"] == []
