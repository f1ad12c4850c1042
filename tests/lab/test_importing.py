"""``histoedge import`` from the file to the embedded folder, and what it refuses."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras_models
import numpy as np
import pytest

import histoedge
from histoedge import data, verification
from histoedge.data import synthetic
from histoedge.data.geometry import Geometry
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, ModelError
from histoedge.lab import backend, checkpoint

pytestmark = pytest.mark.lab

COMPRESS = "[compress]\nquantise_steps = 2\nprune_steps = 2\ncalibration_patches = 64\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras models as files."""
    place = tmp_path_factory.mktemp("models")
    for name in ("plain", "same_padding", "two_way"):
        keras_models.save(backend.keras(), name, place / f"{name}.keras")
    return place


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of 96 px patches."""
    place = tmp_path_factory.mktemp("data")
    synthetic.synth(place, patches=160, seed=0)
    return place


def test_an_imported_model_goes_all_the_way_to_an_embedded_folder(
    folder: Path, small_data: Path, tmp_path: Path
) -> None:
    run, settings = tmp_path / "run", tmp_path / "settings.toml"
    settings.write_text(COMPRESS)
    imported = histoedge.import_model(str(folder / "same_padding.keras"), out=run, data=small_data, pixels="0..1")
    assert imported.largest_difference < 1e-4
    assert imported.n_compared == len(data.load(str(small_data), splits=("valid",))["valid"].labels)
    histoedge.compress(run, data=small_data, recipe=("fp16", "int8ptq", "int8", "prune50"), config=settings)
    models = [exported.model for exported in histoedge.export(run)]
    for model in models:
        assert verification.verify(model).passed, model.name
        manifest = manifests.read(model)
        assert (manifest.edge_mode, manifest.stride_px, manifest.network) == ("patch", 32, "same_padding")
    histoedge.embed(run / "models" / "int8.onnx", into=tmp_path / "embedded")
    command = [sys.executable, "-m", "edge", "selftest", "."]
    assert subprocess.run(command, cwd=tmp_path / "embedded", capture_output=True, check=False).returncode == 0


def test_importing_again_changes_nothing_and_another_model_is_refused(
    folder: Path, small_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for _ in range(2):
        histoedge.import_model(str(folder / "plain.keras"), out=run, data=small_data)
    written = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    histoedge.import_model(str(folder / "plain.keras"), out=run, data=small_data)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == written
    with pytest.raises(ConfigError, match="contains a run with other settings|another network"):
        histoedge.import_model(str(folder / "two_way.keras"), out=run, data=small_data, pixels="0..1")


def test_the_other_output_has_the_opposite_logits(folder: Path, small_data: Path, tmp_path: Path) -> None:
    models = {"plain": None, "two_way": "0..1"}
    for name, pixels in models.items():
        aucs = []
        for positive in (0, 1):
            run = tmp_path / f"{name}{positive}"
            imported = histoedge.import_model(
                str(folder / f"{name}.keras"), out=run, data=small_data, pixels=pixels, positive=positive
            )
            aucs.append(imported.checkpoint.valid_auc)
        assert sum(aucs) == pytest.approx(1)


def test_the_pixels_of_a_model_without_rescaling_must_be_stated(folder: Path, small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"two_way.keras: its first layer does not rescale .* --pixels 0..1"):
        histoedge.import_model(str(folder / "two_way.keras"), out=tmp_path / "run", data=small_data)
    assert not list(tmp_path.glob("run/*"))


def test_patches_of_another_size_are_refused(small_data: Path, tmp_path: Path) -> None:
    path = keras_models.save(backend.keras(), "small_patches", tmp_path / "small.keras")
    with pytest.raises(DataError, match="small.keras expects patches of 64 px, the data has 96 px; set patch_px = 64"):
        histoedge.import_model(str(path), out=tmp_path / "run", data=small_data)


def test_code_is_executed_only_when_it_is_trusted(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mymodels.py").write_text(
        "import keras\nopen('executed', 'w').close()\n\n\ndef build():\n"
        "    layers = [keras.Input((96, 96, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 8, 8)]\n"
        "    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(1)])\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="mymodels:build would execute the code of mymodels; add --trust-code"):
        histoedge.import_model("mymodels:build", out=tmp_path / "run", data=small_data)
    assert not (tmp_path / "executed").exists()
    imported = histoedge.import_model("mymodels:build", out=tmp_path / "run", data=small_data, trust_code=True)
    assert imported.checkpoint.network.name == "build"


def test_a_lambda_is_refused_by_name_and_never_executed(small_data: Path, tmp_path: Path) -> None:
    keras = backend.keras()
    layers = [keras.Input((96, 96, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 8, 8)]
    model = keras.Sequential([*layers, keras.layers.Lambda(lambda x: x * 2, name="doubled"), keras.layers.Flatten()])
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(ModelError, match="layer doubled is a Lambda, which contains code and is never executed"):
        histoedge.import_model(str(path), out=tmp_path / "run", data=small_data)


def test_a_custom_layer_with_the_name_of_a_built_in_one_is_refused(
    folder: Path, small_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(folder / "plain.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                layer = next(entry for entry in config["config"]["layers"] if entry["class_name"] == "Conv2D")
                layer["module"], layer["registered_name"] = "os", "Custom>Conv2D"
                content = json.dumps(config).encode()
            new.writestr(name, content)
    with pytest.raises(ModelError, match="is a Custom>Conv2D, which is not a built-in layer"):
        histoedge.import_model(str(path), out=tmp_path / "run", data=small_data)


def test_the_geometry_of_the_data_reaches_the_manifest(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for part, count in (("train", 24), ("valid", 12), ("test", 12)):
        for number in range(count):
            place = tmp_path / "data" / part / ("healthy", "cancer")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / f"{number}.png")
    (tmp_path / "data" / "data.toml").write_text('um_per_px = 0.5\nlabel_px = 16\npositive = ["cancer"]\n')
    path = keras_models.save(backend.keras(), "small_patches", tmp_path / "small.keras")
    imported = histoedge.import_model(str(path), out=tmp_path / "run", data=tmp_path / "data")
    assert imported.checkpoint.geometry == Geometry(64, 16, 0.5, ("healthy", "cancer"))
    (exported, *_) = histoedge.export(tmp_path / "run", recipe="fp32", format="onnx")
    manifest = manifests.read(exported.model)
    assert (manifest.patch_px, manifest.label_px, manifest.um_per_px) == (64, 16, 0.5)
    assert manifest.classes == ("healthy", "cancer")
    assert manifest.edge_mode == "valid"
    assert verification.verify(exported.model).passed
    assert checkpoint.read(tmp_path / "run" / "fp32.weights.h5").network.patch_px == 64
