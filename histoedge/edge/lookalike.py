"""Explain a path that is not an exported model, and state what to pass or run instead."""

import json
from pathlib import Path

WEIGHTS = ".weights.h5"
SIDECARS = (".golden.npz", ".verdict.json", ".json")
SUFFIXES = (".onnx", ".tflite")
EXPECTED = "expected a .tflite or .onnx file written by histoedge export"
LARGEST_JSON_BYTES = 1 << 26
PREFERRED = ("int8.onnx", "int8.tflite", "fp32.onnx", "fp32.tflite")
"""File names to suggest first when a folder contains several models."""


def explain_path(place: Path) -> str | None:
    """Return one line: what ``place`` is, and what to do; None for a model file or a path that does not exist."""
    if place.is_dir():
        return _folder(place)
    if place.suffix in SUFFIXES or not place.is_file():
        return None
    if place.name.endswith(WEIGHTS):
        return f"{place}: weights of a run, not an exported model; export them: histoedge export {place.parent}"
    if place.suffix in (".keras", ".h5", ".hdf5"):
        return (
            f"{place}: a Keras file, which histoedge does not open; describe the network in the [network] table of a "
            "settings file and train it: histoedge run --data DATA --out RUN --config F.toml"
        )
    for suffix in SIDECARS:
        model = place.with_name(place.name.removesuffix(suffix))
        if place.name.endswith(suffix) and model.suffix in SUFFIXES:
            return f"{place}: a file that belongs to a model; name the model, {model}"
    if _is_results(place):
        return f"{place}: a results file, not a model; print it: histoedge report {place}"
    return f"{place}: not a model; {EXPECTED}"


def _folder(place: Path) -> str:
    for folder in (place / "models", place):
        if models := [path for path in folder.glob("*") if path.suffix in SUFFIXES]:
            names = sorted(path.name for path in models)
            model = folder / next((name for name in PREFERRED if name in names), names[0])
            return f"{place}: a folder, not a model; name one of its models, such as {model}"
    if (place / "network.json").is_file() or any(place.glob(f"*{WEIGHTS}")):
        return f"{place}: a run without exported models; export them: histoedge export {place}"
    return f"{place}: a folder without models; {EXPECTED}"


def _is_results(place: Path) -> bool:
    """Whether ``place`` is a JSON document written by ``histoedge bench``."""
    if place.suffix != ".json" or place.stat().st_size > LARGEST_JSON_BYTES:
        return False
    try:
        document = json.loads(place.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "measurements" in document
