"""Train MobileNetV2 0.35 in plain Keras: ``python benchmarks/user_model.py --data DATA --out F.keras``.

The model is what ``histoedge import`` is for: Keras' own network with a Rescaling layer, trained by ``fit`` on shuffled
and flipped patches. The best epoch by AUC on valid is kept.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import data
from histoedge.lab import backend

BATCH = 64


def main() -> None:
    """Train and save the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    keras = backend.keras()
    splits = data.load(options.data, splits=("train", "valid"))
    train, valid = splits["train"], splits["valid"]
    keras.utils.set_random_seed(0)
    model = build(keras, train.patch_px)
    steps = len(train.labels) // BATCH * options.epochs
    rate = keras.optimizers.schedules.CosineDecay(1e-5, steps, warmup_target=2e-3, warmup_steps=steps // 20)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01)
    model.compile(optimizer, "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    best = keras.callbacks.ModelCheckpoint(options.out, monitor="val_auc", mode="max", save_best_only=True)
    validation = (valid.patches[:], valid.labels)
    model.fit(_batches(keras, train), epochs=options.epochs, validation_data=validation, callbacks=[best], verbose=2)


def build(keras: Any, patch_px: int) -> Any:
    """Return an untrained MobileNetV2 0.35 (Sandler et al. 2018) that reads raw pixels."""
    inputs = keras.Input((patch_px, patch_px, 3))
    tensor = keras.layers.RandomFlip()(inputs)
    tensor = keras.layers.Rescaling(1 / 127.5, -1)(tensor)
    base = keras.applications.MobileNetV2(
        (patch_px, patch_px, 3), alpha=0.35, weights=None, include_top=False, pooling="avg"
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.97  # Keras' 0.999 averages over more steps than a short training has
    tensor = keras.layers.Dropout(0.2)(base(tensor))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(tensor), name="mobilenetv2-035")


def _batches(keras: Any, split: data.Split) -> Any:
    class Shuffled(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.random = np.random.default_rng(0)
            self.on_epoch_end()

        def __len__(self) -> int:
            return len(split.labels) // BATCH

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            rows = np.sort(self.order[number * BATCH : (number + 1) * BATCH])
            return split.patches[rows], split.labels[rows]

        def on_epoch_end(self) -> None:
            self.order = self.random.permutation(len(split.labels))

    return Shuffled()


if __name__ == "__main__":
    main()
