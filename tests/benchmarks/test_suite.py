"""``make bench``: the released models into one results file of this machine, and how its tables read."""

import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from histoedge.benchmark import Measurement, environment, read_results, results
from histoedge.config import BenchPlan, resolve
from histoedge.data import synthetic
from histoedge.edge import RUNTIMES
from histoedge.metrics import Interval

FOLDER = Path(__file__).parents[2] / "benchmarks"

Script = Callable[[str], ModuleType]

TINY = """[bench]
runtimes = ["onnxruntime", "openvino"]
scenarios = ["single-stream", "multi-stream"]
rounds = 2
runs_per_round = 2
warmup_runs = 0
max_seconds = 0
integer_peak = false
"""


@pytest.fixture
def measurement(make_measurement: Callable[..., Measurement]) -> Callable[..., Measurement]:
    figures = {"p50_ms": Interval(0.05, 0.04, 0.06), "p90_ms": Interval(0.0712, 0.07, 0.08)}
    return functools.partial(
        make_measurement, "nano/models/int8.onnx", network="nano", scenario="single-stream", **figures
    )


def test_synthetic_patches_are_known_also_from_a_folder(script: Script, tmp_path: Path) -> None:
    drawn = synthetic.generate("test", patches=16, seed=0)
    written = synthetic.synth(tmp_path / "data", patches=16, seed=0)["test"]
    real = SimpleNamespace(name="test", slides=None)
    with_slides = SimpleNamespace(name="test", slides=["patient_020_node_4"])
    assert [script("suite").is_synthetic(split) for split in (drawn, written, real, with_slides)] == [
        True,
        True,
        False,
        False,
    ]
    machine = environment.machine_name(environment.this_machine())
    assert script("suite").results_path(tmp_path, drawn) == tmp_path / machine / "suite-synthetic.json"
    assert script("suite").results_path(tmp_path, real) == tmp_path / machine / "suite.json"


@pytest.mark.filterwarnings("default")
def test_the_suite_measures_into_the_folder_of_the_machine(script: Script, mean_red: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    synthetic.synth(tmp_path / "data", patches=16, seed=0)
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, str(FOLDER / "suite.py"), str(mean_red), "--config", str(tmp_path / "tiny.toml")]
    command += ["--results", str(tmp_path / "results")]
    environ = {**os.environ, "HISTOEDGE_DATA": str(tmp_path / "data")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "results").glob("*/*")
    assert written.name == "suite-synthetic.json"
    opening = [name for name in ("onnxruntime", "openvino") if RUNTIMES[name].installed()]
    assert {row.runtime for row in read_results(written).measurements if row.measured} == set(opening)
    assert written.parent.name == environment.machine_name(read_results(written).environment)
    text = "\n".join(script("sections").section(script("committed").ResultsFile(written)))
    assert "**On synthetic patches**" in text
    assert "### multi-stream: 8 patches of 96 x 96 px per call" in text


def test_threads_are_side_by_side_and_missing_cells_are_listed_once(
    script: Script, measurement: Callable[..., Measurement]
) -> None:
    rows = [
        measurement(p50_ratio=Interval(0.5, 0.4, 0.6)),
        *(measurement(runtime="onnxruntime-cuda", status="unavailable", reason="no GPU", p50_ms=None) for _ in "ab"),
        measurement(threads=2, p50_ms=Interval(0.03, 0.02, 0.04), status="unsettled", reason="wide"),
        measurement(scenario="offline", batch=64, patches_per_s=Interval(2e4, 1e4, 3e4)),
        measurement(scenario="field", field_px=1024),
    ]
    text = "\n".join(script("suite_tables").parts(rows))
    assert "| 50.0 [40.0, 60.0] | 71.2 [70.0, 80.0] | 0.500 [0.400, 0.600] | 30.0 [20.0, 40.0]~ |" in text
    assert "20,000 [10,000, 30,000]" in text
    assert "### field: 1 field of 1024 x 1024 px per call" in text
    assert "2 cells unavailable on onnxruntime-cuda: no GPU" in text
    assert "1 cells did not settle" in text
    lines = text.splitlines()
    heads = [above for above, line in itertools.pairwise(lines) if line.startswith("|---")]
    widths = {len(line.split("|")) for line in lines if line.startswith("| nano int8.onnx | onnxruntime |")}
    assert widths == {len(head.split("|")) for head in heads}


def test_suites_are_no_network_of_the_table_of_networks(
    script: Script, measurement: Callable[..., Measurement], tmp_path: Path
) -> None:
    for name in ("suite", "suite-synthetic"):
        results.write_results(tmp_path / "results" / "machine" / f"{name}.json", [measurement(auc=0.99)], inputs={})
    files = script("committed").committed_results(tmp_path)
    assert [file.kind for file in files] == ["suite", "suite"]
    assert "nano" not in "\n".join(script("questions").networks_parts(files))


def test_the_plan_of_the_suite_measures_every_runtime_and_scenario() -> None:
    plan = resolve(BenchPlan, file=FOLDER / "suite.toml", options={})
    assert set(RUNTIMES) < set(plan.runtimes)
    assert {"single-stream", "multi-stream", "offline", "field"} == set(plan.scenarios)


def test_no_committed_result_on_synthetic_patches_passes_for_real() -> None:
    digest = synthetic.generate("test", patches=synthetic.PATCHES["test"], seed=0).content_hash
    for file in FOLDER.glob("results/*/*.json"):
        held = json.loads(file.read_text()).get("inputs", {}).get("data")
        assert held != digest or file.stem.endswith("-synthetic")
