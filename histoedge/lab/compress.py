"""Making a trained network smaller: half precision, pruning, clustering, slimming, quantisation-aware training.

Every recipe starts from the source network with batch norm folded in, so that the integer model equals the
simulated one (slimming keeps it: it trains a smaller network anew); fine-tuning sees training data only.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files, metrics
from histoedge.config import CompressConfig, Device, PatchesOn, Recipe, TrainConfig, ancestry
from histoedge.data import Split
from histoedge.edge.errors import ConfigError
from histoedge.lab import (
    appearance,
    architecture,
    augment,
    backend,
    batches,
    calibrate,
    checkpoint,
    placement,
    promises,
    quantise,
    slim,
    symmetry,
    train,
    weights,
)
from histoedge.lab.architecture import Network
from histoedge.lab.backend import Devices
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.trainee import Teacher
from histoedge.lab.weights import Arrays
from histoedge.progress import Progress, silent

LARGEST_AUC_COST = 0.001  # on valid: what kernels that cannot saturate may cost before they get the finer grid
STAGES = ("prune", "slim", "quantise")


def compress_inputs(run: Path, recipe: Recipe, config: CompressConfig, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Everything that decides the recipe's weights: its parents' bytes, the settings of its stage, the data."""
    stage = "quantise" if recipe.precision == "int8" else "slim" if recipe.scheme == "slim" else "prune"
    others = tuple(f"{other}_" for other in STAGES if other != stage)
    settings = {name: value for name, value in dataclasses.asdict(config).items() if not name.startswith(others)}
    return {
        "recipe": recipe.name,
        "compress": settings,
        "parents": _parents(run, recipe),
        "data": {name: splits[name].content_hash for name in ("train", "valid")},
    }


def compress(
    run: Path,
    recipe: Recipe,
    splits: Mapping[str, Split],
    config: CompressConfig,
    *,
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    progress: Progress = silent,
) -> Checkpoint:
    """Make ``RUN/<recipe>.weights.h5`` from the weights it builds on; nothing is done again that is there already.

    Raises:
        ModelError: the weights it builds on are missing, or training broke what the recipe promises.
        ConfigError: the data is not what the network was trained on, or memory does not suffice.
        DataError: the calibration patches are of one colour.
    """
    path = checkpoint.path_of(run, recipe.name)
    source = checkpoint.read(checkpoint.path_of(run, "fp32"))
    for name, trained_on in source.inputs["data"].items():
        if splits[name].content_hash != trained_on:  # what is test for this network may be training data elsewhere
            raise ConfigError(f"{run}: trained on another {name} split than this data holds; give the run's own --data")
    appearance.keep_appearance(run, splits["train"])
    if recipe.parent is None:
        return source
    inputs = compress_inputs(run, recipe, config, splits)
    if checkpoint.is_current(path, inputs):
        return checkpoint.read(path)
    placement.refuse_too_little()
    devices = backend.use_device(device)
    if devices.processes > 1:
        raise ConfigError("several machines share train alone; compress on one of them, without KERAS_DISTRIBUTION_*")
    where = placement.choose(patches_on, splits["train"], source.network, batch=config.batch, devices=devices)
    parent = checkpoint.read(checkpoint.path_of(run, recipe.parent))
    job = _Job(recipe, source, parent, splits, config, devices, where.on, progress)
    state = run / f".{recipe.name}.state.h5"
    if recipe.precision == "int8":
        result = _integers(job)
    elif recipe.scheme == "slim":
        result = _slimmed(job, state, inputs)
    else:
        result = job.checkpoint(_floats(job))
    kernels = {name: result.folded[f"{name}/kernel"] for name in result.network.convolutions}
    promises.refuse_broken(recipe, result.network, kernels, where=recipe.name)
    checkpoint.write(path, dataclasses.replace(result, inputs=inputs))
    state.unlink(missing_ok=True)
    return checkpoint.read(path)


def compress_all(
    run: Path,
    recipes: Sequence[Recipe],
    splits: Mapping[str, Split],
    config: CompressConfig,
    *,
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    progress: Progress = silent,
) -> tuple[Checkpoint, ...]:
    """Make these recipes and what they build on, then every other one in RUN that was made from weights of before.

    So RUN never holds weights of which a parent is gone; killed in between, the next call goes on. All of it is made
    with the settings of this call.

    Raises:
        ModelError, ConfigError, DataError: as ``compress``.
    """
    wanted = list({step.name: step for recipe in recipes for step in ancestry(recipe)}.values())
    made: list[Checkpoint] = []
    while wanted:
        total = len(made) + len(wanted)
        for recipe in wanted:
            made.append(compress(run, recipe, splits, config, device=device, patches_on=patches_on, progress=progress))
            progress("compress, recipes", len(made), total, f"{recipe.name}: valid AUC {made[-1].valid_auc:.4f}")
        done = {one.recipe for one in made}
        wanted = [recipe for recipe in checkpoint.recipes_in(run) if recipe.name not in done and _outdated(run, recipe)]
    return tuple(made)


