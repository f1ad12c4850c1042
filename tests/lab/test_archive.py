"""Files of Keras models that are refused: one line that names the place, nothing executed, nothing written."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from histoedge import files
from histoedge.lab import archive, backend

pytestmark = pytest.mark.lab

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """``save(*layers, channels=3, config=change, weights=change)``: a ``.keras`` file, with its parts changed."""

    def saved(*layers: Any, channels: int = 3, config: Change | None = None, weights: Any = None) -> Path:
        keras = backend.keras()
        keras.utils.clear_session()
        inputs = x = keras.Input((96, 96, channels), name="patches")
        for layer in layers or (keras.layers.Conv2D(4, 8, 8, name="stem"), keras.layers.Flatten(name="flat")):
            x = layer(x)
        model = keras.Model(inputs, keras.layers.Dense(1, name="end")(x))
        model.save(tmp_path / "whole.keras")
        with zipfile.ZipFile(tmp_path / "whole.keras") as whole:
            parts = {name: whole.read(name) for name in whole.namelist()}
        if config is not None:
            document = json.loads(parts["config.json"])
            config(document["config"])
            parts["config.json"] = json.dumps(document).encode()
        if weights is not None:
            path = tmp_path / "weights.h5"
            path.write_bytes(parts["model.weights.h5"])
            with h5py.File(path, "a") as file:
                weights(file["layers"])
            parts["model.weights.h5"] = path.read_bytes()
        return written(tmp_path / "model.keras", parts)

    return saved


def written(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in parts.items():
            target.writestr(name, content)
    return path


@pytest.fixture
def refusal(invoke: Callable[..., Any], tiny_data: Path, tmp_path: Path) -> Callable[[Path], str]:
    """``refusal(model)``: the one line with which the command refuses to import it."""

    def refused(model: Path) -> str:
        result = invoke("import", model, "--out", tmp_path / "run", "--data", tiny_data, "--pixels", "0..1")
        assert result.exit_code == 1, result.output
        (line,) = result.stderr.splitlines()
        assert not list((tmp_path / "run").glob("[!.]*"))
        return line

    return refused


def layer_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(layer for layer in config["layers"] if layer["config"]["name"] == name)


def test_a_lambda_layer_is_never_executed(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    keras = backend.keras()
    layers = [keras.layers.Lambda(lambda x: x * 2, name="twice"), keras.layers.Flatten()]
    assert "layer twice is a Lambda, which contains code and is never executed" in refusal(save(*layers))


def test_a_custom_layer_is_refused_by_name(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    keras = backend.keras()

    class Twice(keras.layers.Layer):  # type: ignore[name-defined, misc]
        def call(self, x: Any) -> Any:
            return x * 2

    assert f"layer double is a {__name__}.Twice, which is not a built-in layer" in refusal(
        save(Twice(name="double"), keras.layers.Flatten())
    )


def test_a_custom_layer_under_a_built_in_name_is_refused(
    save: Callable[..., Path], refusal: Callable[[Path], str]
) -> None:
    def own_module(config: dict[str, Any]) -> None:
        layer_of(config, "stem")["module"] = "os"

    assert "layer stem is a os.Conv2D, which is not a built-in layer" in refusal(save(config=own_module))


def test_an_activation_that_is_an_object_is_refused(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    def pickled(config: dict[str, Any]) -> None:
        layer_of(config, "stem")["config"]["activation"] = {"class_name": "function", "config": "f"}

    assert "layer stem has the activation function, which is not a built-in" in refusal(save(config=pickled))


def test_a_cycle_is_named(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    def reads_its_reader(config: dict[str, Any]) -> None:
        (node,) = layer_of(config, "stem")["inbound_nodes"]
        node["args"][0]["config"]["keras_history"][0] = "flat"

    assert "the configuration has a cycle" in refusal(save(config=reads_its_reader))


def test_two_outputs_are_refused(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    def twice(config: dict[str, Any]) -> None:
        config["output_layers"] = [["end", 0, 0], ["flat", 0, 0]]

    assert "the model has 2 inputs or outputs (end, flat); expected one of each" in refusal(save(config=twice))


def test_a_model_for_grey_images_is_refused(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    assert "the input is [None, 96, 96, 1], expected (None, side, side, 3)" in refusal(save(channels=1))


def test_weights_without_a_layer_are_named(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    def more(layers: Any) -> None:
        layers.create_dataset("conv2d_7/vars/0", data=np.zeros(3, np.float32))

    assert "weights without a layer: conv2d_7/vars/0" in refusal(save(weights=more))


def test_missing_weights_are_named(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    def fewer(layers: Any) -> None:
        del layers["dense/vars/0"]

    assert "layer end has weights of shapes (1,), its settings require" in refusal(save(weights=fewer))


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [("stem", "kernel_size", [40_000, 40_000]), ("stem", "filters", 1 << 40), ("end", "units", 1 << 40)],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_they_are_allocated(
    save: Callable[..., Path], refusal: Callable[[Path], str], name: str, setting: str, value: Any
) -> None:
    def huge(config: dict[str, Any]) -> None:
        layer_of(config, name)["config"][setting] = value

    line = refusal(save(config=huge))
    assert f"layer {name} has" in line
    assert "its settings require" in line


def test_an_output_too_large_for_a_patch_is_refused(save: Callable[..., Path], refusal: Callable[[Path], str]) -> None:
    layers = [backend.keras().layers.UpSampling2D(2, name="wide"), backend.keras().layers.GlobalMaxPooling2D()]

    def huge(config: dict[str, Any]) -> None:
        layer_of(config, "wide")["config"]["size"] = [1 << 14, 1 << 14]

    assert "layer wide has" in refusal(save(*layers, config=huge))


@pytest.mark.parametrize("claimed", [True, False])
def test_a_zip_bomb_is_refused(tmp_path: Path, refusal: Callable[[Path], str], claimed: bool) -> None:
    size = files.LARGEST_JSON_BYTES + 1
    path = written(tmp_path / "bomb.keras", {"config.json": b" " * size, "model.weights.h5": b""})
    if not claimed:  # in the local header and in the directory
        path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little")))
    line = refusal(path)
    assert (f"config.json claims {size} bytes" in line) if claimed else ("not a complete archive" in line)


def test_a_truncated_archive_and_another_file_are_refused(
    save: Callable[..., Path], refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    whole = save().read_bytes()
    for content in (whole[: len(whole) // 2], b"weights", b""):
        (tmp_path / "part.keras").write_bytes(content)
        assert "part.keras" in refusal(tmp_path / "part.keras")


def test_the_same_layers_are_read_whatever_their_order(save: Callable[..., Path]) -> None:
    def reverse(config: dict[str, Any]) -> None:
        config["layers"].reverse()

    model = archive.read_model(save(config=reverse))
    assert [layer.name for layer in model.layers] == ["patches", "stem", "flat", "end"]
