"""Compute compressed weights: half precision, pruning, clustering, slimming, quantisation-aware training.

All recipes start from the source network with batch norm folded in, which makes the integer model equal to the
simulated one. The exception is slimming, which trains a smaller network from the most important channels, with the
batch norm that the source network has.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.config import CompressConfig, Recipe, TrainConfig
from histoedge.data import Split
from histoedge.data.split import Patches
from histoedge.lab import (
    activation_ranges,
    augment,
    backend,
    batches,
    calibrate,
    constraints,
    quantise,
    slim,
    symmetry,
    train,
    weights,
)
from histoedge.lab.architecture import Network
from histoedge.lab.backend import Devices
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.trainee import Teacher, TrainingJob
from histoedge.lab.weights import Arrays
from histoedge.progress import Progress

LARGEST_AUC_LOSS = 0.001  # on valid: kernels that cannot saturate are used if they lose no more than this


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressJob:
    """The compression of one recipe.

    Attributes:
        recipe: the recipe.
        source: the trained network.
        parent: the weights to start from.
        splits: ``train`` and ``valid``.
        config: settings.
        devices: devices of Keras.
        patches_on: ``device`` or ``disk``, see ``placement.choose``.
        progress: called after each step.
        calibration: patches that set the activation ranges; None: training patches.
    """

    recipe: Recipe
    source: Checkpoint
    parent: Checkpoint
    splits: Mapping[str, Split]
    config: CompressConfig
    devices: Devices
    patches_on: str
    progress: Progress
    calibration: Patches | None = None

    @property
    def augmentation(self) -> TrainConfig:
        """The source network's training settings with this job's seed."""
        return dataclasses.replace(TrainConfig(**self.source.inputs["train"]), seed=self.config.seed)

    def calibration_pixels(self, patches: Patches | None = None) -> Iterator[np.ndarray]:
        """Yield batches of random patches without augmentation, float32 (n, side, side, 3) in 0..1.

        ``patches`` are those to draw from; None: all training patches.
        """
        patches = self.splits["train"].patches if patches is None else patches
        count = min(self.config.calibration_patches, len(patches))
        rows = np.sort(batches.order(len(patches), seed=self.config.seed, epoch=0)[:count])
        for start in range(0, count, 256):
            yield patches[rows[start : start + 256]].astype(np.float32) / 255.0

    def checkpoint(self, arrays: Arrays) -> Checkpoint:
        """Return the parent's network with these weights, and the AUC and calibration of its deployed form on valid."""
        valid = self.splits["valid"]
        logits = batches.logits_in_batches(simulate(self.parent.network, arrays, self.recipe), valid)
        auc, calibration = metrics.auc(valid.labels, logits), calibrate.fit_calibration(valid.labels, logits)
        return Checkpoint(self.parent.network, self.recipe.name, arrays, {}, auc, calibration)


def compressed_checkpoint(job: CompressJob, *, state: Path, inputs: Mapping[str, Any]) -> Checkpoint:
    """Compute the weights of a recipe.

    Args:
        job: the compression.
        state: file for the state of slimming after each epoch, from which the next call resumes.
        inputs: everything that determines the result, see ``train.fit``.

    Returns:
        The checkpoint, with empty ``inputs``.
    """
    if job.recipe.precision == "int8":
        return _quantise(job)
    if job.recipe.scheme == "slim":
        return _slim(job, state, inputs)
    return job.checkpoint(_float_weights(job))


def simulate(network: Network, arrays: Arrays, recipe: Recipe) -> Callable[[np.ndarray], Any]:
    """Return a function from pixels in 0..1 to the logits of the recipe's exported file, rounding included."""
    if recipe.precision == "int8":
        tf = backend.tensorflow()
        return tf.function(  # type: ignore[no-any-return]
            lambda pixels: quantise.simulate(network, arrays, pixels),
            input_signature=[tf.TensorSpec((None, network.patch_px, network.patch_px, 3), tf.float32)],
        )
    model = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(model, arrays, where=recipe.name)
    return model.predict_on_batch  # type: ignore[no-any-return]


# ---- floats --------------------------------------------------------------------------------------------------


def _float_weights(job: CompressJob) -> Arrays:
    folded = job.source.folded
    if job.recipe.precision == "fp16":
        return {name: value.astype(np.float16).astype(np.float32) for name, value in folded.items()}
    if job.recipe.scheme == "cluster16":  # quantisation-aware training tunes the 16 values later
        return {
            name: constraints.cluster_kernel(value) if name.endswith("/kernel") else value
            for name, value in folded.items()
        }
    return _prune(job)


