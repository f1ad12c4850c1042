"""Import a trained Keras model into a run: as a network with the same logits, proved on patches of the data.

The run then has what a training leaves behind, ``fp32.weights.h5`` first of all: every recipe, export, verification and
benchmark applies to it.
"""

import dataclasses
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files, metrics
from histoedge.config import TrainConfig
from histoedge.data import Split
from histoedge.data.split import evenly_spaced
from histoedge.edge.errors import ConfigError, DataError, HistoedgeError, ModelError
from histoedge.lab import (
    appearance,
    archive,
    backend,
    batches,
    calibrate,
    catalogue,
    checkpoint,
    layer_graph,
    layer_writer,
    rebuild,
    train,
)
from histoedge.lab import weights as keras_weights
from histoedge.lab.architecture import Network
from histoedge.lab.archive import Model
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.layer_graph import LayerGraph
from histoedge.lab.row_writer import PIXEL_RANGES
from histoedge.lab.translate import translate
from histoedge.lab.weights import Arrays
from histoedge.progress import Progress, silent

COMPARED_PATCHES = 256
LARGEST_DIFFERENCE = 1e-4  # of logits between the Keras model and its network: float32 sums in another order
_SCALES = ("Rescaling", "Normalization")


@dataclass(frozen=True)
class Imported:
    """The outcome of an import.

    Attributes:
        checkpoint: the weights of ``RUN/fp32.weights.h5``.
        n_compared: number of patches of valid on which the logits were compared.
        largest_difference: largest difference of a logit between the Keras model and the network.
        pixels: values that the model's input expects, a key of ``PIXEL_RANGES``.
    """

    checkpoint: Checkpoint
    n_compared: int
    largest_difference: float
    pixels: str


