"""Augmentation on the device: orientation, place, focus and stain, all drawn inside the compiled step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from histoedge.config import TrainConfig
from histoedge.edge import drift

DARKEST = 1 / 255  # optical density is -log(transmission); 1/255 keeps the darkest pixel finite

STAINS = np.array([drift.HAEMATOXYLIN, drift.EOSIN, (0.27, 0.57, 0.78)], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
"""Optical densities in red, green, blue of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001)."""
UNMIX = np.linalg.inv(STAINS).astype(np.float32)


def layer(keras: Any, config: TrainConfig) -> Any:
    """A Keras layer: uint8 (N, 96, 96, 3) raw pixels -> float32 pixels in 0..1, augmented while training.

    - ``flips``: each patch in one of the eight orientations (tissue has no up);
    - ``shift_px``: the batch is moved by up to so many px along both axes, its border mirrored;
    - ``focus``: each patch is blurred or sharpened, ``pixel + a (3 x 3 mean - pixel)`` with a uniform in +-``focus``;
    - ``stain_jitter``: in optical density the amounts of haematoxylin, eosin and DAB get gains of that spread and
      offsets of a quarter of it (Tellez et al. 2018), then the three channels gains of half of it: scanners.

    All draws come from one seed generator, which ``reseed`` sets from (seed, epoch) so that a resumed training sees
    the same patches.
    """
    ops, random = keras.ops, keras.random

    def focused(pixels: Any, amount: Any) -> Any:
        rim = ops.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        rows = rim[:, :-2] + rim[:, 1:-1] + rim[:, 2:]
        mean = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
        return ops.clip(pixels + amount * (mean - pixels), 0.0, 1.0)

    def stained(pixels: Any, mixing: Any, offset: Any) -> Any:
        density = -ops.log(ops.maximum(pixels, DARKEST))
        shape = ops.shape(density)
        mixed = ops.reshape(ops.matmul(ops.reshape(density, (shape[0], -1, 3)), mixing), shape)
        return ops.clip(ops.exp(-(mixed + offset)), 0.0, 1.0)

    focused, stained = _compiled(keras, focused), _compiled(keras, stained)  # apart: fused, the logarithm is taken anew
    # for each of the nine neighbours

    class Augment(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="augment", trainable=False, dtype="float32")
            self.seeds = random.SeedGenerator(config.seed)

        def reseed(self, epoch: int) -> None:
            self.seeds.state.assign(ops.convert_to_tensor([config.seed, epoch], dtype=self.seeds.state.dtype))

        def call(self, patches: Any, training: bool = False) -> Any:
            if not training:
                return ops.cast(patches, "float32") / 255.0
            count = ops.shape(patches)[0]

            def normal(spread: float) -> Any:
                return random.normal((count, 3), stddev=spread, seed=self.seeds)

            def coin() -> Any:
                return random.uniform((count, 1, 1, 1), seed=self.seeds) < 0.5

            if config.shift_px:
                reach = config.shift_px
                rim = ops.pad(patches, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
                down, right = (random.randint((), 0, 2 * reach + 1, seed=self.seeds) for _ in range(2))
                patches = ops.slice(rim, (0, down, right, 0), (count, *patches.shape[1:]))
            if config.flips:
                patches = ops.where(coin(), ops.flip(patches, axis=1), patches)
                patches = ops.where(coin(), ops.flip(patches, axis=2), patches)
                patches = ops.where(coin(), ops.transpose(patches, (0, 2, 1, 3)), patches)
            pixels = ops.cast(patches, "float32") / 255.0
            if config.focus:
                spread = config.focus
                pixels = focused(pixels, random.uniform((count, 1, 1, 1), -spread, spread, seed=self.seeds))
            if config.stain_jitter:
                spread = config.stain_jitter
                stains = ops.expand_dims(1.0 + normal(spread), 2) * STAINS  # (count, 3 stains, 3 channels)
                mixing = ops.matmul(UNMIX, stains) * ops.expand_dims(1.0 + normal(spread / 2), 1)
                offset = ops.matmul(normal(spread / 4), STAINS)
                pixels = stained(pixels, mixing, offset[:, None, None, :])
            return pixels

    return Augment()


def _compiled(keras: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one kernel. JAX makes the whole step one; TensorFlow's step runs on the CPU operator by operator,
    because XLA slows its convolutions, so there XLA gets this part alone."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow

    return tensorflow.function(function, jit_compile=True)  # type: ignore[no-any-return]
