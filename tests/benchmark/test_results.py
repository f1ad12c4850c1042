"""Results files: written ones can be read, and wrong ones are refused with one line."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from histoedge.benchmark import (
    FileLayers,
    Layer,
    Measurement,
    columns,
    environment,
    read_results,
    results_are_current,
    write_results,
)
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.quality import Robustness
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval

BLURRED = Robustness(perturbation="blur_1_px", auc=Interval(0.9, 0.8, 1), d_auc=Interval(0, -0.1, 0.1), flips=3)
INPUTS = {"data": "c", "plan": {"rounds": 3}}


@pytest.fixture
def row(make_measurement):
    return make_measurement(auc=Interval(1, 0.99, 1))


@pytest.fixture
def results(row, tmp_path):
    path = tmp_path / "bench.json"
    write_results(path, [row, dataclasses.replace(row, status="failed", reason="killed by SIGSEGV")], inputs=INPUTS)
    return path


def test_written_results_can_be_read(results, row):
    content = read_results(results)
    assert content.measurements[0] == row
    assert content.measurements[1].reason == "killed by SIGSEGV"
    assert content.inputs == INPUTS
    assert content.environment["python"]
    assert json.loads(results.read_text())["format"] == 1


def test_curves_can_be_read_and_a_list_of_numbers_is_one_line(tmp_path, row):
    whole = dataclasses.replace(
        row,
        reason="of two lines:\n[\n1,\n2\n]",
        ms_quantiles=tuple(0.1 + number / 100 for number in range(101)),
        roc=Roc(fpr=(0, 0.25, 1), tpr=(0, 0.75, 1.0)),
        reliability=Reliability(probability=(0.25,), patches=(4,), positives=(1,)),
        robustness=(BLURRED,),
    )
    write_results(tmp_path / "bench.json", [whole], inputs=INPUTS)
    assert read_results(tmp_path / "bench.json").measurements == (whole,)
    text = (tmp_path / "bench.json").read_text()
    assert '"fpr": [ 0, 0.25, 1 ]' in text
    assert text.count("\n") < 250


INTERVALS = {
    **{
        name: (name, f"{name.removesuffix('_ms')}_lo", f"{name.removesuffix('_ms')}_hi")
        for name in ("p50_ms", "p99_ms")
    },
    **{name: (name, f"{name}_lo", f"{name}_hi") for name in ("auc", "d_auc", "p50_ratio", "brier", "patches_per_s")},
    **{
        "auc_slides": ("auc", "auc_slides_lo", "auc_slides_hi"),
        "d_auc_slides": ("d_auc", "d_auc_slides_lo", "d_auc_slides_hi"),
    },
}


def test_an_interval_is_a_value_and_two_bounds_in_the_file(tmp_path, row):
    """The keys of the file are a contract: other programs read them."""
    fields = {name: Interval(0.5 + number / 100, 0.4, 0.7) for number, name in enumerate(INTERVALS)}
    fields |= {
        "auc_slides": Interval(fields["auc"].value, 0.3, 0.8),
        "d_auc_slides": Interval(fields["d_auc"].value, 0, 1),
    }
    whole = dataclasses.replace(row, **fields)
    write_results(tmp_path / "bench.json", [whole], inputs=INPUTS)
    (written,) = json.loads((tmp_path / "bench.json").read_text())["measurements"]
    for name, keys in INTERVALS.items():
        assert [written[key] for key in keys] == list(dataclasses.astuple(fields[name])), name
    assert "auc_slides" not in written
    assert read_results(tmp_path / "bench.json").measurements == (whole,)


def test_the_columns_of_a_measurement_stay():
    committed = Path(__file__).parents[2] / "benchmarks" / "results" / "amd-epyc-avx512-vnni-2-cores" / "suite.json"
    if not committed.is_file():
        pytest.skip("not a checkout")
    (first, *_) = json.loads(committed.read_text())["measurements"]
    assert sorted(columns.column_types(Measurement)) == sorted(first)
    assert columns.as_columns(read_results(committed).measurements[0]) == first


FILE = {"model": "int8.onnx", "runtime": "onnxruntime", "n_patches": 256, "reason": None}
STEM = {"layer": "stem", "channels": 24, "relative_rms": 0.0325}


def test_the_error_of_each_layer_can_be_read(row, tmp_path):
    errors = (Layer(**STEM), Layer(layer="head", channels=1, relative_rms=None))
    layers = (FileLayers(**FILE, layers=errors), FileLayers(**{**FILE, "reason": "no weights"}, layers=()))
    write_results(tmp_path / "bench.json", [row], inputs=INPUTS, layers=layers)
    assert read_results(tmp_path / "bench.json").layers == layers


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (3, "layers: expected a list of objects with the keys model, runtime, n_patches, reason, layers"),
        ([{**FILE, "layers": [{**STEM, "channels": 1.5}]}], "layers: channels is '1.5', expected int; measure again"),
        ([{**FILE, "layers": [{**STEM, "more": 1}]}], "expected a list of objects with the keys layer, channels, "),
        ([{**FILE, "layers": "none"}], "expected a list of objects with the keys layer, channels, relative_rms"),
        ([{**FILE, "model": 3, "layers": []}], "layers: model is '3', expected str"),
    ],
)
def test_wrong_errors_of_layers_are_refused(results, layers, message):
    results.write_text(json.dumps({**json.loads(results.read_text()), "layers": layers}))
    with pytest.raises(DataError, match=message):
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
    ("changes", "message"),
    [
        ({"p50_ms": "fast"}, "p50_ms is 'fast', expected float or null"),
        ({"threads": 1.5}, "threads is '1.5', expected int"),
        ({"threads": True}, "threads is 'True', expected int"),
        ({"status": "fine"}, "status 'fine', expected one of ok, "),
        ({"p51_ms": 1}, "keys missing or unknown: p51_ms"),
        ({"auc": float("nan")}, "NaN is not a JSON number"),
        ({"flips": 2.5}, "flips is '2.5', expected int or null"),
        ({"p50_lo": None}, "p50_ms, p50_lo and p50_hi: expected three numbers or three nulls; measure again"),
        ({"brier": 0.1}, "brier, brier_lo and brier_hi: expected three numbers or three nulls"),
        (
            {"auc": None, "auc_lo": None, "auc_hi": None, "auc_slides_lo": 0.9, "auc_slides_hi": 1.0},
            "auc, auc_slides_lo",
        ),
        ({"ms_quantiles": [1, 2]}, "ms_quantiles: expected 101 times above 0 in rising order"),
        ({"ms_quantiles": "fast"}, "ms_quantiles: expected a list of numbers"),
        ({"roc": [0, 1]}, "roc: expected an object with the keys fpr, tpr"),
        ({"roc": {"fpr": [0, 1], "tpr": [0]}}, "roc: lists of different lengths"),
        ({"roc": {"fpr": [0, 1], "tpr": [0, 2]}}, "roc: a number outside 0 to 1"),
        ({"roc": {"fpr": [0, 1], "tpr": [1, 0]}}, "roc: tpr: expected at least two numbers in rising order"),
        ({"reliability": {"probability": [0.5], "patches": [2], "positives": [3]}}, "3 of 2 patches are positive"),
        (
            {"reliability": {"probability": [], "patches": [], "positives": []}},
            "lists of different lengths or empty lists",
        ),
        ({"reliability": {"probability": [2], "patches": [2], "positives": [1]}}, "a probability of 2"),
        ({"reliability": {"probability": [True], "patches": [2], "positives": [1]}}, "expected a list of numbers"),
        ({"robustness": [{"auc": 1}]}, "robustness: expected a list of objects with the keys perturbation, auc, "),
        ({"robustness": 3}, "robustness: expected a list of objects"),
        ({"robustness": [{**columns.as_columns(BLURRED), "flips": 0.5}]}, "robustness: flips is '0.5', expected int"),
    ],
)
def test_a_wrong_value_is_refused(results, changes, message):
    change(results, **changes)
    with pytest.raises(DataError, match=message):
        read_results(results)


def test_results_of_earlier_versions_with_fewer_figures_can_be_read(results, row):
    document = json.loads(results.read_text())
    later = (
        *("ece", "brier", "sensitivity", "specificity", "flips", "mcnemar", "d_auc_slides", "auc_slides"),
        *("ms_quantiles", "roc", "reliability", "robustness"),
    )
    for measurement in document["measurements"]:
        for name in [name for name in measurement if name.startswith(later)]:
            del measurement[name]
    results.write_text(json.dumps(document))
    assert read_results(results).measurements[0] == row
    del document["measurements"][0]["auc"]
    results.write_text(json.dumps(document))
    with pytest.raises(DataError, match="keys missing or unknown: auc"):
        read_results(results)


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_results(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such results file"):
        read_results(tmp_path / "bench.json")


def test_a_figure_that_is_not_finite_is_not_written(tmp_path, row):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(tmp_path / "bench.json", [dataclasses.replace(row, auc=Interval(float("nan"), 0, 1))], inputs={})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_contains_neither_host_name_nor_home_folder():
    text = json.dumps(environment.this_machine())
    assert socket.gethostname() not in text.split('"')
    assert str(Path.home()) not in text
    assert environment.this_machine()["cpus_allowed"] != 0