def _outdated(run: Path, recipe: Recipe) -> bool:
    """Whether the recipe's weights in RUN were made from other parents than lie there now, all of them."""
    if recipe.parent is None or not checkpoint.path_of(run, recipe.parent).is_file():
        return False
    return bool(checkpoint.read(checkpoint.path_of(run, recipe.name)).inputs["parents"] != _parents(run, recipe))


def _parents(run: Path, recipe: Recipe) -> dict[str, str]:
    """The SHA-256 of the weights that the recipe is made from."""
    names = sorted({"fp32", str(recipe.parent)})
    return {name: files.sha256(checkpoint.path_of(run, name)) for name in names}


@dataclasses.dataclass(frozen=True)
class _Job:
    """One recipe to make: the trained network, the weights to start from, what to learn from."""

    recipe: Recipe
    source: Checkpoint
    parent: Checkpoint
    splits: Mapping[str, Split]
    config: CompressConfig
    devices: Devices
    patches_on: str
    progress: Progress

    @property
    def augmentation(self) -> TrainConfig:
        """The source network's training settings with this job's seed."""
        return dataclasses.replace(TrainConfig(**self.source.inputs["train"]), seed=self.config.seed)

    def calibration(self) -> Iterator[np.ndarray]:
        """Unaugmented training pixels, float32 (n, 96, 96, 3) in 0..1, drawn by the seed."""
        split = self.splits["train"]
        count = min(self.config.calibration_patches, len(split.labels))
        chosen = np.sort(batches.order(len(split.labels), seed=self.config.seed, epoch=0)[:count])
        for start in range(0, count, 256):
            yield split.patches[chosen[start : start + 256]].astype(np.float32) / 255.0

    def checkpoint(self, arrays: Arrays) -> Checkpoint:
        """The parent's network with these weights, and its AUC and calibration on valid as deployed."""
        valid = self.splits["valid"]
        logits = batches.logits_in_batches(simulated(self.parent.network, arrays, self.recipe), valid)
        area, calibration = metrics.auc(valid.labels, logits), calibrate.calibrated(valid.labels, logits)
        return Checkpoint(self.parent.network, self.recipe.name, arrays, {}, area, calibration)


def simulated(network: Network, arrays: Arrays, recipe: Recipe) -> Callable[[np.ndarray], Any]:
    """A function of pixels in 0..1 that answers as the recipe's exported file will, rounding included."""
    if recipe.precision == "int8":
        tf = backend.tensorflow()
        return tf.function(  # type: ignore[no-any-return]
            lambda pixels: quantise.simulate(network, arrays, pixels),
            input_signature=[tf.TensorSpec((None, architecture.PATCH_PX, architecture.PATCH_PX, 3), tf.float32)],
        )
    model = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(model, arrays, where=recipe.name)
    return model.predict_on_batch  # type: ignore[no-any-return]


class _Lesson:
    """What fine-tuning learns from: augmented training patches, and the teacher's logits on them."""

    def __init__(self, job: _Job, teacher: Checkpoint) -> None:
        self.keras, self.config, self.split = backend.keras(), job.config, job.splits["train"]
        self.keras.utils.set_random_seed(job.config.seed)
        backend.tf_keras().utils.set_random_seed(job.config.seed)
        self._augment = augment.layer(self.keras, job.augmentation)
        self._teacher = weights.build(self.keras, teacher.network, folded=True)
        weights.set_weights(self._teacher, teacher.folded, where="teacher")

    def steps(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """``count`` batches: pixels (n, 96, 96, 3) in 0..1, labels and logits (n, 1, 1, 1), all float32."""
        per_epoch = math.ceil(len(self.split.labels) / self.config.batch)
        for epoch in range(math.ceil(count / per_epoch)):
            self._augment.reseed(epoch)
            data = batches.dataset(
                self.keras,
                lambda chosen: self.split.patches[chosen],
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


def _compiled(model: Any, loss: str, *, learning_rate: float, steps: int) -> Any:
    keras = backend.tf_keras()
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1))
    losses = {"entropy": keras.losses.BinaryCrossentropy(from_logits=True), "square": keras.losses.MeanSquaredError()}
    model.compile(keras.optimizers.Adam(schedule), losses[loss])
    return model


# ---- floats --------------------------------------------------------------------------------------------------


def _floats(job: _Job) -> Arrays:
    folded = job.source.folded
    if job.recipe.precision == "fp16":
        return {name: value.astype(np.float16).astype(np.float32) for name, value in folded.items()}
    if job.recipe.scheme == "cluster16":  # not trained here: quantisation-aware training tunes the 16 values
        return {
            name: promises.clustered(value) if name.endswith("/kernel") else value for name, value in folded.items()
        }
    return _pruned(job)


