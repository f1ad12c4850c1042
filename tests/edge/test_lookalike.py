"""What was given in place of a model is named, with the command to type."""

import json
from pathlib import Path

import pytest

from histoedge import edge
from histoedge.edge import lookalike
from histoedge.edge.errors import ModelError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run and its neighbours may hold, by name alone."""
    made = tmp_path / "run"
    (made / "models").mkdir(parents=True)
    for name in ("network.json", "int8.weights.h5", "models/fp16.onnx", "models/int8.tflite", "models/fp16.onnx.json"):
        (made / name).write_bytes(b"")
    (made / "bench.json").write_text(json.dumps({"format": 1, "measurements": []}))
    (made / "other.json").write_text("[]")
    for name in ("net.keras", "net.h5", "notes.txt"):
        (made / name).write_bytes(b"")
    return made


@pytest.mark.parametrize(
    ("name", "what", "command"),
    [
        ("", "the folder of a run, not a model; name one of its models: ", "histoedge verify {run}/models/int8.tflite"),
        ("models", "a folder of models, not a model; ", "histoedge verify {run}/models/int8.tflite"),
        ("int8.weights.h5", "weights of a run, not an exported model; ", "histoedge export {run}"),
        ("net.keras", "histoedge does not open Keras files; ", "histoedge run --data DATA --out RUN --config F.toml"),
        ("net.h5", "histoedge does not open Keras files; ", "histoedge run --data DATA --out RUN --config F.toml"),
        ("bench.json", "results of a bench, not a model; ", "histoedge report {run}/bench.json"),
        ("models/fp16.onnx.json", "belongs to a model; ", "histoedge verify {run}/models/fp16.onnx"),
        ("other.json", "not a model; expected a .tflite or .onnx file made by ", "histoedge export"),
        ("notes.txt", "not a model; expected a .tflite or .onnx file made by ", "histoedge export"),
    ],
)
def test_it_is_named_with_the_command_to_type(run: Path, name: str, what: str, command: str) -> None:
    place = run / name
    with pytest.raises(ModelError) as caught:
        edge.load(place)
    line = str(caught.value)
    assert line.startswith(f"{place}: ")
    assert what in line
    assert line.endswith(command.format(run=run))
    assert "\n" not in line


def test_a_run_without_models_and_an_empty_folder(run: Path, tmp_path: Path) -> None:
    for path in (run / "models").iterdir():
        path.unlink()
    assert lookalike.told(run) == f"{run}: a run without exported models; to export them: histoedge export {run}"
    assert "a folder without models; expected" in str(lookalike.told(tmp_path))


def test_a_model_and_nothing_at_all_are_no_lookalikes(run: Path) -> None:
    assert lookalike.told(run / "models" / "fp16.onnx") is None
    assert lookalike.told(run / "models" / "none.onnx") is None
    with pytest.raises(ModelError, match="no such model file; expected"):
        edge.load(run / "none.keras")
