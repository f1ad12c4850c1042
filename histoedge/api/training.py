"""From data to exported files: run, train, tune, compress, export."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoedge.api.arguments import Names, Place, as_path, as_tuple
from histoedge.progress import Progress, silent

if TYPE_CHECKING:
    from histoedge.config import Device, PatchesOn
    from histoedge.lab.checkpoint import Checkpoint
    from histoedge.lab.export import Exported
    from histoedge.lab.front import Point
    from histoedge.lab.importing import Imported
    from histoedge.pipeline import RunOutcome


def run(
    data: Place,
    *,
    out: Place,
    teacher: Place | None = None,
    network: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    recipe: Names = (),
    device: "Device" = "auto",
    patches_on: "PatchesOn" = "auto",
    tensorboard: Place | None = None,
    mlflow: str | None = None,
    threads: int | None = None,
    config: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "RunOutcome":
    """Run all stages: train, compress, export, verify, bench, report. An interrupted run resumes when called again.

    Returns:
        The paths of the models, of the results (read them with ``histoedge.benchmark.read_results``) and of the page.

    Raises:
        InUse: another process works in ``out``.
        ComparisonFailed: a file fails verification; all files are written nevertheless.
    """
    from histoedge import config as settings
    from histoedge import lock, pipeline
    from histoedge.lab import callbacks, catalogue

    file = as_path(config)
    recipes = settings.recipes(as_tuple(recipe))
    train_config, architecture = catalogue.training_settings(file, network=network, epochs=epochs, seed=seed)
    compress_config = settings.compress_settings(file, train_seed=train_config.seed)
    plan = settings.resolve(settings.BenchPlan, file=file, options={"threads": threads and (threads,)})
    epoch_callbacks = callbacks.make_callbacks(
        Path(out).name, train_config, tensorboard=as_path(tensorboard), mlflow=mlflow
    )
    with lock.held(Path(out)):
        return pipeline.run(
            str(data),
            Path(out),
            train_config=train_config,
            network=architecture,
            teacher=as_path(teacher),
            compress_config=compress_config,
            plan=plan,
            recipes=recipes,
            device=device,
            patches_on=patches_on,
            epoch_callbacks=epoch_callbacks,
            cache=not no_cache,
            progress=progress,
        )


def train(
    data: Place,
    *,
    out: Place,
    teacher: Place | None = None,
    network: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    device: "Device" = "auto",
    patches_on: "PatchesOn" = "auto",
    tensorboard: Place | None = None,
    mlflow: str | None = None,
    config: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Checkpoint":
    """Train the source network into the run ``out``. When called again, it resumes after the last complete epoch.

    Returns:
        The weights of the best epoch, with their AUC on valid.

    Raises:
        InUse: another process works in ``out``.
        ConfigError: ``out`` contains a run with other settings.
    """
    from histoedge import data as sources
    from histoedge import lock
    from histoedge.lab import callbacks, catalogue
    from histoedge.lab import train as training

    settings, architecture = catalogue.training_settings(as_path(config), network=network, epochs=epochs, seed=seed)
    epoch_callbacks = callbacks.make_callbacks(
        Path(out).name, settings, tensorboard=as_path(tensorboard), mlflow=mlflow
    )
    with lock.held(Path(out)):
        splits = sources.load(str(data), splits=("train", "valid"), cache=not no_cache, progress=progress)
        return training.train(
            splits,
            settings,
            Path(out),
            network=architecture,
            teacher=as_path(teacher),
            device=device,
            patches_on=patches_on,
            epoch_callbacks=epoch_callbacks,
            progress=progress,
        )


def import_model(
    model: str,
    *,
    out: Place,
    data: Place,
    name: str | None = None,
    pixels: str | None = None,
    positive: int = 1,
    trust_code: bool = False,
    config: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Imported":
    """Import a trained Keras model into the run ``out``, as a network with the same logits on patches of valid.

    Returns:
        The weights, with their AUC on valid, and the largest difference of a logit.

    Raises:
        InUse: another process works in ``out``.
        ModelError: not a Keras model, or layers that cannot be imported; nothing in the file is executed.
        ConfigError: the values of the pixels are unknown, or ``out`` contains another run.
    """
    from histoedge import config as settings
    from histoedge import data as sources
    from histoedge import lock
    from histoedge.lab import importing

    train_config = settings.resolve(settings.TrainConfig, file=as_path(config), options={})
    with lock.held(Path(out)):
        splits = sources.load(str(data), splits=("train", "valid"), cache=not no_cache, progress=progress)
        return importing.import_model(
            model,
            Path(out),
            splits,
            train_config,
            name=name,
            pixels=pixels,
            positive=positive,
            trust_code=trust_code,
            progress=progress,
        )


def tune(
    data: Place,
    *,
    out: Place,
    trials: int = 30,
    epochs: int | None = None,
    patches: int | None = None,
    network: str | None = None,
    seed: int | None = None,
    patches_on: "PatchesOn" = "auto",
    config: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "tuple[list[Point], Point]":
    """Search settings and architecture for a high AUC and a low int8 latency; writes ``out/best.toml``.

    The study in ``out`` resumes when called again; several processes can work on one study.

    Returns:
        The Pareto front, and its point with the highest AUC.
    """
    from histoedge import config as settings
    from histoedge import data as sources
    from histoedge.lab import space
    from histoedge.lab import tune as tuning

    file = as_path(config)
    base = space.base_settings(file, family=network, epochs=epochs, seed=seed)
    compress_config = settings.compress_settings(file, train_seed=base.seed)
    plan = settings.resolve(settings.BenchPlan, file=file, options={})
    splits = sources.load(str(data), splits=("train", "valid"), cache=not no_cache, progress=progress)
    return tuning.tune(
        splits,
        base,
        Path(out),
        trials=trials,
        patches=patches,
        compress_config=compress_config,
        plan=plan,
        patches_on=patches_on,
        progress=progress,
    )


def compress(
    run: Place,
    *,
    data: Place,
    calibration: Place | None = None,
    recipe: Names = (),
    device: "Device" = "auto",
    patches_on: "PatchesOn" = "auto",
    config: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "tuple[Checkpoint, ...]":
    """Prune and quantise the network of a run, fine-tuning on the training split.

    ``calibration``, a data set or a folder of patches as images, sets the activation ranges instead of training
    patches.

    Returns:
        The weights of the recipes and of all recipes that they build on; then other weights of the run that were
        derived from weights renewed by this call, which are renewed too. ``histoedge.lab.export.outdated`` lists the
        files to export again.

    Raises:
        InUse: another process works in ``run``.
    """
    from histoedge import config as settings
    from histoedge import data as sources
    from histoedge import lock
    from histoedge.data import unlabelled
    from histoedge.lab import checkpoint
    from histoedge.lab import compress as compressing

    recipes = settings.recipes(as_tuple(recipe))
    with lock.held(folder := Path(run)):
        source = checkpoint.read(checkpoint.path_of(folder, "fp32"))
        chosen = settings.compress_settings(as_path(config), train_seed=source.inputs["train"]["seed"])
        reading: dict[str, Any] = {"cache": not no_cache, "progress": progress}
        splits = sources.load(str(data), splits=("train", "valid"), **reading)
        patches = None
        if calibration is not None:
            patches = unlabelled.load_unlabelled(str(calibration), patch_px=source.network.patch_px, **reading)
        return compressing.compress_all(
            folder,
            recipes,
            splits,
            chosen,
            calibration=patches,
            device=device,
            patches_on=patches_on,
            progress=progress,
        )


def export(run: Place, *, recipe: Names = (), format: Names = (), target_ort: str = "1.15") -> "list[Exported]":
    """Export a run's recipes as TFLite and ONNX files, each with its manifest and golden patches.

    Without ``recipe``, all recipes with weights in the run. Current files are not written again.

    Returns:
        Each file, and whether it was written by this call.

    Raises:
        InUse: another process works in ``run``.
    """
    from histoedge import config as settings
    from histoedge import lock
    from histoedge.edge.manifest import FORMATS
    from histoedge.lab import export as exporting

    names = as_tuple(recipe)
    recipes = settings.recipes(names) if names else ()
    formats = tuple(settings.check_format(name) for name in as_tuple(format)) or FORMATS
    with lock.held(Path(run)):
        return exporting.export_all(Path(run), recipes, formats=formats, target_ort=target_ort)
