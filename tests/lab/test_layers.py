"""Integer files layer by layer, on the interpreters that ship them."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from histoedge import benchmark, data, edge, files
from histoedge.cli import main
from histoedge.config import Recipe
from histoedge.data import synthetic
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError, RuntimeUnavailable
from histoedge.lab import activation_ranges, backend, calibrate, checkpoint, export, finetune, layers, quantise
from histoedge.lab import weights as keras_weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row

pytestmark = pytest.mark.lab

LAYERS = ["stem", "conv2", "conv3", "conv4", "conv5", "head"]


def golden_of(model: Path) -> goldens.Golden:
    return goldens.read_golden(model, manifests.read(model))


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """The run's int8 weights and models, to be spoilt."""
    (tmp_path / "models").mkdir()
    for path in [*finished_run.glob("int8.*"), finished_run / "fp32.weights.h5", finished_run / "appearance.json"]:
        shutil.copy(path, tmp_path)
    for path in finished_run.glob("models/*"):
        shutil.copy(path, tmp_path / "models")
    return tmp_path


@pytest.fixture
def with_conv3_range(copied: Path) -> Callable[[float], Path]:
    """``with_conv3_range(factor)`` exports int8 with conv3's activation range made that much wider."""

    def made(factor: float) -> Path:
        path = checkpoint.path_of(copied, "int8")
        saved = checkpoint.read(path)
        spoilt = {**saved.arrays, "conv3/range": saved.arrays["conv3/range"] * np.float32(factor)}
        checkpoint.write(path, dataclasses.replace(saved, arrays=spoilt))
        return export.export(copied, Recipe.parse("int8"))[0].model

    return made


@pytest.mark.parametrize("name", ["int8.tflite", "int8.onnx", "prune50_int8.tflite", "prune50_int8.onnx"])
def test_an_honest_file_errs_by_a_few_quanta_and_like_its_twin(finished_run: Path, name: str) -> None:
    errors = layers.errors_by_layer(finished_run / "models" / name)
    assert {error.layer for error in errors} == set(LAYERS)
    assert [error.rms_quanta for error in errors] == sorted((error.rms_quanta for error in errors), reverse=True)
    for error in errors:
        # rounding alone is 0.29 in the stem and every layer passes some of it on; a wrong range errs by hundreds
        assert 0 < error.rms_quanta < 20
        assert error.rms_quanta <= error.largest_quanta
        assert error.clipped <= 2 / 16  # of the golden patches, which are not the calibration's
        assert error.twin_largest_quanta is not None
        assert error.twin_largest_quanta <= 1  # a half may round either way; both files hold the same integers


def test_the_head_errs_as_the_logits_of_the_file_do(finished_run: Path) -> None:
    model = finished_run / "models" / "int8.onnx"
    saved = checkpoint.read(checkpoint.path_of(finished_run, "int8"))
    folded = keras_weights.build(backend.tf_keras(), saved.network, folded=True)
    keras_weights.set_weights(folded, saved.folded, where="test")
    patches = golden_of(model).patches
    difference = edge.load(model).predict(patches) - folded.predict_on_batch(patches.astype(np.float32) / 255)
    (head,) = [error for error in layers.errors_by_layer(model) if error.layer == "head"]
    assert head.rms_quanta * head.quantum == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-3)
    assert head.largest_quanta * head.quantum == pytest.approx(np.abs(difference).max(), rel=1e-3)
    logits = folded.predict_on_batch(patches.astype(np.float32) / 255)
    assert head.relative_rms == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(logits), rel=1e-3)
    assert head.channels == 1


def test_the_results_of_a_run_contain_the_layers_of_its_int8_files_in_order_on_valid_patches(
    finished_run: Path, tiny_data: Path
) -> None:
    valid = data.load(str(tiny_data), splits=("valid",))["valid"]
    measured = {file.model: file for file in benchmark.read_results(finished_run / "bench.json").layers}
    assert sorted(measured) == ["int8.onnx", "int8.tflite", "prune50_int8.onnx", "prune50_int8.tflite"]
    for name in ("int8.onnx", "prune50_int8.tflite"):
        file, errors = measured[name], layers.errors_in_order(finished_run / "models" / name, layers.sample(valid))
        assert (file.reason, file.runtime) == (None, "onnxruntime" if name.endswith("onnx") else "litert")
        assert file.n_patches == min(len(valid.labels), 256)
        expected = [(error.layer, error.channels, pytest.approx(error.relative_rms)) for error in errors]
        assert [(one.layer, one.channels, one.relative_rms) for one in file.layers] == expected
        assert [one.layer for one in file.layers] == LAYERS


