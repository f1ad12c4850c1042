"""Making a trained network smaller: half precision, pruning, quantisation-aware training.

Every recipe starts from the source network with batch norm folded in, so that the integer model equals the
simulated one; fine-tuning sees training data only, with the source network as teacher (Hinton et al. 2015).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files, metrics
from histoedge.config import CompressConfig, Device, Recipe, TrainConfig
from histoedge.data import Split
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import augment, backend, batches, checkpoint, quantise
from histoedge.lab import network as networks
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.network import Arrays, Network
from histoedge.progress import Progress, silent


def inputs_of(run: Path, recipe: Recipe, config: CompressConfig, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Everything that decides the recipe's weights: its parents' bytes, the settings, the data."""
    parents = {"fp32", recipe.parent} - {None}
    return {
        "recipe": recipe.name,
        "compress": dataclasses.asdict(config),
        "parents": {str(name): files.sha256(checkpoint.path_of(run, str(name))) for name in sorted(map(str, parents))},
        "data": {name: splits[name].content_hash for name in ("train", "valid")},
    }


def compress(
    run: Path,
    recipe: Recipe,
    splits: Mapping[str, Split],
    config: CompressConfig,
    *,
    device: Device = "auto",
    progress: Progress = silent,
) -> Checkpoint:
    """Make ``RUN/<recipe>.weights.h5`` from the weights it builds on; nothing is done again that is there already.

    Raises:
        ModelError: the weights it builds on are missing.
        ConfigError: the data is not what the network was trained on.
    """
    path = checkpoint.path_of(run, recipe.name)
    source = checkpoint.read(checkpoint.path_of(run, "fp32"))
    if recipe.parent is None:
        return source
    inputs = inputs_of(run, recipe, config, splits)
    for name, found in inputs["data"].items():
        if found != source.inputs["data"][name]:  # what is test for this network may be training data elsewhere
            raise ConfigError(f"{run}: trained on another {name} split than this data holds; give the run's own --data")
    if checkpoint.is_current(path, inputs):
        return checkpoint.read(path)
    backend.use_device(device)
    if recipe.precision == "fp16":
        arrays = {name: value.astype(np.float16).astype(np.float32) for name, value in source.folded.items()}
    else:
        parent = checkpoint.read(checkpoint.path_of(run, recipe.parent))
        lesson = _Lesson(source, splits["train"], config)
        make = _quantised if recipe.precision == "int8" else _pruned
        arrays = make(lesson, parent.folded, recipe, progress)
    auc = metrics.auc(
        splits["valid"].labels, batches.logits(simulated(source.network, arrays, recipe), splits["valid"])
    )
    result = Checkpoint(source.network, recipe.name, arrays, inputs, auc)
    checkpoint.write(path, result)
    return result


def simulated(network: Network, arrays: Mapping[str, np.ndarray], recipe: Recipe) -> Any:
    """A ``tf_keras`` model of a recipe's weights that answers as its exported file will, rounding included."""
    if recipe.precision == "int8":
        return quantise.rebuild(network, arrays)
    model = networks.build(backend.tf_keras(), network, folded=True)
    networks.set_weights(model, arrays, where=recipe.name)
    return model


