"""Import Keras models of twelve shapes: ``python benchmarks/imports.py --data DATA --out F``.

Each model of ``keras_models`` is trained for some steps on patches of train and saved by Keras as .keras and as .h5. It
is then imported, quantised without training (``int8ptq``), exported and verified in fp32 and int8 and in both formats,
and embedded with its self-test. Models for 64 px read the centres of the patches, models for 224 px resampled patches.
AUC is on valid: nothing here is chosen by test.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_models
import numpy as np
from record import Row, changed_options, recorded_rows, run_script, write_record

import histoedge
from histoedge import data, edge, metrics, verification
from histoedge.data import Split, image
from histoedge.edge import manifest as manifests
from histoedge.lab import backend
from histoedge.lab.row_writer import PIXEL_RANGES

BATCH = 64
SMALL_PX, LARGE_PX = 64, 224
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")  # of the logit, and where a concat joins two ranges


def imports_command() -> None:
    """Write a row for each model; an interrupted run continues."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set with patches of 96 px")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--train", type=int, default=4000, help="patches of train")
    parser.add_argument("--valid", type=int, default=1400, help="patches of valid")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    splits = data.load(arguments.data, splits=("train", "valid"))
    counts = {"train": arguments.train, "valid": arguments.valid}
    parts = {name: split.subset(data.evenly_spaced(len(split.labels), counts[name])) for name, split in splits.items()}
    rows = recorded_rows(arguments.out)
    for name in keras_models.MODELS:
        if name not in {row["model"] for row in rows}:
            with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
                rows.append(import_one(name, parts, Path(folder), epochs=arguments.epochs))
            sys.stderr.write(f"{rows[-1]}\n")
            options = changed_options(parser, arguments, "train", "valid", "epochs")
            write_record(
                arguments.out,
                kind="imports",
                command=f"python benchmarks/imports.py --data DATA{options} --out F",
                about="Keras models of twelve shapes, briefly trained, as .keras and .h5. `difference`: largest "
                "difference of a logit between Keras and the imported network on 256 patches of valid, the larger of "
                "both files. `int8_d_auc`: AUC of int8 without training minus that of fp32, on valid, with ONNX "
                "Runtime. `twin_quanta`: largest difference between the TFLite and the ONNX int8 file on valid, in "
                "output quanta. `in_floats`: "
                "operators of the int8 ONNX file that ONNX Runtime computes in floats, but for conversions of codes.",
                rows=rows,
            )


def import_one(name: str, splits: Mapping[str, Split], folder: Path, *, epochs: int) -> Row:
    """Return the row of a model."""
    keras = backend.keras()
    model = keras_models.build(keras, name)
    side, (_, pixels) = model.input_shape[1], keras_models.MODELS[name]
    patches = {part: _sized(split.patches[:], side) for part, split in splits.items()}
    source = folder / "data"
    source.mkdir()
    for part, split in splits.items():
        np.savez(source / f"{part}.npz", patches=patches[part], labels=split.labels)
    (source / "data.toml").write_text('um_per_px = 0.972\nlabel_px = 32\nclasses = ["normal", "tumour"]\n')
    _train(keras, model, patches["train"], splits["train"].labels, pixels, epochs)
    differences = []
    for suffix in ("h5", "keras"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            model.save(folder / f"{name}.{suffix}")
        run = folder / suffix
        imported = histoedge.import_model(str(folder / f"{name}.{suffix}"), out=run, data=source, pixels=pixels)
        differences.append(imported.largest_difference)
    histoedge.compress(run, data=source, recipe=("int8ptq",))
    models = {(e.model.stem, e.model.suffix[1:]): e.model for e in histoedge.export(run)}
    verified = [verification.verify(path).passed for path in models.values()]
    selftest = None
    if all(verified):
        histoedge.embed(models["int8ptq", "onnx"], into=folder / "embedded")
        command = [sys.executable, "-m", "edge", "selftest", "."]
        selftest = subprocess.run(command, cwd=folder / "embedded", capture_output=True, check=False).returncode
    logits = {key: edge.load(path).predict(patches["valid"]).ravel() for key, path in models.items()}
    labels = splits["valid"].labels
    quantum = manifests.read(models["int8ptq", "onnx"]).output_quantum or 1.0
    aucs = {key: metrics.auc(labels, values) for key, values in logits.items()}
    operators = edge.operators(models["int8ptq", "onnx"], runtime="onnxruntime")
    in_floats = {entry.kind for entry in operators if not entry.integer}
    return {
        "model": name,
        "patch_px": side,
        "edge_mode": manifests.read(models["fp32", "onnx"]).edge_mode,
        "layers": len(imported.checkpoint.network.rows),
        "difference": float(f"{max(differences):.2g}"),
        "fp32_auc": round(aucs["fp32", "onnx"], 4),
        "int8_auc": round(aucs["int8ptq", "onnx"], 4),
        "int8_d_auc": round(aucs["int8ptq", "onnx"] - aucs["fp32", "onnx"], 4),
        "twin_quanta": round(float(np.abs(logits["int8ptq", "onnx"] - logits["int8ptq", "tflite"]).max()) / quantum, 2),
        "in_floats": " ".join(sorted(in_floats - set(CONVERSIONS))),
        "verified": f"{sum(verified)} of {len(verified)}",
        "self_test": {None: "not run", 0: "passed"}.get(selftest, "failed"),
    }


def _sized(patches: np.ndarray, side: int) -> np.ndarray:
    if side <= SMALL_PX:
        first = (patches.shape[1] - side) // 2
        return np.ascontiguousarray(patches[:, first : first + side, first : first + side])
    if side < LARGE_PX:
        return patches
    return np.stack([image.resampled(patch, side) for patch in patches])


def _train(keras: Any, model: Any, patches: np.ndarray, labels: np.ndarray, pixels: str, epochs: int) -> None:
    """Train in plain Keras for some epochs; outputs are one sigmoid or logit, or two classes."""
    scale, offset = PIXEL_RANGES[pixels]
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # averages over ten steps: the training has some hundred
            layer.moving_variance.assign(np.ones(layer.moving_variance.shape))
    two = model.output_shape[-1] == 2
    linear = getattr(model.layers[-1], "activation", None) is keras.activations.linear
    loss = keras.losses.SparseCategoricalCrossentropy() if two else keras.losses.BinaryCrossentropy(from_logits=linear)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in np.array_split(random.permutation(len(labels)), max(len(labels) // BATCH, 1)):
            model.train_on_batch(patches[rows].astype(np.float32) / 255 * scale + offset, labels[rows].astype(np.int32))


if __name__ == "__main__":
    run_script(imports_command)