def _prune(job: CompressJob) -> Arrays:
    """Return weights after magnitude pruning.

    ``prune`` follows a polynomial schedule (Zhu and Gupta 2017); ``2of4`` (Mishra et al. 2021) prunes from the start.
    """
    recipe, config, network = job.recipe, job.config, job.source.network
    sparsity, keras = backend.toolkit().sparsity.keras, backend.tf_keras()
    steps = max(config.prune_steps, 1)
    frequency = max(steps // 60, 1)
    if recipe.scheme == "2of4":
        schedule = sparsity.ConstantSparsity(0.5, 0, frequency=frequency)
        settings = {"pruning_schedule": schedule, "sparsity_m_by_n": (2, 4)}
    else:
        end = max(2 * steps // 3, 1)
        schedule = sparsity.PolynomialDecay(0.0, recipe.percent / 100, begin_step=0, end_step=end, frequency=frequency)
        settings = {"pruning_schedule": schedule}
    layers = network.prunable_2of4 if recipe.scheme == "2of4" else network.prunable

    def wrap(layer: Any) -> Any:
        if layer.name not in layers:
            return layer.__class__.from_config(layer.get_config())
        return sparsity.prune_low_magnitude(layer, **settings)

    model = keras.models.clone_model(weights.build(keras, network, folded=True), clone_function=wrap)
    _copy_weights(model, job.source.folded)
    _compile(model, "entropy", learning_rate=config.prune_learning_rate, steps=steps)
    update = sparsity.UpdatePruningStep()
    update.set_model(model)
    update.on_train_begin()
    share = np.float32(config.teacher_share)
    for step, (pixels, labels, logits) in enumerate(_FineTuningData(job, job.source).steps(steps)):
        update.on_train_batch_begin(step)
        loss = model.train_on_batch(pixels, share / (1 + np.exp(-logits)) + (1 - share) * labels)
        job.progress(recipe.name, step + 1, steps, f"loss {loss:.4f}")
    update.on_epoch_end(0)
    return weights.get_weights(sparsity.strip_pruning(model))


def _copy_weights(model: Any, arrays: Arrays) -> None:
    """Copy kernels and biases into a model with layers wrapped for pruning."""
    for layer in model.layers:
        name = layer.name.removeprefix("prune_low_magnitude_")
        for variable in layer.weights:
            key = f"{name}/{variable.name.split('/')[-1].split(':')[0]}"
            if key in arrays:
                variable.assign(arrays[key])


class _FineTuningData:
    """Augmented training patches with their labels and the teacher's logits."""

    def __init__(self, job: CompressJob, teacher: Checkpoint) -> None:
        self.keras, self.config, self.split = backend.keras(), job.config, job.splits["train"]
        backend.set_random_seed(job.config.seed)
        backend.tf_keras().utils.set_random_seed(job.config.seed)
        self._augment = augment.layer(self.keras, job.augmentation)
        self._teacher = weights.build(self.keras, teacher.network, folded=True)
        weights.set_weights(self._teacher, teacher.folded, where="teacher")

    def steps(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield ``count`` batches: pixels (n, 96, 96, 3) in 0..1, labels and logits (n, 1, 1, 1), all float32."""
        per_epoch = math.ceil(len(self.split.labels) / self.config.batch)
        for epoch in range(math.ceil(count / per_epoch)):
            self._augment.reseed(epoch)
            data = batches.dataset(
                self.keras,
                lambda rows: self.split.patches[rows],
                self.split.labels,
                batch=self.config.batch,
                seed=self.config.seed + 1,
                epoch=epoch,
            )
            for number in range(min(per_epoch, count - epoch * per_epoch)):
                patches, labels = data[number]
                pixels = np.asarray(self.keras.ops.convert_to_numpy(self._augment(patches, training=True)))
                logits = np.asarray(self._teacher.predict_on_batch(pixels), np.float32)
                yield pixels, labels[:, :, None, None], logits


def _compile(model: Any, loss: str, *, learning_rate: float, steps: int) -> None:
    keras = backend.tf_keras()
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1))
    losses = {"entropy": keras.losses.BinaryCrossentropy(from_logits=True), "square": keras.losses.MeanSquaredError()}
    model.compile(keras.optimizers.Adam(schedule), losses[loss])


# ---- fewer channels ------------------------------------------------------------------------------------------


def _slim(job: CompressJob, state: Path, inputs: Mapping[str, Any]) -> Checkpoint:
    """Return the network with its most important channels after training with the source network as teacher."""
    source, config = job.source, job.config
    network = slim.slim_network(source.network, job.recipe.percent)
    ranking = slim.channel_importance(backend.keras(), source.network, source.folded, job.calibration_pixels())
    if source.network.symmetric:
        ranking = symmetry.average_orientations(ranking)
    training = TrainingJob(
        network=network,
        splits=job.splits,
        config=dataclasses.replace(
            job.augmentation,
            epochs=config.slim_epochs,
            batch=config.batch,
            learning_rate=config.slim_learning_rate,
        ),
        devices=job.devices,
        patches_on=job.patches_on,
        start=slim.slice_weights(source.network, job.recipe.percent, source.arrays, ranking),
        teacher=Teacher(source.network, source.folded, config.teacher_share),
    )
    result = train.fit(training, state=state, inputs=inputs, progress=job.progress)
    calibration = calibrate.calibrate_network(network, result.best, job.splits["valid"])
    return Checkpoint(network, job.recipe.name, result.best, {}, result.best_auc, calibration)


# ---- integers ------------------------------------------------------------------------------------------------


def _quantise(job: CompressJob) -> Checkpoint:
    """Return a network with kernel codes that cannot saturate, or with the finer grid if those lose too much AUC."""
    safe, fine = quantise.LARGEST_CODES
    ranges = _ranges(job)
    limited = job.checkpoint(_quantised_weights(job, ranges, safe))
    if limited.valid_auc >= job.parent.valid_auc - LARGEST_AUC_LOSS:
        return limited
    unlimited = job.checkpoint(_quantised_weights(job, ranges, fine))
    return limited if limited.valid_auc >= unlimited.valid_auc - LARGEST_AUC_LOSS else unlimited


def _ranges(job: CompressJob) -> Arrays:
    """Return the activation ranges, and the keys of the layers that stay in float."""
    network = job.parent.network
    pixels = job.calibration_pixels(job.calibration)
    ranges = activation_ranges.calibrate(_folded(job), network, pixels, note=lambda line: job.progress(line, 0, 0))
    kept = () if job.config.chooses_float else job.config.keep_float
    return ranges | quantise.keep_in_float(network, ranges, kept)


def _folded(job: CompressJob) -> Any:
    """Return a ``tf_keras`` model of the parent network."""
    folded = weights.build(backend.tf_keras(), job.parent.network, folded=True)
    weights.set_weights(folded, job.parent.folded, where=job.recipe.name)
    return folded


def _quantised_weights(job: CompressJob, ranges: Arrays, largest_code: int) -> Arrays:
    """Train towards the logits of the parent network."""
    recipe, config, network = job.recipe, job.config, job.parent.network
    arrays = {**ranges, quantise.KERNEL_CODES: np.array([-largest_code, largest_code])}
    if not network.plain or quantise.float_layers(network, arrays):
        return _train_simulation(job, arrays)
    folded = _folded(job)
    model = quantise.wrap(folded, network, largest_code=largest_code)
    quantise.set_ranges(model, network, arrays)
    steps = config.quantise_steps if recipe.trained else 0
    _compile(model, "square", learning_rate=config.quantise_learning_rate, steps=steps)
    projections = constraints.projections(recipe, network, job.parent.folded)
    data = _FineTuningData(job, job.parent)
    for step, (pixels, _labels, logits) in enumerate(data.steps(steps)):
        loss = model.train_on_batch(pixels, logits)
        quantise.restore_activation_ranges(model, network, arrays)
        quantise.project_kernels(model, projections)
        job.progress(recipe.name, step + 1, steps, f"loss {loss:.4f}")
    return quantise.quantised_weights(model, network, arrays)


def _train_simulation(job: CompressJob, ranges: Arrays) -> Arrays:
    """Train the simulated integer network itself, for networks that the toolkit does not quantise as they are exported.

    The toolkit quantises chains of convolutions, ReLU and max-pools as they are exported; for other layers, and next to
    layers in float, it has ranges and fusions of its own, or none. Loss, optimiser, schedule and data are the same;
    gradients pass the rounding unchanged (Bengio et al. 2013).
    """
    tf, recipe, config, network = backend.tensorflow(), job.recipe, job.config, job.parent.network
    source, steps = job.parent.folded, config.quantise_steps if job.recipe.trained else 0
    largest_code = int(ranges[quantise.KERNEL_CODES][1])
    names = [f"{name}/{kind}" for name in network.convolutions for kind in ("kernel", "bias")]
    variables = {name: tf.Variable(source[name]) for name in names}
    projections = constraints.projections(recipe, network, source)
    keras = backend.tf_keras()
    schedule = keras.optimizers.schedules.CosineDecay(config.quantise_learning_rate, max(steps, 1))
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(list(variables.values()))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(pixels: Any, logits: Any, bounds: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            answers = quantise.simulate(network, {**ranges, **variables, **bounds}, pixels)
            loss = tf.reduce_mean(tf.square(answers - logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, list(variables.values())), variables.values(), strict=True))
        return loss

    for number, (pixels, _labels, logits) in enumerate(_FineTuningData(job, job.parent).steps(steps)):
        kernels = {name: variables[f"{name}/kernel"].numpy() for name in network.convolutions}
        bounds = {
            f"{name}/bounds": tf.constant(quantise.kernel_range(kernel, largest_code=largest_code))
            for name, kernel in kernels.items()
        }
        loss = step(tf.constant(pixels), tf.constant(logits), bounds)
        for name, project in projections.items():
            variables[f"{name}/kernel"].assign(project(variables[f"{name}/kernel"].numpy()))
        job.progress(recipe.name, number + 1, steps, f"loss {float(loss):.4f}")
    return {name: value for name, value in ranges.items() if name.endswith("/range")} | {
        name: variable.numpy() for name, variable in variables.items()
    }
