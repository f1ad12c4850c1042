"""The main job on real PatchCamelyon patches, small: ``HISTOEDGE_DATA`` names a folder in PatchCamelyon's layout."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from histoedge import data

DATA = os.environ.get("HISTOEDGE_DATA", "")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="HISTOEDGE_DATA names no folder with PatchCamelyon's files"),
]

SETTINGS = """
[train]
epochs = 8
batch = 8
[compress]
quantise_steps = 20
batch = 32
[bench]
rounds = 2
runs_per_round = 5
"""


@pytest.fixture(scope="module")
def real_run(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    settings = folder / "settings.toml"
    settings.write_text(SETTINGS)
    return make_run(DATA, folder / "run", settings, "--recipe", "fp32", "--recipe", "int8")


def cells(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = json.loads((run / "bench.json").read_text())["measurements"]
    return {(row["model"], row["runtime"]): row for row in rows}


def test_real_patches_contain_both_classes_and_no_patch_twice_across_splits() -> None:
    splits = data.load(DATA)
    digests = [set(split.digests) for split in splits.values()]
    assert not digests[0] & digests[1]
    assert not digests[0] & digests[2]
    assert not digests[1] & digests[2]


def test_some_hundred_real_patches_teach_something(real_run: Path) -> None:
    assert cells(real_run)["fp32.onnx", "onnxruntime"]["auc"] > 0.6


def test_int8_keeps_the_auc_of_fp32_on_real_patches(real_run: Path) -> None:
    for key in (("int8.tflite", "litert"), ("int8.onnx", "onnxruntime")):
        assert abs(cells(real_run)[key]["d_auc"]) <= 0.01


def test_both_int8_files_have_one_auc(real_run: Path) -> None:
    rows = cells(real_run)
    assert rows["int8.tflite", "litert"]["auc"] == rows["int8.onnx", "onnxruntime"]["auc"]
