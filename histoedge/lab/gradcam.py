"""Grad-CAM of a run's weights (Selvaraju et al. 2017): which places of the last convolution speak for tumour."""

from pathlib import Path

import numpy as np

from histoedge import edge
from histoedge.edge.errors import ModelError
from histoedge.lab import architecture, backend, checkpoint
from histoedge.lab import weights as keras_weights
from histoedge.lab.architecture import LABEL_PX, PATCH_PX


class GradCam:
    """The folded network of a weights file, in floats, with the gradients that exported files lack.

    TensorFlow computes it whatever ``KERAS_BACKEND`` says: it is built as for export. Of an int8 recipe these are the
    trained weights before rounding. ``layer`` is the convolution looked at: the last before the head whose output
    still has more than one place (the one that stands for a dense layer has not).
    """

    def __init__(self, weights: Path) -> None:
        """Open ``RUN/<recipe>.weights.h5``.

        Raises:
            ModelError: missing, not a run's weights, or a network whose convolutions all give a single place.
            RuntimeUnavailable: the lab is not installed.
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
            raise ModelError(f"{weights}: no convolution of {saved.network.name} has a map that Grad-CAM could show")
        self.layer, (rows, side) = list(sides.items())[-1]
        self._places = places(*architecture.receptive_field(saved.network.rows[:rows]), side)
        self._both = keras.Model(model.input, [model.get_layer(self.layer).output, model.output])

    @property
    def uniform_share(self) -> float:
        """The share of an even map that lies in the centre 32 x 32 px: more than 1/9 where it misses the border."""
        first = (PATCH_PX - LABEL_PX) // 2
        within = self._places >= 0
        return float((within[first : first + LABEL_PX].sum() / within.sum()) ** 2)

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, 1, 1, 1) of uint8 (N, 96, 96, 3) pixels."""
        _, logits = self._both(self._pixels(patches), training=False)
        return np.asarray(logits)

    def maps(self, patches: np.ndarray) -> np.ndarray:
        """Grad-CAM, float32 (N, 96, 96), of uint8 (N, 96, 96, 3) pixels: 0 or more.

        Channel k weighs its mean gradient over the places; the map is the positive part of the weighted sum. Each
        pixel takes the value of the place whose receptive field is centred nearest, and pixels beyond half a step
        from all of them 0. (Stretching the map over the patch, as is often done, would shift it: with valid padding
        no place is centred near the border.) A place still sees a whole receptive field, and the mean over places
        forgets where in the patch a large head's kernel looks: occlusion tells that better.
        """
        with self._tf.GradientTape() as tape:
            activations, logits = self._both(self._pixels(patches), training=False)
        weights = np.mean(tape.gradient(logits, activations), axis=(1, 2), keepdims=True)
        small = np.maximum((activations.numpy() * weights).sum(axis=-1), 0)
        within = self._places >= 0
        return np.asarray(small[:, self._places][:, :, self._places] * np.outer(within, within))

    def _pixels(self, patches: np.ndarray) -> np.ndarray:
        return edge.check_patches(patches).astype(np.float32) / np.float32(255)


def places(field: int, step: int, side: int) -> np.ndarray:
    """Which place along a side each pixel belongs to, int (96,): the one centred within half a step, -1 for none.

    Place i sees ``field`` px from i x ``step`` on.
    """
    nearest = np.floor((np.arange(PATCH_PX) + 0.5 - (field - step) / 2) / step).astype(int)
    return np.where((nearest >= 0) & (nearest < side), nearest, -1)
