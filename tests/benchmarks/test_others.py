"""benchmarks/peers: other networks match their papers, and their files return the logits of the networks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from histoedge.edge import litert, ort
from histoedge.edge.errors import DataError, ModelError
from histoedge.lab import backend, catalogue

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.lab


@pytest.fixture
def others(script: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    yield script("others")
    backend.tf_keras().backend.clear_session()


def patches(count: int, *, white: bool = True) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 96, 96, 3), np.uint8)
    pixels[0, 0, 0, 0] = 255 if white else 254
    return pixels


def test_resnet_18_has_the_parameters_of_its_paper(others: ModuleType) -> None:
    model = others.resnet18()
    imagenet = 11_689_512  # torchvision's resnet18, a dense layer from 512 to 1000 classes
    assert others.params(model) == imagenet - 513 * 1000 + 513
    assert model.output_shape == (None, 1, 1, 1)


def test_macs_of_baseline_are_those_of_its_network(others: ModuleType) -> None:
    assert others.macs(others.plain(None)) == catalogue.get_network("baseline").macs()


def test_macs_count_depthwise_convolutions_and_dense_layers(others: ModuleType) -> None:
    keras = backend.tf_keras()
    layers = [keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3), keras.layers.Flatten(), keras.layers.Dense(2)]
    assert others.macs(keras.Sequential(layers)) == 6 * 6 * 9 * 3 + 6 * 6 * 3 * 2


def test_four_files_take_raw_pixels_and_answer_like_the_network(others: ModuleType, tmp_path: Path) -> None:
    keras = backend.tf_keras()
    inputs = keras.Input((96, 96, 3))
    tensor = keras.layers.Conv2D(8, 3, 4, use_bias=False)(inputs)
    tensor = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(tensor))
    model = keras.Model(inputs, others._logit(tensor))
    seen = patches(16)
    made = {file.name: file for file in others.export_others(model, seen, tmp_path)}
    assert list(made) == ["fp32.tflite", "fp32.onnx", "int8.tflite", "int8.onnx"]
    expected = np.asarray(model(seen / np.float32(255), training=False)).reshape(-1)
    assert expected.std() > 0
    for name, file in made.items():
        open_model = litert.open_litert if file.suffix == ".tflite" else ort.open_ort
        runner = open_model(file.read_bytes())
        logits = np.concatenate([runner.predict(patch[None]).reshape(-1) for patch in seen])
        # in integers the noise patches' narrow logits share 255 codes with what calibration saw: a few codes off
        limit = 1e-4 if name.startswith("fp32") else 0.05 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(logits, expected, atol=limit)
    operators = ort.ort_operators(made["int8.onnx"].read_bytes())
    assert all(one.integer for one in operators if "Conv" in one.kind)


def test_patches_without_white_cannot_set_the_input_range(others: ModuleType) -> None:
    with pytest.raises(DataError, match="no calibration patch has a pixel of 255"):
        others.quantisers.calibrated(others.plain(None), patches(4, white=False))


def test_a_baseline_of_another_network_is_refused(others: ModuleType, finished_run: Path) -> None:
    with pytest.raises(ModelError, match="a run of network edge, expected baseline"):
        others.other_networks(finished_run)
    assert [one.trained for one in others.other_networks(None)] == [False, False, False]


def test_the_best_static_settings_are_chosen_on_valid(
    others: ModuleType, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantisers = others.quantisers
    monkeypatch.setattr(quantisers, "STATIC_SETTINGS", quantisers.STATIC_SETTINGS[::3])  # with and without channels
    valid: Any = SimpleNamespace(patches=patches(32), labels=np.arange(32) % 2)
    made = quantisers.quantize_static(quantisers.QuantiserJob(finished_run, patches(32), valid), tmp_path)
    auc_by_settings = {one["settings"]: one["auc_valid"] for one in made.candidates}
    assert list(auc_by_settings) == ["per channel, MinMax, uint8 activations", "per tensor, MinMax, uint8 activations"]
    assert auc_by_settings[made.settings] == max(auc_by_settings.values())
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
