"""histoedge: a metastasis-detecting CNN from training to the slide scanner, small, fast and proven.

The functions here are the commands: they take what these take, under the same names, and ``histoedge COMMAND --help``
says what each means. Paths are ``str`` or ``Path``; what repeats as an option is one value or several; ``progress`` is
told how far the work is (``histoedge.progress``). What cannot be done raises a subclass of
``histoedge.edge.errors.HistoedgeError``, whose message is the line that the command prints. Nothing heavy is imported
before a function is called.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from histoedge.progress import Progress, silent
from histoedge.version import __version__

if TYPE_CHECKING:
    from histoedge.benchmark import Results
    from histoedge.benchmark.gated import Benched
    from histoedge.config import Device, PatchesOn
    from histoedge.difference import Diff
    from histoedge.explanation import Model
    from histoedge.explanation.pictures import Explained
    from histoedge.lab.checkpoint import Checkpoint
    from histoedge.lab.export import Exported
    from histoedge.lab.front import Point
    from histoedge.pipeline import Outcome
    from histoedge.prediction import Prediction
    from histoedge.slides import Outcome as ScanOutcome
    from histoedge.verification import Verdict

__all__ = [
    "__version__",
    "bench",
    "compress",
    "diff",
    "embed",
    "explain",
    "export",
    "predict",
    "report",
    "run",
    "scan",
    "train",
    "tune",
    "verify",
]

Place = str | Path
Places = Place | Sequence[Place]
Names = str | Sequence[str]
Numbers = int | Sequence[int]
_One = TypeVar("_One", str, int, str | Path)


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
) -> "Outcome":
    """All stages: train, compress, export, verify, bench, report. Called again, it goes on where it stopped.

    Returns:
        The paths of the models, of the results (``histoedge.benchmark.read`` reads them) and of the page.

    Raises:
        InUse: another process works in ``out``.
        ComparisonFailed: a file fails verification; everything is written all the same.
    """
    from histoedge import config as settings
    from histoedge import lock, pipeline
    from histoedge.lab import network as networks
    from histoedge.lab import watching

    file = _path(config)
    recipes = settings.recipes(_several(recipe))
    train_config, architecture = networks.to_train(file, network=network, epochs=epochs, seed=seed)
    compress_config = settings.resolve(settings.CompressConfig, file=file, options={"seed": seed})
    plan = settings.resolve(settings.BenchPlan, file=file, options={"threads": threads and (threads,)})
    watches = watching.chosen(Path(out).name, train_config, tensorboard=_path(tensorboard), mlflow=mlflow)
    with lock.held(Path(out)):
        return pipeline.run(
            str(data),
            Path(out),
            train_config=train_config,
            network=architecture,
            teacher=_path(teacher),
            compress_config=compress_config,
            plan=plan,
            recipes=recipes,
            device=device,
            patches_on=patches_on,
            watches=watches,
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
    """Train the source network into the run ``out``. Called again, it goes on after the last whole epoch.

    Returns:
        The weights of the best epoch, with their AUC on valid.

    Raises:
        InUse: another process works in ``out``.
        ConfigError: ``out`` holds a run with other settings.
    """
    from histoedge import data as sources
    from histoedge import lock
    from histoedge.lab import network as networks
    from histoedge.lab import train as training
    from histoedge.lab import watching

    settings, architecture = networks.to_train(_path(config), network=network, epochs=epochs, seed=seed)
    watches = watching.chosen(Path(out).name, settings, tensorboard=_path(tensorboard), mlflow=mlflow)
    with lock.held(Path(out)):
        splits = sources.load(str(data), splits=("train", "valid"), cache=not no_cache, progress=progress)
        return training.train(
            splits,
            settings,
            Path(out),
            network=architecture,
            teacher=_path(teacher),
            device=device,
            patches_on=patches_on,
            watches=watches,
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

    Called again, or in several processes, it goes on with the study in ``out``.

    Returns:
        The Pareto front, and the point of it with the highest AUC.
    """
    from histoedge import config as settings
    from histoedge import data as sources
    from histoedge.lab import space
    from histoedge.lab import tune as tuning

    file = _path(config)
    base = space.settings(file, family=network, epochs=epochs, seed=seed)
    compress_config = settings.resolve(settings.CompressConfig, file=file, options={"seed": seed})
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
    recipe: Names = (),
    device: "Device" = "auto",
    patches_on: "PatchesOn" = "auto",
    config: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "tuple[Checkpoint, ...]":
    """Prune and quantise the network of a run, fine-tuning on the training split.

    Returns:
        The weights of the recipes and of all that they build on; then those in the run that had been made from weights
        that are renewed now, which are made again. ``histoedge.lab.export.outdated`` names files to export again.

    Raises:
        InUse: another process works in ``run``.
    """
    from histoedge import config as settings
    from histoedge import data as sources
    from histoedge import lock
    from histoedge.lab import checkpoint
    from histoedge.lab import compress as compressing

    recipes = settings.recipes(_several(recipe))
    with lock.held(folder := Path(run)):
        seed = checkpoint.read(checkpoint.path_of(folder, "fp32")).inputs["train"]["seed"]
        chosen = settings.resolve(settings.CompressConfig, file=_path(config), options={"seed": seed})
        splits = sources.load(str(data), splits=("train", "valid"), cache=not no_cache, progress=progress)
        return compressing.compress_all(
            folder, recipes, splits, chosen, device=device, patches_on=patches_on, progress=progress
        )


