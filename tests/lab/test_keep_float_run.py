"""Layers in float and calibration patches of one's own, by the commands."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from histoedge.edge import manifest as manifests
from histoedge.lab import checkpoint, layers

pytestmark = pytest.mark.lab

Invoke = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tiny_data: Path, small_settings: Path, invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run without other recipes: read only."""
    out = tmp_path_factory.mktemp("trained") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras
        result = invoke("train", "--data", tiny_data, "--out", out, "--config", small_settings, "--epochs", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def with_compress(settings: Path, folder: Path, lines: str) -> Path:
    """Return a copy of the settings with these lines in ``[compress]``."""
    changed = folder / "changed.toml"
    changed.write_text(settings.read_text().replace("[compress]\n", f"[compress]\n{lines}\n"))
    return changed


def test_a_layer_kept_by_name_is_in_the_manifest_and_both_files_pass(
    run: Path, tiny_data: Path, small_settings: Path, invoke: Invoke
) -> None:
    settings = with_compress(small_settings, run, 'keep_float = ["head"]')
    options = ("--recipe", "int8", "--data", tiny_data, "--config", settings)
    assert invoke("compress", run, *options).exit_code == 0
    assert invoke("export", run, "--recipe", "int8").exit_code == 0
    saved = checkpoint.read(checkpoint.path_of(run, "int8"))
    assert saved.inputs["compress"]["keep_float"] == ["head"]
    for name in ("int8.tflite", "int8.onnx"):
        model = run / "models" / name
        assert manifests.read(model).float_layers == ["head"]
        result = invoke("verify", model, "--data", tiny_data, "--layers", "--json")
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert document["twin"]["passed"]
        rows = {row["layer"]: row for row in document["layers"]}
        assert rows["head"]["logit_rms_if_float"] == rows["head"]["logit_rms"]
        assert {error.twin_largest_quanta for error in layers.errors_by_layer(model)} <= {0, 1}
    model = run / "models" / "int8.onnx"
    document = json.loads(manifests.manifest_path(model).read_text())
    document["float_layers"] = ["stem", "conv9"]
    document["digest"] = manifests.digest(document)
    manifests.manifest_path(model).write_text(json.dumps(document))
    assert manifests.read(model).float_layers == ["stem", "conv9"]


def test_auto_writes_its_steps_and_the_other_settings_keep_the_weights(
    run: Path, tiny_data: Path, small_settings: Path, invoke: Invoke
) -> None:
    settings = with_compress(small_settings, run, 'keep_float = ["auto"]\nkeep_float_loss = 0.0')
    options = ("--recipe", "int8ptq", "--data", tiny_data, "--config")
    assert invoke("compress", run, *options, settings).exit_code == 0
    table = json.loads((run / "int8ptq.keep_float.json").read_text())
    saved = checkpoint.read(checkpoint.path_of(run, "int8ptq"))
    assert table["float_recipe"] == "fp32"
    assert table["steps"][0]["layer"] is None
    assert table["steps"][-1]["valid_auc"] == saved.valid_auc
    assert saved.valid_auc >= table["float_valid_auc"] or len(table["steps"]) == 3
    assert invoke("compress", run, *options, small_settings).exit_code == 0
    assert not (run / "int8ptq.keep_float.json").exists()


def test_an_unknown_layer_is_refused_before_any_training(
    tiny_data: Path, small_settings: Path, invoke: Invoke, tmp_path: Path
) -> None:
    settings = with_compress(small_settings, tmp_path, 'keep_float = ["heat"]')
    result = invoke("run", "--data", tiny_data, "--out", tmp_path / "run", "--config", settings)
    assert result.exit_code == 1
    assert "keep_float: unknown layer 'heat'; did you mean head?" in result.stderr
    assert not (tmp_path / "run" / "fp32.weights.h5").exists()


def test_calibration_patches_change_the_ranges_and_are_recorded(
    run: Path, tiny_data: Path, small_settings: Path, invoke: Invoke, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(random.integers(0, 60, (96, 96, 3), dtype=np.uint8)).save(images / f"{number}.png")
    options = ("compress", run, "--recipe", "int8ptq", "--data", tiny_data, "--config", small_settings)
    assert invoke(*options).exit_code == 0
    before = checkpoint.read(checkpoint.path_of(run, "int8ptq"))
    assert invoke(*options, "--calibration", images).exit_code == 0
    after = checkpoint.read(checkpoint.path_of(run, "int8ptq"))
    assert after.arrays["stem/range"][1] < before.arrays["stem/range"][1]
    assert "calibration" not in before.inputs["data"]
    assert len(after.inputs["data"]["calibration"]) == 64
    refused = invoke(*options, "--calibration", tmp_path / "missing")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert checkpoint.read(checkpoint.path_of(run, "int8ptq")).inputs == after.inputs