def _pruned(job: _Job) -> Arrays:
    """Magnitude pruning: by a polynomial schedule (Zhu and Gupta 2017), or two of four (Mishra et al. 2021) at once."""
    recipe, config, network = job.recipe, job.config, job.source.network
    sparsity, keras = backend.toolkit().sparsity.keras, backend.tf_keras()
    steps = max(config.prune_steps, 1)
    often = max(steps // 60, 1)
    if recipe.scheme == "2of4":
        settings = {"pruning_schedule": sparsity.ConstantSparsity(0.5, 0, frequency=often), "sparsity_m_by_n": (2, 4)}
    else:
        end = max(2 * steps // 3, 1)
        schedule = sparsity.PolynomialDecay(0.0, recipe.percent / 100, begin_step=0, end_step=end, frequency=often)
        settings = {"pruning_schedule": schedule}
    layers = network.prunable_2of4 if recipe.scheme == "2of4" else network.prunable

    def wrap(layer: Any) -> Any:
        if layer.name not in layers:
            return layer.__class__.from_config(layer.get_config())
        return sparsity.prune_low_magnitude(layer, **settings)

    pruned = keras.models.clone_model(weights.build(keras, network, folded=True), clone_function=wrap)
    _copy_weights(pruned, job.source.folded)
    _compiled(pruned, "entropy", learning_rate=config.prune_learning_rate, steps=steps)
    update = sparsity.UpdatePruningStep()
    update.set_model(pruned)
    update.on_train_begin()
    share = np.float32(config.teacher_share)
    for step, (pixels, labels, logits) in enumerate(_Lesson(job, job.source).steps(steps)):
        update.on_train_batch_begin(step)
        loss = pruned.train_on_batch(pixels, share / (1 + np.exp(-logits)) + (1 - share) * labels)
        job.progress(recipe.name, step + 1, steps, f"loss {loss:.4f}")
    update.on_epoch_end(0)
    return weights.weights_of(sparsity.strip_pruning(pruned))


def _copy_weights(pruned: Any, arrays: Arrays) -> None:
    """Kernels and biases into a model whose layers are wrapped for pruning."""
    for layer in pruned.layers:
        name = layer.name.removeprefix("prune_low_magnitude_")
        for variable in layer.weights:
            key = f"{name}/{variable.name.split('/')[-1].split(':')[0]}"
            if key in arrays:
                variable.assign(arrays[key])


# ---- fewer channels ------------------------------------------------------------------------------------------


def _slimmed(job: _Job, state: Path, inputs: Mapping[str, Any]) -> Checkpoint:
    """The network with its most important channels, trained on with the whole network as teacher."""
    source, config = job.source, job.config
    network = slim.smaller(source.network, job.recipe.percent)
    ranking = slim.importance(backend.keras(), source.network, source.folded, job.calibration())
    if source.network.symmetric:
        ranking = symmetry.alike(ranking)
    settings = dataclasses.replace(job.augmentation, epochs=config.slim_epochs, batch=config.batch)
    trained = train.fit(
        network,
        job.splits,
        dataclasses.replace(settings, learning_rate=config.slim_learning_rate),
        state=state,
        inputs=inputs,
        start=slim.sliced(source.network, network, source.arrays, ranking),
        teacher=Teacher(source.network, source.folded, config.teacher_share),
        devices=job.devices,
        patches_on=job.patches_on,
        progress=job.progress,
    )
    calibration = calibrate.of_network(network, trained.best, job.splits["valid"])
    return Checkpoint(network, job.recipe.name, trained.best, {}, trained.best_auc, calibration)


# ---- integers ------------------------------------------------------------------------------------------------


def _integers(job: _Job) -> Checkpoint:
    """Kernel codes that cannot saturate, or the finer grid where those cost too much AUC on valid."""
    safe, fine = quantise.LARGEST_CODES
    limited = job.checkpoint(_quantised(job, safe))
    if limited.valid_auc >= job.parent.valid_auc - LARGEST_AUC_COST:
        return limited
    free = job.checkpoint(_quantised(job, fine))
    return limited if limited.valid_auc >= free.valid_auc - LARGEST_AUC_COST else free


def _quantised(job: _Job, largest_code: int) -> Arrays:
    """Calibrated ranges, then training towards the logits of the network that is quantised."""
    recipe, config, network = job.recipe, job.config, job.parent.network
    model = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(model, job.parent.folded, where=recipe.name)
    arrays = quantise.calibrate(model, network, job.calibration())
    arrays[quantise.KERNEL_CODES] = np.array([-largest_code, largest_code])
    quantised = quantise.wrap(model, network, largest_code=largest_code)
    quantise.set_ranges(quantised, network, arrays)
    steps = config.quantise_steps if recipe.trained else 0
    _compiled(quantised, "square", learning_rate=config.quantise_learning_rate, steps=steps)
    projections = promises.projections(recipe, network, job.parent.folded)
    lesson = _Lesson(job, job.parent)
    for step, (pixels, _labels, logits) in enumerate(lesson.steps(steps)):
        loss = quantised.train_on_batch(pixels, logits)
        quantise.hold_ranges(quantised, network, arrays)
        quantise.project_kernels(quantised, projections)
        job.progress(recipe.name, step + 1, steps, f"loss {loss:.4f}")
    return quantise.weights_of(quantised, network, arrays)