class _Lesson:
    """What fine-tuning learns from: augmented training patches, and targets mixed from label and teacher."""

    def __init__(self, source: Checkpoint, split: Split, config: CompressConfig) -> None:
        self.keras, self.config, self.split, self.network = backend.keras(), config, split, source.network
        self.keras.utils.set_random_seed(config.seed)
        backend.tf_keras().utils.set_random_seed(config.seed)
        settings = {**source.inputs["train"], "seed": config.seed}
        self._augment = augment.layer(self.keras, TrainConfig(**settings))
        self._teacher = networks.build(self.keras, source.network, folded=True)
        networks.set_weights(self._teacher, source.folded, where="teacher")

    def steps(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """``count`` batches: float32 pixels (n, 96, 96, 3) in 0..1, float32 targets (n, 1, 1, 1)."""
        per_epoch = math.ceil(len(self.split.labels) / self.config.batch)
        for epoch in range(math.ceil(count / per_epoch)):
            self._augment.reseed(epoch)
            data = batches.dataset(
                self.keras, self.split, batch=self.config.batch, seed=self.config.seed + 1, epoch=epoch
            )
            for number in range(min(per_epoch, count - epoch * per_epoch)):
                patches, labels = data[number]
                pixels = np.asarray(self.keras.ops.convert_to_numpy(self._augment(patches, training=True)))
                taught = 1 / (1 + np.exp(-np.asarray(self._teacher.predict_on_batch(pixels), np.float32)))
                share = np.float32(self.config.teacher_share)
                yield pixels, share * taught + (1 - share) * labels[:, :, None, None]

    def calibration(self) -> Iterator[np.ndarray]:
        """Unaugmented training pixels, float32 (n, 96, 96, 3) in 0..1."""
        count = min(self.config.calibration_patches, len(self.split.labels))
        chosen = np.sort(batches.order(len(self.split.labels), seed=self.config.seed, epoch=0)[:count])
        for start in range(0, count, 256):
            yield self.split.patches[chosen[start : start + 256]].astype(np.float32) / 255.0


def _compiled(model: Any, *, learning_rate: float, steps: int) -> Any:
    keras = backend.tf_keras()
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1))
    model.compile(keras.optimizers.Adam(schedule), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def _pruned(lesson: _Lesson, folded: Arrays, recipe: Recipe, progress: Progress) -> Arrays:
    """Magnitude pruning, polynomial schedule (Zhu and Gupta 2017), full sparsity after two thirds of the steps."""
    toolkit, keras, network = backend.toolkit(), backend.tf_keras(), lesson.network
    config = lesson.config
    model = networks.build(keras, network, folded=True)
    steps = max(config.prune_steps, 1)
    schedule = toolkit.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=recipe.sparsity,
        begin_step=0,
        end_step=max(2 * steps // 3, 1),
        frequency=max(steps // 60, 1),
    )

    def wrap(layer: Any) -> Any:
        if layer.name not in network.prunable:
            return layer.__class__.from_config(layer.get_config())
        return toolkit.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)

    pruned = keras.models.clone_model(model, clone_function=wrap)
    _copy_weights(pruned, folded)
    _compiled(pruned, learning_rate=config.prune_learning_rate, steps=steps)
    update = toolkit.sparsity.keras.UpdatePruningStep()
    update.set_model(pruned)
    update.on_train_begin()
    for step, (pixels, targets) in enumerate(lesson.steps(steps)):
        update.on_train_batch_begin(step)
        loss = pruned.train_on_batch(pixels, targets)
        progress(recipe.name, step + 1, steps, f"loss {loss:.4f}")
    update.on_epoch_end(0)
    arrays = networks.weights_of(toolkit.sparsity.keras.strip_pruning(pruned))
    short = {name: share for name, share in networks.zeros(network, arrays).items() if share < recipe.sparsity - 0.01}
    if short:
        raise ModelError(f"{recipe.name}: too few zeros after pruning ({short}); raise prune_steps")
    return arrays


def _copy_weights(pruned: Any, arrays: Arrays) -> None:
    """Kernels and biases into a model whose layers are wrapped for pruning."""
    for layer in pruned.layers:
        name = layer.name.removeprefix("prune_low_magnitude_")
        for variable in layer.weights:
            key = f"{name}/{variable.name.split('/')[-1].split(':')[0]}"
            if key in arrays:
                variable.assign(arrays[key])


def _quantised(lesson: _Lesson, folded: Arrays, recipe: Recipe, progress: Progress) -> Arrays:
    """Quantisation-aware training from calibrated ranges; zeros that are there stay where the recipe prunes."""
    keras, network, config = backend.tf_keras(), lesson.network, lesson.config
    model = networks.build(keras, network, folded=True)
    networks.set_weights(model, folded, where=recipe.name)
    ranges = quantise.calibrate(model, network, lesson.calibration())
    quantised = quantise.wrap(model, preserve_zeros=recipe.sparsity > 0)
    quantise.set_ranges(quantised, network, ranges)
    _compiled(quantised, learning_rate=config.quantise_learning_rate, steps=config.quantise_steps)
    for step, (pixels, targets) in enumerate(lesson.steps(config.quantise_steps)):
        loss = quantised.train_on_batch(pixels, targets)
        quantise.hold_ranges(quantised, network, ranges)
        progress(recipe.name, step + 1, config.quantise_steps, f"loss {loss:.4f}")
    return quantise.weights_of(quantised, network, ranges)
