"""Title and head of a page."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from histoedge import reporting
from histoedge.benchmark import Measurement, Results
from histoedge.reporting import subject

Cell = Callable[..., Measurement]


def test_the_title_names_run_network_files_and_runtimes(make_measurement: Cell) -> None:
    rows = [
        make_measurement(model, runtime, network="edge")
        for model in ("fp32.onnx", "int8.onnx")
        for runtime in ("a", "b")
    ]
    rows.append(make_measurement("fp32.weights.h5", "keras", network="edge"))
    rows[-1] = dataclasses.replace(rows[-1], format="keras")
    results = Results({"run": "first"}, {}, tuple(rows))
    assert subject.title(results, "other") == "run first: network edge, 2 files on 2 runtimes"
    assert subject.title(Results({}, {}, tuple(rows)), "edge") == "run edge: network edge, 2 files on 2 runtimes"
    assert subject.title(Results({}, {}, tuple(rows[:1]))) == "network edge, 1 file on 1 runtime"
    assert subject.title(Results({}, {}, ())) == "0 files on 0 runtimes"
    assert "<title>run first: network edge, 2 files on 2 runtimes</title>" in reporting.html(results)


def test_runs_are_named_by_the_folders_of_their_models(make_measurement: Cell) -> None:
    names = ("exported/edge/models/int8.onnx", "exported/nano/models/int8.onnx", "exported/nano/models/fp32.onnx")
    rows = tuple(make_measurement(name, network=name.split("/")[1]) for name in names)
    assert subject.title(Results({}, {}, rows), "suite") == "run edge, nano: 3 files on 1 runtime"


@pytest.mark.parametrize(
    ("path", "name"), [("runs/first/bench.json", "first"), ("results/edge.json", "edge"), ("a.json", "a")]
)
def test_results_without_a_name_are_named_after_their_path(tmp_path: Path, path: str, name: str) -> None:
    assert reporting.name_of(tmp_path / path) == name


def test_the_head_contains_data_date_version_and_commit_or_not_recorded(make_measurement: Cell) -> None:
    environment = {
        "run": "first",
        "date": "2026-11-28",
        "commit": "581a7dae8c69+",
        "histoedge": "0.1.0",
        "cpu": "A CPU",
    }
    row = make_measurement(network="edge", n_patches=1420)
    results = Results({**environment, "data": "synthetic"}, {"data": "4fca38914d9ce1dec6e30f8a"}, (row,))
    assert dict(subject.head(results)) == {
        **{"Run": "first", "Network": "edge", "Measured": "2026-11-28", "CPU": "A CPU", "histoedge": "0.1.0"},
        **{"Commit": "581a7dae8c69+", "Test data": "1,420 synthetic patches, content hash 4fca38914d9c"},
    }
    old = dict(subject.head(Results({}, {}, (make_measurement(),))))
    assert set(old.values()) == {"not recorded"}
    page = reporting.html(Results({}, {}, (make_measurement(),)))
    assert len(re.findall("<dd>not recorded</dd>", page)) == len(old)
