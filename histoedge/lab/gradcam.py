"""Grad-CAM of a run's weights (Selvaraju et al. 2017): positions of the last convolution that support tumour."""

from pathlib import Path

import numpy as np

from histoedge import edge
from histoedge.edge.errors import ModelError
from histoedge.edge.patches import LABEL_PX, PATCH_PX
from histoedge.lab import architecture, backend, checkpoint
from histoedge.lab import weights as keras_weights


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
        sides = {
            name: (number, model.get_layer(name).output.shape[1])
            for number, (name, row) in enumerate(saved.network.layers, start=1)
            if row.kind == "conv" and model.get_layer(name).output.shape[1] > 1
        }
        if not sides:
            raise ModelError(
                f"{weights}: Grad-CAM is not possible: no convolution of {saved.network.name} has more than one "
                "output position"
            )
        self.layer, (rows, side) = list(sides.items())[-1]
        self.temperature = saved.calibration.temperature
        self._positions = nearest_positions(*architecture.receptive_field(saved.network.rows[:rows]), side)
        self._model = keras.Model(model.input, [model.get_layer(self.layer).output, model.output])

    @property
    def uniform_share(self) -> float:
        """Share of a uniform map in the central 32 x 32 px: more than 1/9 if the map is 0 at the border."""
        first = (PATCH_PX - LABEL_PX) // 2
        within = self._positions >= 0
        return float((within[first : first + LABEL_PX].sum() / within.sum()) ** 2)

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return logits float32 (N, 1, 1, 1) of uint8 (N, 96, 96, 3) pixels."""
        _, logits = self._model(self._pixels(patches), training=False)
        return np.asarray(logits)

    def maps(self, patches: np.ndarray) -> np.ndarray:
        """Return Grad-CAM maps, float32 (N, 96, 96), not negative, of uint8 (N, 96, 96, 3) pixels.

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
        return edge.check_patches(patches).astype(np.float32) / np.float32(255)


def nearest_positions(field: int, step: int, side: int) -> np.ndarray:
    """Return the nearest position of each pixel along one side, int (96,); -1 if none is within half a step.

    Args:
        field: side of the receptive field in px; position i covers px from i x ``step`` on.
        step: distance of neighbouring positions in px.
        side: number of positions.
    """
    nearest = np.floor((np.arange(PATCH_PX) + 0.5 - (field - step) / 2) / step).astype(int)
    return np.where((nearest >= 0) & (nearest < side), nearest, -1)
