"""A path that is not a model is explained, with the path or the command to use instead."""

import json
from pathlib import Path

import pytest

from histoedge import edge
from histoedge.edge import lookalike
from histoedge.edge.errors import ModelError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The file names of a run and of other files; the files are empty."""
    folder = tmp_path / "run"
    (folder / "models").mkdir(parents=True)
    for name in ("network.json", "int8.weights.h5", "models/fp16.onnx", "models/int8.tflite", "models/fp16.onnx.json"):
        (folder / name).write_bytes(b"")
    (folder / "bench.json").write_text(json.dumps({"format": 1, "measurements": []}))
    (folder / "other.json").write_text("[]")
    for name in ("net.keras", "net.h5", "notes.txt"):
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("", "a folder, not a model; name one of its models, such as ", "{run}/models/int8.tflite"),
        ("models", "a folder, not a model; ", "such as {run}/models/int8.tflite"),
        ("int8.weights.h5", "weights of a run, not an exported model; ", "histoedge export {run}"),
        (
            "net.keras",
            "a Keras file, which histoedge does not open; ",
            "histoedge run --data DATA --out RUN --config F.toml",
        ),
        (
            "net.h5",
            "a Keras file, which histoedge does not open; ",
            "histoedge run --data DATA --out RUN --config F.toml",
        ),
        ("bench.json", "a results file, not a model; ", "histoedge report {run}/bench.json"),
        ("models/fp16.onnx.json", "a file that belongs to a model; ", "name the model, {run}/models/fp16.onnx"),
        ("other.json", "not a model; expected a .tflite or .onnx file written by ", "histoedge export"),
        ("notes.txt", "not a model; expected a .tflite or .onnx file written by ", "histoedge export"),
    ],
)
def test_it_is_explained_with_a_remedy(run: Path, name: str, what: str, remedy: str) -> None:
    place = run / name
    with pytest.raises(ModelError) as caught:
        edge.load(place)
    line = str(caught.value)
    assert line.startswith(f"{place}: ")
    assert what in line
    assert line.endswith(remedy.format(run=run))
    assert "\n" not in line


def test_a_run_without_models_and_an_empty_folder(run: Path, tmp_path: Path) -> None:
    for path in (run / "models").iterdir():
        path.unlink()
    assert lookalike.explain_path(run) == f"{run}: a run without exported models; export them: histoedge export {run}"
    assert "a folder without models; expected" in str(lookalike.explain_path(tmp_path))


def test_a_model_and_a_missing_path_are_not_explained(run: Path) -> None:
    assert lookalike.explain_path(run / "models" / "fp16.onnx") is None
    assert lookalike.explain_path(run / "models" / "none.onnx") is None
    with pytest.raises(ModelError, match="no such model file; expected"):
        edge.load(run / "none.keras")
