"""``bench.json``: what is written can be read, and what is wrong is refused in one line."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from histoedge.bench import Measurement, environment, is_current, read, write
from histoedge.edge.errors import DataError

ROW = Measurement(
    model="int8.onnx",
    recipe="int8",
    format="onnx",
    runtime="onnxruntime",
    threads=1,
    batch=1,
    field_px=96,
    status="ok",
    p50_ms=0.25,
    auc=1,
)
INPUTS = {"data": "c", "plan": {"rounds": 3}}


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "bench.json"
    write(path, [ROW, dataclasses.replace(ROW, status="failed", reason="killed by SIGSEGV")], inputs=INPUTS)
    return path


def test_what_is_written_can_be_read(results):
    found = read(results)
    assert found.measurements[0] == ROW
    assert found.measurements[1].reason == "killed by SIGSEGV"
    assert found.inputs == INPUTS
    assert found.environment["python"]
    assert json.loads(results.read_text())["format"] == 1


def test_results_are_current_only_for_the_same_inputs(results, tmp_path):
    assert is_current(results, INPUTS)
    assert not is_current(results, {**INPUTS, "data": "d"})
    assert not is_current(tmp_path / "none.json", INPUTS)
    results.write_text("{")
    assert not is_current(results, INPUTS)


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
    ],
)
def test_a_wrong_value_is_refused(results, changes, says):
    change(results, **changes)
    with pytest.raises(DataError, match=says):
        read(results)


def test_results_from_before_calibration_was_measured_can_be_read(results):
    document = json.loads(results.read_text())
    for row in document["measurements"]:
        for name in [name for name in row if name == "ece" or name.startswith("sensitivity_at_95")]:
            del row[name]
    results.write_text(json.dumps(document))
    assert read(results).measurements[0] == ROW
    del document["measurements"][0]["auc"]
    results.write_text(json.dumps(document))
    with pytest.raises(DataError, match="keys missing or unknown: auc"):
        read(results)


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
        read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such results file"):
        read(tmp_path / "bench.json")


def test_a_figure_that_is_not_finite_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write(tmp_path / "bench.json", [dataclasses.replace(ROW, auc=float("nan"))], inputs={})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_neither_host_nor_home():
    text = json.dumps(environment.describe())
    assert socket.gethostname() not in text.split('"')
    assert str(Path.home()) not in text
    assert environment.describe()["cpus_allowed"] != 0
