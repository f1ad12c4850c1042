"""Train `baseline` by its author's recipe: ``python benchmarks/baseline.py --data DATA --out RUN``.

The recipe: the first 10,000 training patches, of which 8,000 are trained on; raw pixel values 0..255; no augmentation;
Adam with rate 2.5e-3 and batch 50 for three epochs, then rate 1e-3 and batch 64 for five; the weights of the last
epoch. RUN is a run like any other: continue with ``histoedge export RUN --recipe fp32`` and ``histoedge bench RUN``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from record import run_script

from histoedge import data, files, metrics
from histoedge.data import Split
from histoedge.edge.patches import PATCH_PX
from histoedge.lab import backend, catalogue, norm, train, weights
from histoedge.lab.trainee import TrainingState

PATCHES = 8_000
PHASES = ((3, 2.5e-3, 50), (5, 1e-3, 64))  # epochs, learning rate, batch


def baseline_command() -> None:
    """Train, and write the weights for pixels in 0..1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set; train and valid are used")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    splits = data.load(arguments.data, splits=("train", "valid"))
    patches, labels = splits["train"].patches[:PATCHES], np.asarray(splits["train"].labels[:PATCHES], np.float32)
    norm.MOMENTUM = 0.99  # Keras' default, which the author did not change
    keras = backend.keras()
    keras.utils.set_random_seed(arguments.seed)
    network = catalogue.get_network("baseline")
    raw = keras.Input((PATCH_PX, PATCH_PX, 3), dtype="uint8")
    deployed = weights.build(keras, network)
    model = keras.Model(raw, keras.layers.Flatten()(deployed(keras.ops.cast(raw, "float32"))))
    history: list[dict[str, float]] = []
    for epochs, rate, batch in PHASES:
        model.compile(keras.optimizers.Adam(rate), keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
        for _ in range(epochs):
            loss = model.fit(patches, labels, batch_size=batch, epochs=1, verbose=0).history["loss"][0]
            logits = np.concatenate([model.predict_on_batch(part)[:, 0] for part in _parts(splits["valid"])])
            auc = metrics.auc(splits["valid"].labels, logits)
            history.append({"epoch": len(history) + 1, "loss": round(loss, 6), "valid_auc": round(auc, 6)})
            sys.stderr.write(f"{history[-1]}\n")
    arrays = weights.get_weights(deployed)
    arrays["stem/kernel"] = arrays["stem/kernel"] * np.float32(
        255
    )  # W x = (255 W) (x / 255): the networks here accept 0..1
    settings: dict[str, Any] = {"recipe": "its author's", "seed": arguments.seed, "phases": PHASES, "patches": PATCHES}
    hashes = {name: split.content_hash for name, split in splits.items()}
    inputs = {"train": settings, "network": network.as_json(), "data": hashes, "teacher": None}
    catalogue.write_network(arguments.out, network, {name: inputs[name] for name in ("train", "data", "teacher")})
    files.write_json(arguments.out / "history.json", history)
    trained = TrainingState(tuple(history), arrays, history[-1]["valid_auc"])
    train.write_source(arguments.out, network, trained, inputs, splits)


def _parts(split: Split) -> list[np.ndarray]:
    return [np.asarray(split.patches[at : at + 256]) for at in range(0, len(split.labels), 256)]


if __name__ == "__main__":
    run_script(baseline_command)
