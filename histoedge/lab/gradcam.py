"""Grad-CAM of a run's weights (Selvaraju et al. 2017): positions of the last convolution that support tumour."""

from pathlib import Path

import numpy as np

from histoedge import edge
from histoedge.edge.errors import ModelError
from histoedge.lab import backend, checkpoint
from histoedge.lab import weights as keras_weights
from histoedge.lab.graph import Field


class GradCam:
    """The folded float network of a weights file, with gradients, which exported files do not have.

    It is built as for export and always runs on TensorFlow, independent of ``KERAS_BACKEND``. For an int8 recipe the
    weights are those before rounding. ``layer`` is the last convolution before the head whose output has more than
    one position (a convolution that replaces a dense layer has only one). ``temperature`` is the calibration fitted on
    valid, which export writes into the manifest.
    """

    def __init__(self, weights: Path) -> None:
        """Open ``RUN/<recipe>.weights.h5``.

        Raises:
            ModelError: missing file, not a weights file, or all convolutions have a single output position.
            RuntimeUnavailable: the extra ``lab`` is not installed.
        """
        saved = checkpoint.read(weights)
        self._tf, keras = backend.tensorflow(), backend.tf_keras()
        model = keras_weights.build(keras, saved.network, folded=True)
        keras_weights.set_weights(model, saved.folded, where=str(weights))
        spread = [
            node for node in saved.network.nodes[:-1] if node.out_px > 1 and node.row.kind not in ("maxpool", "avgpool")
        ]
        if not spread:
            raise ModelError(
                f"{weights}: Grad-CAM is not possible: no convolution of {saved.network.name} has more than one "
                "output position"
            )
        last = spread[-1]
        self.layer = keras_weights.output_layer(model, last)
        self.geometry = saved.geometry
        self.temperature = saved.calibration.temperature
        self._positions = nearest_positions(last.field, last.out_px, saved.network.patch_px)
        self._model = keras.Model(model.input, [model.get_layer(self.layer).output, model.output])

    @property
    def uniform_share(self) -> float:
        """Share of a uniform map in the labelled centre: more than 1/9 if the map is 0 at the border."""
        within = self._positions >= 0
        first = (len(within) - self.geometry.label_px) // 2
        return float((within[first : first + self.geometry.label_px].sum() / within.sum()) ** 2)

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return logits float32 (N, 1, 1, 1) of uint8 (N, side, side, 3) pixels."""
        _, logits = self._model(self._pixels(patches), training=False)
        return np.asarray(logits)

    def maps(self, patches: np.ndarray) -> np.ndarray:
        """Return Grad-CAM maps, float32 (N, side, side), not negative, of uint8 (N, side, side, 3) pixels.

        The weight of a channel is its mean gradient over all positions; the map is the positive part of the weighted
        sum. Each pixel has the value of the position with the nearest receptive field centre, or 0 if this is more
        than half a step away. (The common resize of the map to the patch would shift it: with valid padding no centre
        is near the border.) A position sees its whole receptive field, and the mean over positions loses which part of
        the patch the kernel of a large head weights: occlusion shows this better.
        """
        with self._tf.GradientTape() as tape:
            activations, logits = self._model(self._pixels(patches), training=False)
        weights = np.mean(tape.gradient(logits, activations), axis=(1, 2), keepdims=True)
        small = np.maximum((activations.numpy() * weights).sum(axis=-1), 0)
        within = self._positions >= 0
        return np.asarray(small[:, self._positions][:, :, self._positions] * np.outer(within, within))

    def _pixels(self, patches: np.ndarray) -> np.ndarray:
        return edge.check_patches(patches, patch_px=len(self._positions)).astype(np.float32) / np.float32(255)


def nearest_positions(field: Field, side: int, patch_px: int) -> np.ndarray:
    """Return the nearest position of each pixel along one side, int (patch_px,); -1 if none is within half a step.

    Args:
        field: receptive field of the positions.
        side: number of positions.
        patch_px: side of the patch.
    """
    offsets = np.arange(patch_px) + 0.5 - field.first - (field.side - field.step) / 2
    nearest = np.floor(offsets / field.step).astype(int)
    return np.where((nearest >= 0) & (nearest < side), nearest, -1)