def test_the_simulation_is_the_quantisation_aware_network(finished_run: Path) -> None:
    model = finished_run / "models" / "int8.onnx"
    saved = checkpoint.read(checkpoint.path_of(finished_run, "int8"))
    pixels = golden_of(model).patches.astype(np.float32) / 255
    folded = keras_weights.build(backend.tf_keras(), saved.network, folded=True)
    keras_weights.set_weights(folded, saved.folded, where="test")
    quantised = finetune.simulate(saved.network, saved.folded, Recipe.parse("int8"))
    difference = quantised(pixels) - folded.predict_on_batch(pixels)
    quantum = manifests.read(model).output_quantum
    assert quantum is not None
    expected = np.sqrt(np.mean(difference**2))
    assert layers.errors_by_layer(model)[0].logit_rms == pytest.approx(
        expected, abs=quantum / 4
    )  # a few halves round away


def test_a_range_too_wide_shows_in_the_layers_after_it(with_conv3_range: Callable[[float], Path]) -> None:
    errors = layers.errors_by_layer(with_conv3_range(20))
    assert layers.advice(errors).startswith("keep ")
    # its own error stays half a (wide) quantum; the layers after it show it
    assert errors[0].layer in ("conv4", "conv5", "head")


def test_a_layer_with_too_narrow_a_range_is_the_worst_and_the_advised_layer(
    with_conv3_range: Callable[[float], Path],
) -> None:
    errors = layers.errors_by_layer(with_conv3_range(1 / 20))
    assert errors[0].layer == "conv3"
    assert errors[0].clipped > 0.1
    assert errors[0].clipped > 3 * max(error.clipped for error in errors[1:])
    assert layers.advice(errors).startswith("keep conv3 in float first")


def test_pools_between_convolutions_keep_names_and_activations_together(tmp_path: Path) -> None:
    rows = (
        Row(kind="conv", channels=4, kernel=5, stride=4),
        Row(kind="maxpool", kernel=2, stride=2),
        Row(kind="conv", channels=8, kernel=3),
        Row(kind="head", channels=1, kernel=9, bias=True),
    )
    network = Network("pooled", rows)
    keras = backend.tf_keras()
    keras.utils.set_random_seed(7)
    folded = keras_weights.build(keras, network, folded=True)
    pixels = synthetic.golden(16)[0].astype(np.float32) / 255
    arrays = keras_weights.get_weights(folded) | activation_ranges.calibrate(folded, network, [pixels])
    arrays[quantise.KERNEL_CODES] = np.array([-127, 127])
    files.write_json(tmp_path / "appearance.json", {"data": "none", "statistics": {}})
    inputs = {"data": {"train": "none"}}
    for recipe in ("fp32", "int8"):
        saved = checkpoint.Checkpoint(network, recipe, arrays, inputs, 0.5, calibrate.Calibration(1.0, ()))
        checkpoint.write(checkpoint.path_of(tmp_path, recipe), saved)
    for made in export.export(tmp_path, Recipe.parse("int8")):
        errors = layers.errors_by_layer(made.model)
        assert {error.layer for error in errors} == {"stem", "conv3", "head"}
        assert max(error.rms_quanta for error in errors) < 4


def test_without_its_twin_a_file_is_compared_alone(copied: Path) -> None:
    (copied / "models" / "int8.onnx").unlink()
    assert {error.twin_largest_quanta for error in layers.errors_by_layer(copied / "models" / "int8.tflite")} == {None}


def test_files_that_are_not_int8_are_refused(finished_run: Path) -> None:
    with pytest.raises(ConfigError, match="recipe fp16, expected an int8 recipe"):
        layers.errors_by_layer(finished_run / "models" / "fp16.onnx")


def test_missing_and_other_weights_are_refused(copied: Path) -> None:
    weights, model = checkpoint.path_of(copied, "int8"), copied / "models" / "int8.onnx"
    shutil.copy(copied / "fp32.weights.h5", weights)
    with pytest.raises(ModelError, match="but int8.onnx was exported from"):
        layers.errors_by_layer(model)
    weights.unlink()
    with pytest.raises(ModelError, match="int8.weights.h5: missing; comparing layers requires these weights"):
        layers.errors_by_layer(model)


def test_without_the_lab_the_error_names_the_package_to_install(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'histoedge\[lab\]'"):
        layers.errors_by_layer(finished_run / "models" / "int8.onnx")


def test_the_command_prints_the_table_and_the_advice(copied: Path, tiny_data: Path) -> None:
    model = str(copied / "models" / "int8.onnx")
    lines = CliRunner().invoke(main, ["verify", model, "--layers"]).stdout.splitlines()
    assert {line.split()[0] for line in lines[-7:-1]} == set(LAYERS)
    assert "the logit's rms error" in lines[-1]
    result = CliRunner().invoke(main, ["verify", model, "--layers", "--data", str(tiny_data), "--json"])
    document = json.loads(result.stdout)
    assert {row["layer"] for row in document["layers"]} == set(LAYERS)
    assert "the logit's rms error" in document["advice"]
    assert document["comparison"]["n_patches"] > 0
    refused = CliRunner().invoke(main, ["verify", str(copied / "models" / "fp32.onnx"), "--layers"])
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