def export(run: Place, *, recipe: Names = (), format: Names = (), target_ort: str = "1.15") -> "list[Exported]":
    """Write TFLite and ONNX files of a run's recipes, each with its manifest and golden patches.

    Without ``recipe`` those of all weights in the run. What is there already is left as it is.

    Returns:
        Each file, and whether it was written now.

    Raises:
        InUse: another process works in ``run``.
    """
    from histoedge import config as settings
    from histoedge import lock
    from histoedge.lab import export as exporting

    names = _several(recipe)
    recipes = settings.recipes(names) if names else ()
    formats = tuple(settings.format_named(name) for name in _several(format)) or settings.FORMATS
    with lock.held(Path(run)):
        return exporting.export_all(Path(run), recipes, formats=formats, target_ort=target_ort)


def verify(
    model: Place,
    *,
    data: Place | None = None,
    layers: bool = False,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Verdict":
    """Recompute the golden patches of a model on every runtime installed; whether it passes is ``verdict.passed``.

    An int8 file must also run in integers, and with ``data`` answer as the same recipe's file in the other format does.

    Returns:
        What was found; with ``layers`` the errors of an int8 file's layers too, and the advice that follows.
    """
    from histoedge import data as sources
    from histoedge import verification

    splits = {}
    if data is not None:
        splits = sources.load(
            str(data), splits=("test", "valid") if layers else ("test",), cache=not no_cache, progress=progress
        )
    if not layers:
        return verification.verify(Path(model), split=splits.get("test"))
    from histoedge.lab import layers as comparing

    # valid, never test: what is read off here decides what is shipped
    errors = comparing.compare(Path(model), comparing.sample(splits["valid"]) if splits else None)
    verdict = verification.verify(Path(model), split=splits.get("test"))
    return verdict.with_layers(errors, comparing.advice(errors))


def predict(
    model: Place,
    places: Places,
    *,
    csv: Place | None = None,
    at: str | None = None,
    runtime: str | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> "list[Prediction]":
    """Tumour probabilities of images and of folders of them: as given, a folder's files by name.

    ``csv`` also writes the columns id,label (probability) to this file.

    Raises:
        DataError: an image that is no 96 x 96 patch; then there is no ``csv`` either.
    """
    from histoedge import prediction

    paths = prediction.images([Path(place) for place in _several(places)])
    answers = prediction.predict(Path(model), paths, at=at, runtime=runtime, threads=threads)
    found: list[Prediction] = []
    for answer in answers:
        found.append(answer)
        progress("predict, images", len(found), len(paths))
    if csv is not None:
        prediction.write_csv(Path(csv), found)
    return found


def explain(
    model: Place,
    places: Places = (),
    *,
    data: Place | None = None,
    out: Place = "explain",
    runtime: str | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Explained":
    """Where a model looked: heat maps of patches, and how much of the evidence lies in the centre 32 x 32 px.

    ``model`` is an exported file (occlusion) or a run's weights file (occlusion and Grad-CAM). ``data`` adds a contact
    sheet and the evidence of 256 patches, of the valid split.

    Returns:
        A row for each image with the path of its picture, the evidence, and the path of the contact sheet.
    """
    from histoedge import data as sources
    from histoedge import prediction
    from histoedge.edge.errors import ConfigError
    from histoedge.explanation import pictures

    images = _several(places)
    if not images and data is None:
        raise ConfigError("explain needs patches: give images, folders of them, or --data DATA")
    paths = prediction.images([Path(place) for place in images])
    opened = _explainable(Path(model), runtime)
    split = None
    if data is not None:
        split = sources.load(str(data), splits=("valid",), cache=not no_cache, progress=progress)["valid"]
    return pictures.explain(opened, paths, split, Path(out), progress=progress)


def scan(
    places: Places,
    *,
    model: Place,
    out: Place,
    um_per_px: float | None = None,
    at: str | None = None,
    everywhere: bool = False,
    field: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    runtime: str | None = None,
    progress: Progress = silent,
    tell: "Callable[[ScanOutcome], None]" = lambda outcome: None,
) -> "list[ScanOutcome]":
    """Map whole slides, and folders of them, into ``out/<slide>/``. Called again, it goes on.

    Returns:
        What became of each slide. One that cannot be read has the status ``failed`` and a reason; the others are
        scanned all the same. ``tell`` is called with each as it ends.
    """
    from histoedge import slides
    from histoedge.scanning import FIELD_PX, Scan
    from histoedge.scanning.engine import Workers

    return slides.scan_all(
        slides.find([Path(place) for place in _several(places)]),
        Path(model),
        Path(out),
        settings=Scan(um_per_px=um_per_px, mask=not everywhere, field_px=field or FIELD_PX, runtime=runtime),
        at=at,
        workers=Workers.of_machine() if workers is None else Workers.of_cores(workers),
        scheduler=scheduler,
        progress=progress,
        tell=tell,
    )


def bench(
    places: Places,
    *,
    data: Place,
    out: Place,
    runtime: Names = (),
    threads: Numbers = (),
    batch: Numbers = (),
    field: Numbers = (),
    scenario: Names = (),
    robustness: bool = False,
    flips: Place | None = None,
    config: Place | None = None,
    gate: Names = (),
    baseline: Place | None = None,
    junit: Place | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Benched":
    """Measure latency, size, memory and test AUC of every file of runs and models, each in a process of its own.

    What repeats multiplies. Called again with the same arguments, it keeps what was finished.

    Returns:
        The results, as they lie in ``out``, and how each gate stands; ``open_gates`` are those that do not pass.
        (``bench --compare`` is ``histoedge.benchmark.compare.compare`` of two results.)
    """
    from histoedge import config as settings
    from histoedge.benchmark import gated

    repeated: dict[str, Any] = {"runtimes": runtime, "threads": threads, "batch": batch}
    repeated |= {"field_px": field, "scenarios": scenario}
    options: dict[str, Any] = {name: tuple(dict.fromkeys(_several(given))) or None for name, given in repeated.items()}
    options["robustness"] = robustness or None
    plan = settings.resolve(settings.BenchPlan, file=_path(config), options=options)
    return gated.bench_gated(
        Path(out),
        [Path(place) for place in _several(places)],
        str(data),
        plan=plan,
        flips=_path(flips),
        gate_texts=_several(gate),
        baseline=_path(baseline),
        junit_file=_path(junit),
        cache=not no_cache,
        progress=progress,
    )


def report(
    results: Place,
    *,
    html: Place | None = None,
    csv: Place | None = None,
    md: Place | None = None,
    flips: Places = (),
) -> "Results":
    """Write measured results as a page, CSV or Markdown; ``flips`` are sheets of ``bench`` to show in the page.

    Returns:
        The results that were read.
    """
    from histoedge import benchmark, files, reporting
    from histoedge.edge.errors import ConfigError

    if _several(flips) and html is None:
        raise ConfigError("--flips shows sheets in the page; give --html F")
    measured = benchmark.read(Path(results))
    if html is not None:
        sheets = [reporting.read_sheet(Path(path)) for path in _several(flips)]
        files.write_text(Path(html), reporting.html(measured, sheets=sheets, name=reporting.name_of(Path(results))))
    if csv is not None:
        files.write_text(Path(csv), reporting.csv_text(measured))
    if md is not None:
        files.write_text(Path(md), reporting.markdown(measured))
    return measured


def embed(model: Place, *, into: Place) -> tuple[Path, ...]:
    """Write one folder to copy: the model, the code that runs it without histoedge, a self-test, examples and a page.

    Returns:
        The paths of its files, relative to the folder.

    Raises:
        ModelError: no passing verdict of these bytes lies beside the model: ``verify`` it first.
    """
    from histoedge import kit

    return kit.embed(Path(model), Path(into))


def diff(a: Place, b: Place, *, results: tuple[Place, Place] | None = None) -> "Diff":
    """What changed from model A to model B, and does it need a new validation? For change control; it is no gate.

    ``results`` are results files of A and of B, which may be one file.
    """
    from histoedge import difference

    return difference.diff(Path(a), Path(b), results=None if results is None else (Path(results[0]), Path(results[1])))


def _path(place: Place | None) -> Path | None:
    return None if place is None else Path(place)


def _several(given: _One | Sequence[_One]) -> tuple[_One, ...]:
    """One value, or several, as a tuple."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)  # type: ignore[arg-type]


def _explainable(model: Path, runtime: str | None) -> "Model":
    from histoedge import explanation
    from histoedge.edge.errors import ConfigError

    if not model.name.endswith(".weights.h5"):
        return explanation.exported(model, runtime=runtime)
    if runtime is not None:
        raise ConfigError(f"--runtime {runtime}: {model.name} holds weights, which Keras runs; leave it out")
    from histoedge.lab.explain import GradCam

    network = GradCam(model)
    gradients = explanation.Gradients(name="gradcam", maps=network.maps, uniform_share=network.uniform_share)
    return explanation.from_weights(model, predict=network.predict, gradients=gradients)
