"""Augmentation on the device: orientation, shift, focus and stain, drawn inside the compiled training step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from histoedge.config import TrainConfig
from histoedge.data.perturb import STAINS

DARKEST = 1 / 255  # optical density is -log(transmission); the lower bound keeps it finite

UNMIX = np.linalg.inv(STAINS).astype(np.float32)


def layer(keras: Any, config: TrainConfig) -> Any:
    """Return a Keras layer: uint8 (N, 96, 96, 3) raw pixels -> float32 pixels in 0..1, augmented in training.

    - ``flips``: each patch in a random one of the eight orientations (tissue has no preferred orientation);
    - ``shift_px``: the batch moves by up to this many px along both axes; the border is mirrored;
    - ``focus``: each patch is blurred or sharpened: ``pixel + a (3 x 3 mean - pixel)``, a uniform in +-``focus``;
    - ``stain_jitter``: in optical density, the amounts of haematoxylin, eosin and DAB get random gains with this
      standard deviation and offsets with a quarter of it (Tellez et al. 2018). Then the three colour channels get
      gains with half of it, to imitate different scanners.

    All random numbers come from one seed generator. ``reseed`` sets it from (seed, epoch): a resumed training sees the
    same patches.
    """
    ops, random = keras.ops, keras.random

    def change_focus(pixels: Any, amount: Any) -> Any:
        padded = ops.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        mean = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
        return ops.clip(pixels + amount * (mean - pixels), 0.0, 1.0)

    def change_stain(pixels: Any, mixing: Any, offset: Any) -> Any:
        density = -ops.log(ops.maximum(pixels, DARKEST))
        shape = ops.shape(density)
        mixed = ops.reshape(ops.matmul(ops.reshape(density, (shape[0], -1, 3)), mixing), shape)
        return ops.clip(ops.exp(-(mixed + offset)), 0.0, 1.0)

    # two functions: a fused one would compute the logarithm again for each of the nine neighbours
    change_focus, change_stain = _compile(keras, change_focus), _compile(keras, change_stain)

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

            def normal(deviation: float) -> Any:
                return random.normal((count, 3), stddev=deviation, seed=self.seeds)

            def coin() -> Any:
                return random.uniform((count, 1, 1, 1), seed=self.seeds) < 0.5

            if config.shift_px:
                shift = config.shift_px
                padded = ops.pad(patches, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")
                down, right = (random.randint((), 0, 2 * shift + 1, seed=self.seeds) for _ in range(2))
                patches = ops.slice(padded, (0, down, right, 0), (count, *patches.shape[1:]))
            if config.flips:
                patches = ops.where(coin(), ops.flip(patches, axis=1), patches)
                patches = ops.where(coin(), ops.flip(patches, axis=2), patches)
                patches = ops.where(coin(), ops.transpose(patches, (0, 2, 1, 3)), patches)
            pixels = ops.cast(patches, "float32") / 255.0
            if config.focus:
                largest = config.focus
                pixels = change_focus(pixels, random.uniform((count, 1, 1, 1), -largest, largest, seed=self.seeds))
            if config.stain_jitter:
                deviation = config.stain_jitter
                stains = ops.expand_dims(1.0 + normal(deviation), 2) * STAINS  # (count, 3 stains, 3 channels)
                mixing = ops.matmul(UNMIX, stains) * ops.expand_dims(1.0 + normal(deviation / 2), 1)
                offset = ops.matmul(normal(deviation / 4), STAINS)
                pixels = change_stain(pixels, mixing, offset[:, None, None, :])
            return pixels

    return Augment()


def _compile(keras: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled to one kernel with XLA on TensorFlow; unchanged on other backends.

    JAX compiles the whole training step. On TensorFlow the step runs operator by operator on the CPU because XLA slows
    its convolutions; only this function is compiled.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow

    return tensorflow.function(function, jit_compile=True)  # type: ignore[no-any-return]
