"""Compress a network of Keras layers: half precision, and 8-bit integers after training by TensorFlow's converter."""

from collections.abc import Sequence

import numpy as np

from histoedge import metrics
from histoedge.config import Recipe
from histoedge.edge import litert
from histoedge.edge.errors import ConfigError
from histoedge.lab import batches, calibrate, layer_files, layer_graph
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.finetune import CompressJob
from histoedge.lab.layer_graph import LayerGraph


def check_recipes(network: LayerGraph, recipes: Sequence[Recipe]) -> None:
    """Check that no recipe changes or trains layers.

    Raises:
        ConfigError: a recipe that does; the message names the layer that no row expresses.
    """
    for recipe in recipes:
        if recipe.name not in layer_graph.RECIPES:
            choice = " ".join(f"--recipe {name}" for name in layer_graph.RECIPES)
            raise ConfigError(
                f"recipe {recipe.name}: not possible for network {network.name}, which keeps its Keras layers "
                f"({network.reason}); use {choice}, or replace the layer and import again"
            )


def compressed_layers(job: CompressJob, network: LayerGraph) -> Checkpoint:
    """Return the checkpoint of ``fp16`` or ``int8ptq``, with empty ``inputs``; AUC and calibration are of the file.

    The weights are those of the source: the converter folds them and then rounds. The checkpoint of ``int8ptq``
    contains the TFLite file itself, because its ranges come from training patches, which an export does not read.
    """
    arrays, precision = dict(job.source.arrays), job.recipe.precision
    patches = job.calibration_pixels() if precision == "int8" else ()
    content = layer_files.to_tflite_file(network, arrays, precision=precision, calibration=patches)
    if precision == "int8":
        arrays[layer_files.TFLITE] = np.frombuffer(content, np.uint8)
    runner = litert.open_litert(content, patch_px=network.patch_px)

    def predict(pixels: np.ndarray) -> np.ndarray:
        return runner.predict(np.rint(pixels * 255).astype(np.uint8))

    valid = job.splits["valid"]
    logits = batches.logits_in_batches(predict, valid, progress=job.progress, label=f"{job.recipe.name}, valid patches")
    calibration = calibrate.fit_calibration(valid.labels, logits)
    return Checkpoint(network, job.recipe.name, arrays, {}, metrics.auc(valid.labels, logits), calibration)
