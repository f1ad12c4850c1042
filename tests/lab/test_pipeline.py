"""The whole job, small, on real files: the files it writes, and that no stage runs twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from histoedge.data import synthetic
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.lab import train

pytestmark = pytest.mark.lab

RECIPES = ("fp32", "fp16", "int8", "prune50", "prune50_int8")
FILES = [f"{recipe}.{format_}" for recipe in RECIPES for format_ in ("tflite", "onnx")]


def snapshot(run: Path) -> dict[str, bytes]:
    """All files but those that hold times, and the page and picture made from them."""
    skip = {"bench.json", "report.html", "history.json", "curves.png", "train.log"}
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in skip
    }


def test_a_run_leaves_every_file_of_the_design(finished_run: Path) -> None:
    assert (finished_run / "network.json").is_file()
    for recipe in RECIPES:
        assert (finished_run / f"{recipe}.weights.h5").is_file()
    for name in FILES:
        model = finished_run / "models" / name
        assert model.is_file()
        for sidecar in (manifests.manifest_path, goldens.golden_path, manifests.verdict_path):
            assert sidecar(model).is_file()
    assert (finished_run / "bench.json").is_file()
    assert (finished_run / "report.html").is_file()
    assert not [path for path in finished_run.rglob(".*") if path.is_file()]


def test_the_results_contain_a_row_per_file_and_runtime(finished_run: Path) -> None:
    results = json.loads((finished_run / "bench.json").read_text())
    assert results["format"] == 1
    rows = results["measurements"]
    for name in FILES:
        runtimes = {row["runtime"] for row in rows if row["model"] == name and row["status"] in ("ok", "unsettled")}
        assert runtimes == ({"litert"} if name.endswith("tflite") else {"onnxruntime", "openvino"})
    assert any(row["runtime"] == "keras" for row in rows)
    for row in rows:
        assert 0 <= row["auc_lo"] <= row["auc"] <= row["auc_hi"] <= 1
        assert 0 <= row["ece"] <= 1
        assert 0 <= row["sensitivity_at_95_specificity_lo"] <= row["sensitivity_at_95_specificity_hi"] <= 1
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]


def test_a_second_run_does_nothing_again(
    run_copy: Path, tiny_data: Path, settings: Path, invoke: Callable[..., Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.name != "report.html"}
    result = invoke("run", "--data", tiny_data, "--out", run_copy, "--config", settings)
    assert result.exit_code == 0, result.output
    folders = {path for path in before if path.is_dir()}
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= folders


def test_a_run_with_other_settings_is_refused(
    run_copy: Path, tiny_data: Path, settings: Path, invoke: Callable[..., Any]
) -> None:
    result = invoke("run", "--data", tiny_data, "--out", run_copy, "--config", settings, "--seed", 3)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "train.seed is 0 there and 3 now" in result.stderr


@pytest.mark.parametrize("epochs", [3, 9])
def test_another_number_of_epochs_is_another_training(
    run_copy: Path, tiny_data: Path, settings: Path, epochs: int, invoke: Callable[..., Any]
) -> None:
    result = invoke("train", "--data", tiny_data, "--out", run_copy, "--config", settings, "--epochs", epochs)
    assert result.exit_code == 1
    assert result.stderr == (
        f"histoedge: {run_copy}: contains a training of 6 epochs, {epochs} are requested; the cosine schedule of "
        "the learning rate covers all 6 epochs and cannot be extended; use --epochs 6 or another --out; "
        f"--teacher {run_copy} uses the existing network as teacher\n"
    )


def test_compressing_on_other_data_is_refused(run_copy: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    synthetic.synth(tmp_path / "other", patches=64, seed=2)
    result = invoke("compress", run_copy, "--data", tmp_path / "other", "--recipe", "fp16")
    assert result.exit_code == 1
    assert "trained on another train split" in result.stderr


STAGES = (train.STATE, "fp32.weights.h5", "models/int8.onnx", "bench.json.partial")
"""Files that appear while a run trains, compresses, exports and benches: a run is killed as soon as each is there."""


def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(
    tiny_data: Path, small_settings: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    options = ("--recipe", "fp32", "--recipe", "int8", "--patches-on")
    whole = make_run(tiny_data, tmp_path / "whole", small_settings, *options, "device")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "histoedge", "run", "--data", tiny_data, "--out", out, "--config", small_settings]
    for name in STAGES:
        assert not (out / name).exists()
        with subprocess.Popen(
            [*command, *options, "disk"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            while not (out / name).exists() and process.poll() is None:
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL  # it was at work: a process that has ended keeps its own status
        assert not (out / "bench.json").exists()
    make_run(tiny_data, out, small_settings, *options, "disk")
    killed, expected = snapshot(out), snapshot(whole)
    assert killed.keys() == expected.keys()
    assert [name for name in sorted(killed) if killed[name] != expected[name]] == []
