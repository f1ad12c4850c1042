"""The source network as a runtime for benchmarks: ``python -m histoedge.lab.reference`` serves the cell protocol.

It predicts with a compiled function, because ``model.predict`` on a single patch is mostly overhead.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cell, edge
from histoedge.lab import backend, checkpoint, layer_graph
from histoedge.lab import weights as keras_weights
from histoedge.lab.layer_graph import LayerGraph


class KerasRunner:
    """A ``Runner`` for a checkpoint, built in Keras 3 as it was trained, with batch norm."""

    runtime = "keras"

    def __init__(self, weights: Path) -> None:
        keras = backend.keras()
        saved = checkpoint.read(weights)
        self._patch_px = saved.architecture.patch_px
        self.version = str(keras.__version__)
        self.kernels = f"{keras.backend.backend()}, compiled"
        if isinstance(saved.architecture, LayerGraph):
            model = layer_graph.build_graph(saved.architecture, saved.arrays, where=str(weights))
        else:
            model = keras_weights.build(keras, saved.network, field_px=None)
            keras_weights.set_weights(model, saved.arrays, where=str(weights))
        self._predict = _compile(keras, model)

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        pixels = edge.check_patches(patches, patch_px=self._patch_px).astype(np.float32) / np.float32(255)
        logits = np.asarray(self._predict(pixels))
        return logits if logits.ndim == 4 else logits.reshape(-1, 1, 1, 1)


def _compile(keras: Any, model: Any) -> Callable[[np.ndarray], Any]:
    backend_name = keras.backend.backend()
    if backend_name == "tensorflow":
        tf = backend.tensorflow()
        spec = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32)
        function = tf.function(lambda pixels: model(pixels, training=False)).get_concrete_function(spec)
        return lambda pixels: function(tf.constant(pixels)).numpy()
    if backend_name == "jax":
        import jax

        trainable, rest = [[v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)]
        jitted: Callable[[np.ndarray], Any]
        jitted = jax.jit(lambda pixels: model.stateless_call(trainable, rest, pixels, training=False)[0])
        return jitted
    return lambda pixels: keras.ops.convert_to_numpy(model(pixels, training=False))


def _open(request: cell.Request) -> KerasRunner:
    return KerasRunner(Path(request["model"]))


def _prepare(request: cell.Request) -> None:
    backend.keras()


if __name__ == "__main__":
    cell.serve(_open, prepare=_prepare)