def import_model(
    source: str,
    out: Path,
    splits: Mapping[str, Split],
    config: TrainConfig,
    *,
    name: str | None = None,
    pixels: str | None = None,
    positive: int = 1,
    trust_code: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Translate a Keras model, compare its logits on patches of valid, and write the run.

    Args:
        source: a ``.keras`` or whole-model ``.h5`` file, or ``package.module:function`` that returns a Keras model.
        out: folder of the run; it may contain the same import.
        splits: ``train`` for the statistics of the pixels, ``valid`` for the comparison and the calibration.
        config: settings of the augmentation for fine-tuning; the network is not trained here.
        name: name of the network; default: that of the file or the function.
        pixels: values that the model's input expects, a key of ``PIXEL_RANGES``; default: 0..255 if its first layer
            rescales or normalises.
        positive: of two outputs, the one of the positive class; of one output, 0 to negate it.
        trust_code: allow ``package.module:function``, which executes that code.
        progress: called after each batch of patches.

    Raises:
        ConfigError: unknown values of the pixels, code without ``trust_code``, or another run in ``out``.
        ModelError: not a Keras model, layers that cannot be imported, or logits that differ.
        DataError: patches of another size than the model's input.
    """
    model, sha256 = _read(source, trust_code=trust_code)
    name = name or (source.rpartition(":")[2] if trust_code and ":" in source else Path(source).stem)
    where = Path(source).name
    rebuild.check_built_in(model, where=where)
    side = rebuild.input_px(model, where=where)
    for split in splits.values():
        if split.patch_px != side:
            raise DataError(
                f"{where} expects patches of {side} px, the data has {split.patch_px} px; set patch_px = {side} and "
                "resample = true in DATA/data.toml, or cut other patches"
            )
    pixels = pixels or _pixels(model, where)
    network, arrays = _network(model, name=name, pixels=pixels, positive=positive, where=where)
    inputs = {
        "import": {"sha256": sha256, "pixels": pixels, "positive": positive},
        "train": dataclasses.asdict(dataclasses.replace(config, network=name)),
        "network": network.as_json(),
        "data": {part: splits[part].content_hash for part in ("train", "valid")},
        "teacher": None,
        **checkpoint.geometry_inputs(splits["valid"]),
    }
    train.check_same_settings(out, inputs)
    compared, difference = _compare(model, network, arrays, splits["valid"], pixels, positive, where)
    path = checkpoint.path_of(out, "fp32")
    if not checkpoint.is_current(path, inputs):
        valid = splits["valid"]
        logits = batches.logits_in_batches(
            _predict(network, arrays), valid, progress=progress, label=f"import {name}, valid patches"
        )
        saved = Checkpoint(
            network,
            "fp32",
            arrays,
            inputs,
            metrics.auc(valid.labels, logits),
            calibrate.fit_calibration(valid.labels, logits),
        )
        catalogue.write_network(out, network, {key: inputs[key] for key in ("train", "data", "teacher", "import")})
        appearance.write_appearance(out, splits["train"])
        checkpoint.write(path, saved)
    return Imported(checkpoint.read(path), compared, difference, pixels)


def _network(model: Model, *, name: str, pixels: str, positive: int, where: str) -> tuple[Network | LayerGraph, Arrays]:
    """Return the network of rows or, if a layer has none, the graph of Keras layers, and the weights."""
    side = rebuild.input_px(model, where=where)
    try:
        return translate(model, name=name, patch_px=side, pixels=pixels, positive=positive, where=where)
    except ModelError as error:  # also of a network without a meaning, for example several logits
        reason = str(error).removeprefix(f"{where}: ")
    graph, arrays = layer_writer.keep(model, name=name, pixels=pixels, positive=positive, reason=reason, where=where)
    stored = layer_graph.graph_from_json(json.loads(json.dumps(graph.as_json())), where=Path(where))
    return stored, arrays


def _read(source: str, *, trust_code: bool) -> tuple[Model, str]:
    """Return the model and the SHA-256 of its file."""
    module, _, function = source.partition(":")
    if function and not Path(source).exists():
        if not trust_code:
            raise ConfigError(f"{source} would execute the code of {module}; add --trust-code if you trust it")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            _call(module, function).save(path)
            return archive.read_model(path), files.sha256(path)
    return archive.read_model(Path(source)), files.sha256(Path(source))


def _call(module: str, function: str) -> Any:
    """Return the Keras model that a function of the user returns; the module may lie in the current folder."""
    keras = backend.keras()
    sys.path.insert(0, "")
    try:
        build: Callable[[], Any] = getattr(importlib.import_module(module), function)
        model = build()
    except HistoedgeError:
        raise
    except Exception as error:  # the user's own code
        raise ModelError(f"{module}:{function} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
    if not isinstance(model, keras.Model):
        raise ModelError(f"{module}:{function} returned {type(model).__name__}, expected a keras.Model")
    return model


def _pixels(model: Model, where: str) -> str:
    """Return the values that the input expects, if its first layer shows them.

    Raises:
        ConfigError: it does not.
    """
    first = [layer for layer in model.layers if layer.kind not in rebuild.TRAINING_ONLY | {"InputLayer"}]
    if first and first[0].kind in _SCALES:
        return "0..255"
    raise ConfigError(
        f"{where}: its first layer does not rescale the pixels, so their values are unknown; state those of its "
        f"training with --pixels {', '.join(PIXEL_RANGES)}"
    )


def _compare(
    model: Model, network: Network | LayerGraph, arrays: Arrays, valid: Split, pixels: str, positive: int, where: str
) -> tuple[int, float]:
    """Return the number of compared patches and the largest difference of a logit.

    Raises:
        ModelError: it is above ``LARGEST_DIFFERENCE``.
    """
    keras = backend.keras()
    patches = valid.patches[evenly_spaced(len(valid.labels), COMPARED_PATCHES)].astype(np.float32) / 255
    original = rebuild.build(keras, model, where=where, drop_last_activation=True)
    scale, offset = PIXEL_RANGES[pixels]
    outputs = [original.predict_on_batch(patches[at : at + 64] * scale + offset) for at in range(0, len(patches), 64)]
    logits = np.concatenate([output.reshape(len(output), -1) for output in outputs]).astype(np.float64)
    if logits.shape[1] == 2:
        expected = logits[:, positive] - logits[:, 1 - positive]
    else:
        expected = logits[:, 0] if positive else -logits[:, 0]
    predict = _predict(network, arrays)
    answers = np.concatenate([predict(patches[at : at + 64]).ravel() for at in range(0, len(patches), 64)])
    difference = float(np.abs(answers - expected).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"{where}: the translated network differs by {difference:.2g} in a logit, expected at most "
            f"{LARGEST_DIFFERENCE:g}; please report this model"
        )
    return len(patches), difference


def _predict(network: Network | LayerGraph, arrays: Arrays) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(network, LayerGraph):
        return layer_graph.predictor(network, arrays)
    built = keras_weights.build(backend.tf_keras(), network, folded=True)
    keras_weights.set_weights(built, arrays, where=network.name)
    return built.predict_on_batch  # type: ignore[no-any-return]
