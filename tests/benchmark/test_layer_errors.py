"""Errors of layers as the benchmark requests them from a child process."""

import json
import sys

import numpy as np
import pytest

from histoedge.benchmark import BenchJob, Layer, bench_to, layer_errors, read_results
from histoedge.config import BenchPlan

LAB = """
from histoedge import cell
from histoedge.edge.errors import ModelError

def answer(request):
    if request["model"].endswith("odd.onnx"):
        raise ModelError("no such layer")
    patches = __import__("numpy").load(request["patches_npy"])
    figures = {"channels": len(patches), "relative_rms": patches.mean() / 100, "quantum": 0.5}
    return {"runtime": "onnxruntime", "layers": [{"layer": name, **figures} for name in ("stem", "head")]}

cell.listen(answer)
"""


@pytest.fixture
def layers_of(monkeypatch, tmp_path):
    """``layers_of(program)`` measures two files with this child program on three patches of sevens."""

    def measured(program):
        monkeypatch.setattr(layer_errors, "COMMAND", [sys.executable, "-c", program])
        files = {name: tmp_path / name for name in ("odd.onnx", "int8.onnx")}
        reports = []
        patches = np.full((3, 96, 96, 3), 7, np.uint8)
        layers = layer_errors.measure_layers(files, patches, timeout_s=60, progress=lambda *args: reports.append(args))
        assert reports == [("bench, layers", done, 2, name) for done, name in enumerate(files, start=1)]
        return layers

    return measured


def test_each_file_has_its_layers_or_a_reason(layers_of):
    odd, int8 = layers_of(LAB)
    assert (odd.model, odd.reason, odd.layers, odd.runtime) == ("odd.onnx", "no such layer", (), None)
    assert (int8.model, int8.reason, int8.runtime, int8.n_patches) == ("int8.onnx", None, "onnxruntime", 3)
    assert int8.layers == tuple(Layer(layer=name, channels=3, relative_rms=0.07) for name in ("stem", "head"))


def test_a_file_that_ends_the_lab_does_not_affect_the_others(layers_of):
    odd, int8 = layers_of(LAB.replace('raise ModelError("no such layer")', 'raise SystemExit("out of order")'))
    assert (odd.reason, len(int8.layers)) == ("out of order", 2)


def test_a_file_without_its_weights_has_a_reason_in_the_results(write_mean_red, tmp_path, split):
    models = [write_mean_red(tmp_path / "models" / name) for name in ("fp32.onnx", "int8.onnx")]
    plan = BenchPlan(runtimes=("onnxruntime",), rounds=2, runs_per_round=2, max_seconds=0.0, integer_peak=False)
    bench_to(tmp_path / "r.json", BenchJob(models=models, plan=plan, split=split, valid=split))
    (file,) = read_results(tmp_path / "r.json").layers
    assert (file.model, file.layers) == ("int8.onnx", ())
    assert file.reason.startswith("int8.weights.h5: missing; comparing layers requires these weights")
    bench_to(tmp_path / "r.json", BenchJob(models=models, plan=plan, split=split))
    assert "layers" not in json.loads((tmp_path / "r.json").read_text())
