"""Models with layers that no row expresses: imported as they are, from the file to the folder for a host."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras_models
import numpy as np
import pytest

from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import archive, backend, checkpoint, gradcam, layer_files, layer_graph, layer_writer, rebuild
from histoedge.lab.row_writer import PIXEL_RANGES

pytestmark = pytest.mark.lab

REASONS = {
    "squeeze_and_excitation": "layer reshape: Reshape has no counterpart among the rows of a network",
    "convnext": "layer layer_normalization: LayerNormalization has no counterpart among the rows of a network",
    "grouped": "layer elu: ELU has no counterpart among the rows of a network",
}


@pytest.fixture(
    params=[pytest.param(name, marks=() if name == "squeeze_and_excitation" else pytest.mark.slow) for name in REASONS]
)
def run(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    build_once: Callable[..., Path],
    invoke: Callable[..., Any],
    tiny_data: Path,
) -> SimpleNamespace:
    """A copy of a run with such a model and its exported recipes, and what the import and the export printed."""
    name = str(request.param)

    def build(folder: Path) -> None:
        folder.mkdir()
        model, run, settings = folder / f"{name}.keras", folder / "run", folder / "short.toml"
        keras_models.build(backend.keras(), name).save(model)
        settings.write_text("[compress]\ncalibration_patches = 16\n")
        pixels, recipes = keras_models.OTHERS[name][1], ("--recipe", "fp16", "--recipe", "int8ptq")
        for command in (
            ("import", model, "--out", run, "--data", tiny_data, "--pixels", pixels, "--json"),
            ("compress", run, "--data", tiny_data, "--config", settings, *recipes),
            ("export", run),
        ):
            done = invoke(*command)
            assert done.exit_code == 0, done.output
            (folder / f"{command[0]}.txt").write_text(done.stdout)

    built = build_once(f"keras_layers_{name}", build)
    return SimpleNamespace(
        name=name,
        folder=shutil.copytree(built / "run", tmp_path / "run"),
        imported=json.loads((built / "import.txt").read_text()),
        exported=(built / "export.txt").read_text(),
    )


def test_it_becomes_a_run_and_says_which_layer_has_no_row(run: SimpleNamespace) -> None:
    assert run.imported["not_as_rows"] == REASONS[run.name]
    assert run.imported["edge_mode"] == "patch"
    assert run.imported["largest_difference"] <= 1e-5
    assert "not compressed yet" not in run.exported


@pytest.mark.parametrize("recipe", layer_graph.RECIPES)
@pytest.mark.parametrize("format_", manifests.FORMATS)
def test_its_files_pass_verification(
    run: SimpleNamespace, recipe: str, format_: str, invoke: Callable[..., Any], tiny_data: Path
) -> None:
    model = run.folder / "models" / f"{recipe}.{format_}"
    data = ("--data", tiny_data) if (recipe, format_) == ("int8ptq", "onnx") else ()
    verified = invoke("verify", model, *data)
    assert verified.exit_code == 0, verified.output
    assert ("operators in integers; not: " in verified.output) == (recipe == "int8ptq")
    manifest = manifests.read(model)
    assert manifest.network == f"{run.name} (Keras layers)"
    assert manifest.edge_mode == "patch"
    assert manifest.output_quantum is None
    assert ("runtimes round these layers differently" in manifest.tolerance_reason) == (recipe == "int8ptq")
    assert bool(manifest.may_saturate) == (recipe == "int8ptq")


def test_the_folder_for_a_host_passes_its_self_test(
    run: SimpleNamespace, invoke: Callable[..., Any], tmp_path: Path
) -> None:
    model = run.folder / "models" / "int8ptq.onnx"
    assert invoke("verify", model).exit_code == 0
    embedded = invoke("embed", model, "--into", tmp_path / "kit")
    assert embedded.exit_code == 0, embedded.output
    command = [sys.executable, "-m", "edge", "selftest", "."]
    tested = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "kit")
    assert tested.stdout.splitlines()[-1] == "pass", tested.stderr


def test_recipes_that_train_are_refused_before_any_training(
    run: SimpleNamespace, invoke: Callable[..., Any], tiny_data: Path
) -> None:
    before = sorted(run.folder.iterdir())
    for recipe in ("int8", "prune50", "slim50", "cluster16_int8"):
        refused = invoke("compress", run.folder, "--data", tiny_data, "--recipe", "fp16", "--recipe", recipe)
        (line,) = refused.stderr.splitlines()
        assert refused.exit_code == 1
        assert f"recipe {recipe}: not possible for network {run.name}" in line
        assert REASONS[run.name] in line
        assert "use --recipe fp32 --recipe fp16 --recipe int8ptq" in line
    assert sorted(run.folder.iterdir()) == before


def test_what_reads_rows_is_refused(run: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="keeps its Keras layers .*: Grad-CAM, errors by layer, teachers"):
        gradcam.GradCam(run.folder / "fp32.weights.h5")


def test_the_same_weights_give_the_same_bytes(run: SimpleNamespace, invoke: Callable[..., Any]) -> None:
    names = [path for path in (run.folder / "models").iterdir() if path.suffix in (".tflite", ".onnx")]
    before = {path.name: path.read_bytes() for path in names}
    for path in names:
        path.unlink()
    assert invoke("export", run.folder).exit_code == 0
    assert {path.name: path.read_bytes() for path in names} == before


def test_the_network_is_read_back_from_its_document(run: SimpleNamespace) -> None:
    saved = checkpoint.read(run.folder / "fp32.weights.h5")
    assert isinstance(saved.architecture, layer_graph.LayerGraph)
    document = json.loads(json.dumps(saved.architecture.as_json()))
    assert layer_graph.graph_from_json(document, where=run.folder) == saved.architecture
    assert saved.architecture.params == sum(array.size for array in saved.arrays.values())
    changes: list[tuple[str, Any]] = [
        ("layers", []),
        ("layers", document["layers"][::-1]),
        ("layers", [*document["layers"], {**document["layers"][-1], "kind": "Lambda", "name": "code"}]),
        ("layers", [*document["layers"], {**document["layers"][-1], "name": "big", "weights": [[1 << 40]]}]),
        ("layers", [*document["layers"], {**document["layers"][-1], "name": "bad", "weights": [["a"]]}]),
        ("output", "nothing"),
        ("macs_per_patch", None),
    ]
    for key, value in changes:
        with pytest.raises(ModelError):
            layer_graph.graph_from_json({**copy.deepcopy(document), key: value}, where=run.folder)


def logits_of(keras: Any, model: Any, tmp_path: Path, patches: np.ndarray, **options: Any) -> np.ndarray:
    """The logits of the layers of a model that are kept, of pixels in 0..1."""
    model.save(tmp_path / "model.keras")
    read = archive.read_model(tmp_path / "model.keras")
    rebuild.check_built_in(read, where="model")
    graph, arrays = layer_writer.keep(read, name="kept", reason="none", where="model", **options)
    return layer_graph.predictor(graph, arrays)(patches).ravel()


@pytest.mark.parametrize("end", ["softmax layer", "softmax of dense", "linear", "two logits of a pool", "sigmoid"])
@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize(
    "pixels", ["-1..1", *(pytest.param(name, marks=pytest.mark.slow) for name in PIXEL_RANGES if name != "-1..1")]
)
def test_the_end_of_a_model_becomes_one_logit(tmp_path: Path, end: str, positive: int, pixels: str) -> None:
    keras = backend.keras()
    layers = keras.layers
    ends = {
        "softmax layer": [layers.Flatten(), layers.Dense(2), layers.Dropout(0.5), layers.Softmax()],
        "softmax of dense": [layers.Flatten(), layers.Dense(2, activation="softmax"), layers.Dropout(0.5)],
        "linear": [layers.GlobalMaxPooling2D(), layers.Dense(2), layers.Activation("linear")],
        "two logits of a pool": [layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()],
        "sigmoid": [layers.Flatten(), layers.Dense(1, activation="sigmoid")],
    }
    rescaling = [layers.Rescaling(1 / 255)] if pixels == "0..255" else []
    model = keras.Sequential([keras.Input((32, 32, 3)), *rescaling, layers.Conv2D(4, 8, 8), *ends[end]])
    patches = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    scale, offset = PIXEL_RANGES[pixels]
    outputs = np.asarray(model.predict_on_batch(patches * scale + offset), np.float64)
    if "softmax" in end:
        outputs = np.log(outputs)
    elif end == "sigmoid":
        outputs = np.log(outputs / (1 - outputs))
    expected = outputs[:, positive] - outputs[:, 1 - positive] if outputs.shape[1] == 2 else outputs[:, 0]
    if outputs.shape[1] == 1 and not positive:
        expected = -expected
    logits = logits_of(keras, model, tmp_path, patches, pixels=pixels, positive=positive)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(("count", "activation"), [(3, "softmax"), (2, "sigmoid"), (1, "tanh")])
def test_another_end_is_refused(tmp_path: Path, count: int, activation: str) -> None:
    keras = backend.keras()
    layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(count, activation=activation)]
    with pytest.raises(ModelError, match=f"the model has {count} outputs with activation {activation}"):
        logits_of(keras, keras.Sequential(layers), tmp_path, np.zeros((1, 32, 32, 3)), pixels="0..1", positive=1)


def test_gelu_is_written_in_operators_of_onnx_and_compared_with_keras(tmp_path: Path) -> None:
    keras = backend.keras()
    layers = keras.layers
    x = keras.Input((32, 32, 3))
    exact = layers.Conv2D(4, 8, 8, activation="gelu")(x)
    end = layers.Dense(1)(layers.Flatten()(layers.Multiply()([exact, exact])))
    keras.Model(x, end).save(tmp_path / "model.keras")
    read = archive.read_model(tmp_path / "model.keras")
    graph, arrays = layer_writer.keep(read, name="g", pixels="0..1", positive=1, reason="none", where="g")
    tflite = layer_files.to_tflite_file(graph, arrays, precision="fp32")
    onnx = layer_files.to_onnx_file(tflite, graph, precision="fp32", target_ort="1.15")
    patches = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    for content, format_ in ((tflite, "tflite"), (onnx, "onnx")):
        layer_files.check_fp32(content, format_, graph, arrays, patches)
    with pytest.raises(ModelError, match="the fp32 onnx file differs by .* in a logit from Keras"):
        layer_files.check_fp32(onnx, "onnx", graph, {**arrays, "1/0": arrays["1/0"] * 1.1}, patches)
