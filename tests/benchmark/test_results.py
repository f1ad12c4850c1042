"""``bench.json``: what is written can be read, and what is wrong is refused in one line."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from histoedge.benchmark import FileLayers, Layer, environment, read_results, results_are_current, write_results
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.quality import Robustness
from histoedge.edge.errors import DataError

CHANGED = dataclasses.asdict(
    Robustness(perturbation="blur_1_px", auc=0.9, auc_lo=0.8, auc_hi=1, d_auc=0, d_auc_lo=-0.1, d_auc_hi=0.1, flips=3)
)
INPUTS = {"data": "c", "plan": {"rounds": 3}}


@pytest.fixture
def row(cell):
    return cell(auc=1, auc_hi=1)


@pytest.fixture
def results(row, tmp_path):
    path = tmp_path / "bench.json"
    write_results(path, [row, dataclasses.replace(row, status="failed", reason="killed by SIGSEGV")], inputs=INPUTS)
    return path


def test_what_is_written_can_be_read(results, row):
    found = read_results(results)
    assert found.measurements[0] == row
    assert found.measurements[1].reason == "killed by SIGSEGV"
    assert found.inputs == INPUTS
    assert found.environment["python"]
    assert json.loads(results.read_text())["format"] == 1


def test_curves_can_be_read_and_each_list_of_numbers_is_one_line(tmp_path, row):
    whole = dataclasses.replace(
        row,
        reason="of two lines:\n[\n1,\n2\n]",
        ms_quantiles=tuple(0.1 + number / 100 for number in range(101)),
        roc=Roc(fpr=(0, 0.25, 1), tpr=(0, 0.75, 1.0)),
        reliability=Reliability(probability=(0.25,), patches=(4,), positives=(1,)),
        robustness=(Robustness(**CHANGED),),
    )
    write_results(tmp_path / "bench.json", [whole], inputs=INPUTS)
    assert read_results(tmp_path / "bench.json").measurements == (whole,)
    text = (tmp_path / "bench.json").read_text()
    assert '"fpr": [ 0, 0.25, 1 ]' in text
    assert text.count("\n") < 250


FILE = {"model": "int8.onnx", "runtime": "onnxruntime", "n_patches": 256, "reason": None}
STEM = {"layer": "stem", "channels": 24, "relative_rms": 0.0325}


def test_the_error_of_each_layer_can_be_read(row, tmp_path):
    errors = (Layer(**STEM), Layer(layer="head", channels=1, relative_rms=None))
    told = (FileLayers(**FILE, layers=errors), FileLayers(**{**FILE, "reason": "no weights"}, layers=()))
    write_results(tmp_path / "bench.json", [row], inputs=INPUTS, layers=told)
    assert read_results(tmp_path / "bench.json").layers == told


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (3, "layers: expected a list of objects with the keys model, runtime, n_patches, reason, layers"),
        ([{**FILE, "layers": [{**STEM, "channels": 1.5}]}], "layers: channels is '1.5', expected int; measure again"),
        ([{**FILE, "layers": [{**STEM, "more": 1}]}], "expected a list of objects with the keys layer, channels, "),
        ([{**FILE, "layers": "none"}], "expected a list of objects with the keys layer, channels, relative_rms"),
        ([{**FILE, "model": 3, "layers": []}], "layers: model is '3', expected str"),
    ],
)
def test_wrong_errors_of_layers_are_refused(results, layers, says):
    results.write_text(json.dumps({**json.loads(results.read_text()), "layers": layers}))
    with pytest.raises(DataError, match=says):
        read_results(results)


def test_results_are_current_only_for_the_same_inputs(results, tmp_path):
    assert results_are_current(results, INPUTS)
    assert not results_are_current(results, {**INPUTS, "data": "d"})
    assert not results_are_current(tmp_path / "none.json", INPUTS)
    results.write_text("{")
    assert not results_are_current(results, INPUTS)


def change(path, **changes):
    document = json.loads(path.read_text())
    document["measurements"][0].update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"p50_ms": "fast"}, "p50_ms is 'fast', expected float or null"),
        ({"threads": 1.5}, "threads is '1.5', expected int"),
        ({"threads": True}, "threads is 'True', expected int"),
        ({"status": "fine"}, "status 'fine', expected one of ok, "),
        ({"p51_ms": 1}, "keys missing or unknown: p51_ms"),
        ({"auc": float("nan")}, "NaN is no number of JSON"),
        ({"flips": 2.5}, "flips is '2.5', expected int or null"),
        ({"ms_quantiles": [1, 2]}, "ms_quantiles: expected 101 times above 0 that never fall"),
        ({"ms_quantiles": "fast"}, "ms_quantiles: expected a list of numbers"),
        ({"roc": [0, 1]}, "roc: expected an object with the keys fpr, tpr"),
        ({"roc": {"fpr": [0, 1], "tpr": [0]}}, "roc: its lists must be of one length"),
        ({"roc": {"fpr": [0, 1], "tpr": [0, 2]}}, "roc: a number outside 0 to 1"),
        ({"roc": {"fpr": [0, 1], "tpr": [1, 0]}}, "roc: tpr must hold at least two numbers that never fall"),
        ({"reliability": {"probability": [0.5], "patches": [2], "positives": [3]}}, "3 of 2 patches are positive"),
        ({"reliability": {"probability": [], "patches": [], "positives": []}}, "its lists must be of one length"),
        ({"reliability": {"probability": [2], "patches": [2], "positives": [1]}}, "a probability of 2"),
        ({"reliability": {"probability": [True], "patches": [2], "positives": [1]}}, "expected a list of numbers"),
        ({"robustness": [{"auc": 1}]}, "robustness: expected a list of objects with the keys perturbation, auc, "),
        ({"robustness": 3}, "robustness: expected a list of objects"),
        ({"robustness": [{**CHANGED, "flips": 0.5}]}, "robustness: flips is '0.5', expected int"),
    ],
)
def test_a_wrong_value_is_refused(results, changes, says):
    change(results, **changes)
    with pytest.raises(DataError, match=says):
        read_results(results)


def test_results_from_before_some_figures_were_measured_can_be_read(results, row):
    document = json.loads(results.read_text())
    later = ("ece", "brier", "sensitivity", "specificity", "flips", "mcnemar", "d_auc_slides", "auc_slides")
    later += ("ms_quantiles", "roc", "reliability", "robustness")
    for one in document["measurements"]:
        for name in [name for name in one if name.startswith(later)]:
            del one[name]
    results.write_text(json.dumps(document))
    assert read_results(results).measurements[0] == row
    del document["measurements"][0]["auc"]
    results.write_text(json.dumps(document))
    with pytest.raises(DataError, match="keys missing or unknown: auc"):
        read_results(results)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not a JSON document"),
        ("[]", "not a results file"),
        ("{}", "not a results file"),
        ('{"format": 2, "measurements": []}', "results format 2, expected 1"),
        ('{"format": 1, "measurements": []}', "environment, inputs or measurements missing"),
        ('{"format": 1, "environment": {}, "inputs": {}, "measurements": [3]}', "measurement 1 is int"),
        ("[" * 100_000, "not a JSON document"),
    ],
)
def test_another_file_is_refused(tmp_path, content, says):
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(DataError, match=says):
        read_results(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such results file"):
        read_results(tmp_path / "bench.json")


def test_a_figure_that_is_not_finite_is_never_written(tmp_path, row):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(tmp_path / "bench.json", [dataclasses.replace(row, auc=float("nan"))], inputs={})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_neither_host_nor_home():
    text = json.dumps(environment.this_machine())
    assert socket.gethostname() not in text.split('"')
    assert str(Path.home()) not in text
    assert environment.this_machine()["cpus_allowed"] != 0
