"""A results file with every kind of row."""

import dataclasses
import io

import pytest
from PIL import Image
from rich.console import Console

from histoedge.benchmark import FileLayers, Layer, Results
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.quality import Robustness
from histoedge.metrics import Interval
from histoedge.reporting.page import Sheet

HOSTILE = "killed by SIGSEGV: <script>alert(1)</script> [bold]|x|"


def _exactly(value):
    """Return an interval without width."""
    return Interval(value, value, value)


@pytest.fixture(scope="session")
def with_curves():
    """``with_curves(row, shift=0.0)``: the row with every figure that the first row of a file on a runtime has."""
    return _with_curves


def _with_curves(row, shift=0.0):
    robust = tuple(
        Robustness(perturbation=name, auc=Interval(0.9, 0.88, 0.92), d_auc=Interval(d, d - 0.01, d + 0.01), flips=7)
        for name, d in (("blur_1_px", -0.05), ("jpeg_quality_40", 0.001))
    )
    fpr = tuple(round(number / 199, 5) for number in range(200))
    points = {
        name: Interval(0.6, 0.5, 0.7)
        for percent in (90, 95, 99)
        for name in (f"sensitivity_at_{percent}_specificity", f"specificity_at_{percent}_sensitivity")
    }
    return dataclasses.replace(
        row,
        **points,
        brier=Interval(0.1, 0.09, 0.11),
        auc_slides=Interval(0.9159, 0.87, 0.97),
        d_auc_slides=Interval(0.0002, -0.002, 0.003),
        **{"flips": 3, "flips_to_positive": 2, "flips_to_negative": 1, "mcnemar_p": 1.0, "mpx_per_s": 12.5},
        **{"peak_share": 0.42, "energy_mj": 1.25, "rss_over_empty_bytes": 47_000_000},
        ms_quantiles=tuple(round(row.p50_ms.value * (0.9 + number / 500), 5) for number in range(101)),
        roc=Roc(fpr=fpr, tpr=tuple(round(min(1.0, rate**0.2 + shift), 5) for rate in fpr)),
        reliability=Reliability(probability=(0.1, 0.9), patches=(70, 30), positives=(10, 25)),
        robustness=robust,
    )


@pytest.fixture
def sheet():
    png = io.BytesIO()
    Image.new("RGB", (1408, 60), "white").save(png, "PNG")
    return Sheet("int8.onnx @ onnxruntime", png.getvalue())


@pytest.fixture
def whole(results, with_layers):
    """A file on a runtime in several shapes, with all figures."""
    first = _with_curves(results.measurements[1])
    only_once = dict.fromkeys(("roc", "reliability", "robustness"))
    more = dataclasses.replace(first, batch=8, scenario="multi-stream", **only_once)
    field = dataclasses.replace(first, field_px=1024, scenario="field", **only_once)
    failed = [dataclasses.replace(results.measurements[3], batch=batch) for batch in (1, 8)]
    rows = (dataclasses.replace(first, scenario="single-stream"), more, field, *failed)
    return dataclasses.replace(with_layers, measurements=rows)


@pytest.fixture
def results(make_measurement):
    def full(model, runtime, p50_ms, auc, **changes):
        fields = {"size_bytes": 390_000, "runtime_version": "1.2.3", "kernels": "some kernels", "n_patches": 2947}
        fields |= {"load_ms": 3.25, "first_ms": 0.75, "peak_rss_bytes": 91_000_000, "ece": 0.0312}
        for name, factor in (("p90_ms", 1.1), ("p95_ms", 1.2), ("p99_ms", 1.5)):
            fields[name] = Interval(factor * p50_ms, 0.99 * factor * p50_ms, 1.01 * factor * p50_ms)
        fields["patches_per_s"] = Interval(1000 / p50_ms, 990 / p50_ms, 1010 / p50_ms)
        fields["sensitivity_at_95_specificity"] = Interval(0.583, 0.521, 0.64)
        fields["reference"] = f"fp32.{model.partition('.')[2]} @ {runtime}"
        fields["d_auc"] = Interval(auc - 0.9157, auc - 0.9167, auc - 0.9147)
        fields["p50_ratio"] = Interval(p50_ms / 0.228, p50_ms / 0.23, p50_ms / 0.226)
        return make_measurement(model, runtime, p50_ms=p50_ms, auc=auc, **{**fields, **changes})

    missing = {"p50_ms": None, "auc": None, "status": "unavailable", "reason": "not installed; pip install openvino"}
    rows = (
        full("fp32.onnx", "onnxruntime", 0.228, 0.9157, p50_ratio=None, reference=None, d_auc=None),
        full("int8.onnx", "onnxruntime", 0.0812, 0.9159),
        full("prune50.tflite", "litert", 0.245, 0.9101, status="unsettled", reason="the interval is wide"),
        make_measurement("prune50_int8.tflite", "litert", **{**missing, "status": "failed", "reason": HOSTILE}),
        make_measurement("int8.onnx", "openvino", **missing),
    )
    environment = {
        "cpu": "A <fast> CPU",
        "cpu_flags": ["avx2"],
        "cpu_flags_refused": ["amx_int8"],
        "memory_bytes": 2**34,
        "packages": {"numpy": "2.4"},
    }
    return Results(environment, {"plan": {"rounds": 10, "runtimes": []}, "data": "abc123"}, rows)


@pytest.fixture
def with_layers(results):
    """Two files of the same network, one with a head that is always 0, and a file that was not measured."""
    errors = [Layer(layer=name, channels=24, relative_rms=error) for name, error in (("stem", 0.0325), ("head", 0.12))]
    dead = (errors[0], dataclasses.replace(errors[1], relative_rms=None))
    fields = {"n_patches": 256, "reason": None}
    files = (
        FileLayers(model="int8.onnx", runtime="onnxruntime", layers=tuple(errors), **fields),
        FileLayers(model="int8.tflite", runtime="litert", layers=dead, **fields),
        FileLayers(model="prune50_int8.tflite", runtime=None, layers=(), **{**fields, "reason": HOSTILE}),
    )
    return dataclasses.replace(results, layers=files)


@pytest.fixture(scope="session")
def hostile():
    """The reason of the failed row, with markup of HTML, rich and Markdown in it."""
    return HOSTILE


@pytest.fixture(scope="session")
def printed():
    """``printed(table)``: its text in a terminal of 100 columns."""

    def show(table):
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(table)
        return console.export_text()

    return show
