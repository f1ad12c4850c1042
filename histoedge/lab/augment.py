"""Augmentation on the device: the eight orientations and stain jitter in optical density."""

from typing import Any

from histoedge.config import TrainConfig

DARKEST = 1 / 255  # optical density is -log(transmission); 1/255 keeps the darkest pixel finite


def layer(keras: Any, config: TrainConfig) -> Any:
    """A Keras layer: uint8 (N, H, H, 3) raw pixels -> float32 pixels in 0..1, augmented while training.

    Each patch is flipped and transposed at random (tissue has no up), and its optical density is scaled and
    shifted per channel by normal draws of spread ``stain_jitter`` (after Tellez et al. 2018, who jitter stains;
    here the three densities themselves, which needs no stain matrix). All draws come from one seed generator,
    which ``reseed`` sets from (seed, epoch) so that a resumed training sees the same patches.
    """
    ops, random = keras.ops, keras.random

    class Augment(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="augment", trainable=False, dtype="float32")
            self.seeds = random.SeedGenerator(config.seed)

        def reseed(self, epoch: int) -> None:
            self.seeds.state.assign(ops.convert_to_tensor([config.seed, epoch], dtype=self.seeds.state.dtype))

        def call(self, patches: Any, training: bool = False) -> Any:
            pixels = ops.cast(patches, "float32") / 255.0
            if not training:
                return pixels
            shape = (ops.shape(pixels)[0], 1, 1, 1)

            def coin() -> Any:
                return random.uniform(shape, seed=self.seeds) < 0.5

            if config.flips:
                pixels = ops.where(coin(), ops.flip(pixels, axis=1), pixels)
                pixels = ops.where(coin(), ops.flip(pixels, axis=2), pixels)
                pixels = ops.where(coin(), ops.transpose(pixels, (0, 2, 1, 3)), pixels)
            if config.stain_jitter:
                per_channel = (shape[0], 1, 1, 3)
                spread = config.stain_jitter
                gain = 1.0 + random.normal(per_channel, stddev=spread, seed=self.seeds)
                shift = random.normal(per_channel, stddev=spread / 2, seed=self.seeds)
                density = -ops.log(ops.maximum(pixels, DARKEST))
                pixels = ops.clip(ops.exp(-(density * gain + shift)), 0.0, 1.0)
            return pixels

    return Augment()
