"""The command line: a command parses, calls one function, prints.

Exit codes: 0 done; 1 a deliberate error, one line on stderr; 2 wrong usage; 3 a comparison failed.
"""

import dataclasses
import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

import histoedge
from histoedge import __version__, config, edge
from histoedge.edge.errors import ComparisonFailed, HistoedgeError, RuntimeUnavailable
from histoedge.edge.manifest import OperatingPoint

Command = TypeVar("Command", bound=Callable[..., Any])

_EXTRA_OF = {
    **dict.fromkeys(("scipy", "h5py", "psutil", "rich", "jinja2", "matplotlib"), "bench"),
    **dict.fromkeys(("onnx", "tf2onnx"), "lab"),
    **dict.fromkeys(("openslide", "tifffile", "imagecodecs", "zarr", "skimage", "shapely"), "slides"),
    **dict.fromkeys(("distributed", "dask"), "cluster"),
    "optuna": "tune",
}

SELFTEST = "python -m edge selftest ."

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Group(click.Group):
    """Turns deliberate errors into one line and an exit code; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HistoedgeError as error:
            click.echo(f"histoedge: {' '.join(str(error).split())}", err=True)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get(error.name or "")
            if extra is None:
                raise
            message = f"{ctx.invoked_subcommand} needs {error.name}, which is not installed"
            click.echo(f"histoedge: {message}: pip install 'histoedge[{extra}]'", err=True)
            ctx.exit(RuntimeUnavailable.exit_code)
        except KeyboardInterrupt:
            click.echo("histoedge: stopped; run the same command again to go on", err=True)
            ctx.exit(INTERRUPTED)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"histoedge {__version__}")
        for row in edge.RUNTIMES.values():
            click.echo(f"{row.name} {row.installed_version() or f'not installed ({row.install})'}")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Versions found here."
)
def main() -> None:
    """Find metastatic tissue in lymph-node patches with a CNN that is small, fast and proven.

    DATA is a folder with PatchCamelyon's HDF5 files or the Kaggle competition's images, or the word `synthetic`.
    RUN is the folder of a run.
    """


PATH = click.Path(path_type=Path)

no_cache_option = click.option("--no-cache", is_flag=True, help="Do not read or write the cache of DATA (.histoedge).")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else there.")
config_option = click.option(
    "--config", "file", type=PATH, metavar="F.toml", help="Settings, see `histoedge list settings`."
)
device_option = click.option("--device", type=click.Choice(["auto", "gpu", "cpu"]), default="auto", show_default=True)


def _verbose(_ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from histoedge import progress

        progress.show_log()


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Show the log on stderr too."
)
patches_on_option = click.option(
    "--patches-on",
    type=click.Choice(["auto", "device", "disk"]),
    default="auto",
    show_default=True,
    help="Hold the training patches where Keras computes, or read them from disk as needed. The weights are the same.",
)
threads_option = click.option("--threads", type=click.IntRange(1), help="Threads of the runtime.  [default: 1]")
recipe_option = click.option(
    "--recipe",
    "recipe_names",
    multiple=True,
    metavar="R",
    help=f"Repeatable, or `all`; default: {' '.join(config.DEFAULT_RECIPES)}.",
)


def data_option(command: Command) -> Command:
    """``--data``, which the command needs, and ``--no-cache``."""
    described = "Folder of a data set, or `synthetic`."
    return click.option("--data", "source", required=True, metavar="DATA", help=described)(no_cache_option(command))


def _train_options(command: Command) -> Command:
    for option in (
        click.option("--seed", type=int, help="Seed of everything that is drawn.  [default: 0]"),
        click.option("--epochs", type=int, help="Passes over the training patches.  [default: 14]"),
        click.option("--network", metavar="NAME", help="See `histoedge list networks`.  [default: edge]"),
        click.option(
            "--teacher", type=PATH, metavar="RUN", help="Learn also from the network of another run on the same data."
        ),
        click.option("--out", required=True, type=PATH, metavar="RUN", help="Folder to write."),
        data_option,
    ):
        command = option(command)
    return command


def _watch_options(command: Command) -> Command:
    for option in (
        click.option("--mlflow", metavar="URI", help="Log each epoch to this MLflow server or folder."),
        click.option("--tensorboard", type=PATH, metavar="DIR", help="Write each epoch to DIR for TensorBoard."),
    ):
        command = option(command)
    return command


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, default=str))


@main.command()
@_train_options
@recipe_option
@device_option
@threads_option
@patches_on_option
@_watch_options
@config_option
@verbose_option
@json_option
def run(
    source: str,
    no_cache: bool,
    out: Path,
    teacher: Path | None,
    network: str | None,
    epochs: int | None,
    seed: int | None,
    recipe_names: tuple[str, ...],
    device: config.Device,
    threads: int | None,
    patches_on: config.PatchesOn,
    tensorboard: Path | None,
    mlflow: str | None,
    file: Path | None,
    as_json: bool,
) -> None:
    """All stages: train, compress, export, verify, bench, report. Started again, it goes on where it stopped."""
    from histoedge import benchmark, progress, reporting

    with progress.on_terminal() as show:
        outcome = histoedge.run(
            source,
            out=out,
            teacher=teacher,
            network=network,
            epochs=epochs,
            seed=seed,
            recipe=recipe_names,
            device=device,
            threads=threads,
            config=file,
            tensorboard=tensorboard,
            mlflow=mlflow,
            patches_on=patches_on,
            no_cache=no_cache,
            progress=show,
        )
    results = benchmark.read(outcome.results)
    if as_json:
        _print_json({"run": str(out), "models": outcome.models, "results": outcome.results, "page": outcome.page})
        return
    reporting.print_table(results)
    click.echo(f"models   {outcome.models[0].parent}{_separator()}")
    click.echo(f"results  {outcome.results}\nreport   {outcome.page}")


def _separator() -> str:
    import os

    return os.sep


@main.group()
def data() -> None:
    """Make a synthetic data set, or check one."""


@data.command()
@click.argument("out", type=PATH)
@click.option("--patches", type=click.IntRange(16), default=4000, show_default=True, help="Training patches.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
def synth(out: Path, patches: int, seed: int, as_json: bool) -> None:
    """Write synthetic stained-tissue patches to OUT, in PatchCamelyon's layout."""
    from histoedge import progress
    from histoedge.data import synthetic

    with progress.on_terminal() as show:
        written = synthetic.synth(out, patches=patches, seed=seed, progress=show)
    if as_json:
        _print_json({"out": str(out), "patches": {name: len(split.labels) for name, split in written.items()}})
    else:
        for name, split in written.items():
            click.echo(f"{name}: {len(split.labels)} patches, {int(split.labels.sum())} with tumour")


@data.command()
@click.argument("source", metavar="DATA")
@click.option("--picture", type=PATH, metavar="F.png", help="Draw label balance, patches, brightness and stain.")
@no_cache_option
@json_option
def check(source: str, picture: Path | None, no_cache: bool, as_json: bool) -> None:
    """Check DATA: counts, positives, duplicates inside and across splits, content hashes."""
    from histoedge import progress
    from histoedge.data import check as checks

    with progress.on_terminal() as show:
        found = checks.check(source, cache=not no_cache, progress=show)
        if picture is not None:
            from histoedge.data import picture as pictures

            pictures.picture(source, picture, cache=not no_cache, progress=show)
    if as_json:
        _print_json(found.as_json())
    else:
        _print_rows(found.rows())
        for note in found.notes:
            click.echo(note)
        if picture is not None:
            click.echo(f"picture  {picture}")


@main.command()
@_train_options
@device_option
@patches_on_option
@_watch_options
@config_option
@verbose_option
@json_option
def train(
    source: str,
    no_cache: bool,
    out: Path,
    teacher: Path | None,
    network: str | None,
    epochs: int | None,
    seed: int | None,
    device: config.Device,
    patches_on: config.PatchesOn,
    tensorboard: Path | None,
    mlflow: str | None,
    file: Path | None,
    as_json: bool,
) -> None:
    """Train the source network; killed and started again, it goes on after the last whole epoch."""
    from histoedge import progress
    from histoedge.lab import checkpoint

    with progress.on_terminal() as show:
        trained = histoedge.train(
            source,
            out=out,
            teacher=teacher,
            network=network,
            epochs=epochs,
            seed=seed,
            device=device,
            config=file,
            tensorboard=tensorboard,
            mlflow=mlflow,
            patches_on=patches_on,
            no_cache=no_cache,
            progress=show,
        )
    weights = checkpoint.path_of(out, "fp32")
    document = {"weights": str(weights), "valid_auc": trained.valid_auc, "epochs": trained.inputs["train"]["epochs"]}
    if as_json:
        _print_json(document)
    else:
        click.echo(f"{weights}: valid AUC {trained.valid_auc:.4f}")


@main.command()
@data_option
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder of the study.")
@click.option("--trials", type=click.IntRange(1), default=30, show_default=True, help="Trials that the study holds.")
@click.option("--epochs", type=int, help="Passes over the training patches in a trial.  [default: 14]")
@click.option("--patches", type=click.IntRange(2), help="Training patches, drawn by the seed.  [default: all]")
@click.option("--network", "family", metavar="NAME", help="Keep this family's budget: nano, edge or accurate.")
@click.option("--seed", type=int, help="Seed of everything that is drawn.  [default: 0]")
@patches_on_option
@config_option
@verbose_option
@json_option
def tune(
    source: str,
    no_cache: bool,
    out: Path,
    trials: int,
    epochs: int | None,
    patches: int | None,
    family: str | None,
    seed: int | None,
    patches_on: config.PatchesOn,
    file: Path | None,
    as_json: bool,
) -> None:
    """Search settings and architecture for a high AUC and a low int8 latency; writes DIR/best.toml.

    Started again, or in several processes, it goes on with the study in DIR. `train --config DIR/best.toml` trains what
    it chose: of the trials that none beats in both AUC and latency, the one with the highest AUC.
    """
    from histoedge import progress

    with progress.on_terminal() as show:
        front, best = histoedge.tune(
            source,
            out=out,
            trials=trials,
            epochs=epochs,
            patches=patches,
            network=family,
            seed=seed,
            config=file,
            patches_on=patches_on,
            no_cache=no_cache,
            progress=show,
        )
    if as_json:
        click.echo((out / "front.json").read_text(), nl=False)
    else:
        _print_rows(point.as_row() for point in front)
        click.echo(f"best     trial {best.trial}, the highest AUC: {out / 'best.toml'}")


@main.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@data_option
@recipe_option
@device_option
@patches_on_option
@config_option
@verbose_option
@json_option
def compress(
    run_folder: Path,
    source: str,
    no_cache: bool,
    recipe_names: tuple[str, ...],
    device: config.Device,
    patches_on: config.PatchesOn,
    file: Path | None,
    as_json: bool,
) -> None:
    """Prune and quantise the network of RUN, fine-tuning on the training split."""
    from histoedge import progress
    from histoedge.lab import checkpoint
    from histoedge.lab import export as exporting

    with progress.on_terminal() as show:
        made = histoedge.compress(
            run_folder,
            data=source,
            recipe=recipe_names,
            device=device,
            config=file,
            patches_on=patches_on,
            no_cache=no_cache,
            progress=show,
        )
    rows = []
    for one in made:
        weights = checkpoint.path_of(run_folder, one.recipe)
        rows.append({"recipe": one.recipe, "weights": str(weights), "valid_auc": round(one.valid_auc, 6)})
    _print_rows(rows, as_json=as_json)
    if outdated := exporting.outdated(run_folder):
        again = "".join(f" --recipe {recipe}" for recipe in dict.fromkeys(model.stem for model in outdated))
        names = ", ".join(str(model.relative_to(run_folder)) for model in outdated)
        click.echo(f"{names}: of earlier weights; histoedge export {run_folder}{again} writes them anew", err=as_json)


@main.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option(
    "--recipe",
    "recipe_names",
    multiple=True,
    metavar="R",
    help="Repeatable, or `all`; default: all whose weights are there.",
)
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(config.FORMATS), help="Repeatable; default: both."
)
@click.option("--target-ort", default="1.15", show_default=True, metavar="X.Y", help="Oldest ONNX Runtime to serve.")
@json_option
def export(
    run_folder: Path, recipe_names: tuple[str, ...], formats: tuple[str, ...], target_ort: str, as_json: bool
) -> None:
    """Write TFLite and ONNX files of RUN's recipes, each with its manifest and golden patches."""
    from histoedge.lab import checkpoint

    rows = [
        {"model": str(made.model), "size_bytes": made.model.stat().st_size, "written": made.written}
        for made in histoedge.export(run_folder, recipe=recipe_names, format=formats, target_ort=target_ort)
    ]
    _print_rows(rows, as_json=as_json)
    here = {recipe.name for recipe in checkpoint.recipes_in(run_folder)}
    missing = [name for name in config.DEFAULT_RECIPES if name not in here]
    if missing and not recipe_names:
        to_do = f"histoedge compress {run_folder} --data DATA"
        click.echo(f"not compressed yet: {', '.join(missing)}; to make them: {to_do}", err=as_json)


@main.command()
@click.argument("model", type=PATH)
@click.option("--data", "source", metavar="DATA", help="Also compare with the source network on the test split.")
@click.option(
    "--layers", is_flag=True, help="Also say which layer of an int8 file errs most; with --data on 256 valid patches."
)
@no_cache_option
@json_option
def verify(model: Path, source: str | None, layers: bool, no_cache: bool, as_json: bool) -> None:
    """Recompute the golden patches of MODEL on every runtime installed; exit code 3 when an answer is wrong.

    An int8 file must also run in integers, and with --data answer as the same recipe's file in the other format does.
    """
    from histoedge import progress

    with progress.on_terminal() as show:
        verdict = histoedge.verify(model, data=source, layers=layers, no_cache=no_cache, progress=show)
    if as_json:
        _print_json(verdict.as_json())
    else:
        columns = ("runtime", "version", "kernels", "status", "reason", "largest")
        rows = [{key: getattr(check, key) for key in columns} for check in verdict.golden]
        _print_rows([{key: value for key, value in row.items() if value is not None} for row in rows])
        for check in verdict.golden if verdict.output_quantum is not None else ():
            if check.operators is not None:
                click.echo(check.operators_line())
        if verdict.output_quantum is not None:
            click.echo(_sums(verdict.may_saturate))
        for found in (verdict.comparison, verdict.twin):
            if found is not None:
                _print_rows([dataclasses.asdict(found)])
        click.echo(f"{verdict.model}: {'passed' if verdict.passed else 'FAILED'} (tolerance {verdict.tolerance:.4g})")
        if verdict.advice is not None:
            _print_rows(dataclasses.asdict(error) for error in verdict.layers)
            click.echo(verdict.advice)
    if verdict.not_kept is not None:
        click.echo(f"histoedge: the verdict is not kept: {verdict.not_kept}", err=True)
    if not verdict.passed:
        reason = "verification failed; do not ship this file" if verdict.outdated is None else verdict.outdated
        raise ComparisonFailed(f"{model}: {reason}")


def _sums(may_saturate: Sequence[str]) -> str:
    if not may_saturate:
        return "sums: proved to fit 16 bits, so that CPUs without VNNI answer alike"
    return (
        f"sums: may overflow 16 bits on CPUs without VNNI in {', '.join(may_saturate)}; "
        "histoedge.edge asks ONNX Runtime for exact sums, OpenVINO for floats; another host must set "
        "session.x64quantprecision"
    )


@main.command()
@click.argument("model", type=PATH)
@click.argument("places", nargs=-1, required=True, type=PATH, metavar="IMAGE|FOLDER...")
@click.option(
    "--csv", "csv_file", type=PATH, metavar="F", help="Write the columns id,label (probability) to this file."
)
@click.option(
    "--at", metavar="NAME", help="Decide at this operating point, see `histoedge info`, such as 'specificity 0.95'."
)
@click.option("--runtime", type=click.Choice(list(edge.RUNTIMES)), help="Default: the first installed.")
@threads_option
@json_option
def predict(
    model: Path,
    places: tuple[Path, ...],
    csv_file: Path | None,
    at: str | None,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Tumour probability of single patches and folders of them: as given, a folder's files by name."""
    if at is not None and csv_file is not None:
        raise click.UsageError("--csv writes probabilities, which --at does not change; give one of the two")
    watched = csv_file is not None and sys.stderr.isatty()
    with click.progressbar(length=1, label="predict", file=sys.stderr, hidden=not watched) as bar:

        def show(what: str, done: int, total: int, note: str = "") -> None:
            bar.length = total
            bar.update(done - bar.pos)

        predictions = histoedge.predict(
            model, places, csv=csv_file, at=at, runtime=runtime, threads=threads or 1, progress=show
        )
    if csv_file is not None:
        if as_json:
            _print_json({"csv": str(csv_file), "images": len(predictions)})
        else:
            click.echo(f"{csv_file}: {len(predictions)} images")
    elif as_json:
        _print_json([{**dataclasses.asdict(one), "id": one.id} for one in predictions])
    else:
        for one in predictions:
            click.echo(f"{one.probability:.4f}  {'tumour' if one.positive else 'normal'}  {one.path}")


@main.command()
@click.argument("model", type=PATH)
@click.argument("places", nargs=-1, type=PATH, metavar="[IMAGE|FOLDER]...")
@click.option("--data", "source", metavar="DATA", help="Also or instead: the valid split of a data set.")
@click.option("--out", type=PATH, default=Path("explain"), show_default=True, metavar="DIR", help="For the pictures.")
@click.option("--runtime", type=click.Choice(list(edge.RUNTIMES)), help="Of an exported file; default: as predict.")
@no_cache_option
@json_option
def explain(
    model: Path,
    places: tuple[Path, ...],
    source: str | None,
    out: Path,
    runtime: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Where MODEL looked: heat maps of patches, and how much of the evidence lies in the centre 32 x 32 px.

    MODEL is an exported file (occlusion) or a run's weights file (occlusion and Grad-CAM). With --data, a contact
    sheet of the most confident right and wrong patches and the evidence of 256 patches, all of the valid split.
    """
    from histoedge import progress

    with progress.on_terminal() as show:
        found = histoedge.explain(
            model, places, data=source, out=out, runtime=runtime, no_cache=no_cache, progress=show
        )
    evidence = [dataclasses.asdict(row) for row in found.evidence]
    if as_json:
        document = {"images": found.images, "evidence": evidence, "contact_sheet": found.contact_sheet}
        _print_json({"model": str(model), **document})
        return
    if found.images:
        _print_rows(found.images)
    _print_rows(evidence)
    if found.contact_sheet is not None:
        click.echo(f"contact sheet  {found.contact_sheet}")


@main.command()
@click.argument("places", nargs=-1, required=True, type=PATH, metavar="SLIDE|FOLDER...")
@click.option("--model", required=True, type=PATH, help="An exported file.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write: DIR/<slide>/ for each.")
@click.option("--um-per-px", type=click.FloatRange(0.01, 100), help="Of the finest level, whatever the slide says.")
@click.option("--at", metavar="NAME", help="Threshold of this operating point, such as 'specificity 0.95'.")
@click.option("--everywhere", is_flag=True, help="Not only where tissue is found.")
@click.option("--field", "field_px", type=click.IntRange(96), help="Side of what is read at once, in pixels.")
@click.option("--workers", type=click.IntRange(1), help="Cores to keep busy.  [default: all]")
@click.option("--scheduler", metavar="ADDRESS", help="Let the workers of this Dask cluster compute.")
@click.option("--runtime", type=click.Choice(list(edge.known())), help="Default: the first installed.")
@json_option
def scan(
    places: tuple[Path, ...],
    model: Path,
    out: Path,
    um_per_px: float | None,
    at: str | None,
    everywhere: bool,
    field_px: int | None,
    workers: int | None,
    scheduler: str | None,
    runtime: str | None,
    as_json: bool,
) -> None:
    """Map whole slides: a verdict for each 32 x 32 px square, as pictures, OME-TIFF, GeoJSON, table and page.

    Killed and started again, it goes on; slides that are done are kept. A slide that cannot be read is told, and the
    others are scanned all the same; then the exit code is 1.
    """
    from histoedge import progress, slides

    with progress.on_terminal() as show:
        outcomes = histoedge.scan(
            places,
            model=model,
            out=out,
            um_per_px=um_per_px,
            at=at,
            everywhere=everywhere,
            field=field_px,
            workers=workers,
            scheduler=scheduler,
            runtime=runtime,
            progress=show,
            tell=lambda outcome: None if as_json or outcome.status == "failed" else click.echo(outcome.line()),
        )
    if as_json:
        _print_json([outcome.as_json() for outcome in outcomes])
    slides.check(outcomes)


@main.command()
@click.argument("places", nargs=-1, type=PATH, metavar="RUN|MODEL...")
@click.option("--data", "source", metavar="DATA", help="Folder of a data set, or `synthetic`.")
@no_cache_option
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    help="Repeatable: keras, or of `histoedge list runtimes`; default: keras and the first three there.",
)
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Repeatable.  [default: 1]")
@click.option("--batch", multiple=True, type=click.IntRange(1), help="Fields per call, repeatable.  [default: 1]")
@click.option(
    "--field", "field_px", multiple=True, type=click.IntRange(96), help="Side in pixels, repeatable.  [default: 96]"
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(list(config.SCENARIOS)),
    help="Measure this shape too, repeatable.",
)
@click.option("--out", type=PATH, metavar="RESULTS.json")
@click.option("--robustness", is_flag=True, help="Also the AUC after ten perturbations of the test split.")
@click.option("--flips", type=PATH, metavar="DIR", help="Draw the decisions that differ from the reference's.")
@config_option
@click.option(
    "--gate",
    "gate_texts",
    multiple=True,
    metavar="EXPR",
    help="What must hold, such as 'p50_ratio < 0.55'; repeatable.",
)
@click.option("--baseline", type=PATH, metavar="OLD.json", help="For gates on p50_vs_baseline and auc_vs_baseline.")
@click.option("--junit", "junit_file", type=PATH, metavar="F.xml", help="Write the judged gates as a JUnit file.")
@click.option(
    "--compare", "compared", nargs=2, type=PATH, metavar="A.json B.json", help="What changed; measures nothing."
)
@json_option
def bench(
    places: tuple[Path, ...],
    source: str | None,
    no_cache: bool,
    runtimes: tuple[str, ...],
    threads: tuple[int, ...],
    batch: tuple[int, ...],
    field_px: tuple[int, ...],
    scenarios: tuple[str, ...],
    out: Path | None,
    robustness: bool,
    flips: Path | None,
    file: Path | None,
    gate_texts: tuple[str, ...],
    baseline: Path | None,
    junit_file: Path | None,
    compared: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Measure latency, size, memory and test AUC of every file on every runtime, each in a process of its own.

    Repeated options multiply. Stopped and started again with the same arguments, it keeps what was finished.

    Exit code 3 when a gate does not pass. A gate is COLUMN OP NUMBER of the results' columns, or MODEL@RUNTIME: before
    it for some cells alone; on a figure with an interval the whole interval must hold it.
    """
    from histoedge import progress, reporting
    from histoedge.benchmark import gated
    from histoedge.reporting import verdicts

    if compared is not None:
        _compare(*compared, as_json=as_json)
        return
    if not places or source is None or out is None:
        raise click.UsageError(
            "needs RUN|MODEL..., --data DATA and --out RESULTS.json, or --compare A.json B.json alone"
        )
    if (needless := gated.without_gates(gate_texts, baseline, junit_file)) is not None:
        raise click.UsageError(needless)
    with progress.on_terminal() as show:
        found = histoedge.bench(
            places,
            data=source,
            out=out,
            runtime=runtimes,
            threads=threads,
            batch=batch,
            field=field_px,
            scenario=scenarios,
            robustness=robustness,
            flips=flips,
            config=file,
            gate=gate_texts,
            baseline=baseline,
            junit=junit_file,
            no_cache=no_cache,
            progress=show,
        )
    for difference in found.other_machine:
        click.echo(f"histoedge: the baseline is of another machine, times do not compare: {difference}", err=True)
    if as_json:
        judged = {"gates": [dataclasses.asdict(one) for one in found.gates]} if gate_texts else {}
        _print_json({**json.loads(out.read_text()), **judged})
    else:
        reporting.print_table(found.results)
        click.echo(f"results  {out}")
        if found.gates:
            verdicts.print_gates(found.gates)
    if found.open_gates:
        raise ComparisonFailed(
            f"{len(found.open_gates)} of {len(gate_texts)} gates do not pass: {'; '.join(found.open_gates)}"
        )


def _compare(a: Path, b: Path, *, as_json: bool) -> None:
    from histoedge.benchmark import compare
    from histoedge.reporting import verdicts

    context = click.get_current_context()
    if {name for name, value in context.params.items() if value not in (None, (), False)} - {"compared", "as_json"}:
        raise click.UsageError("--compare A.json B.json measures nothing and takes --json alone")
    found = compare.compare(compare.read(a), compare.read(b))
    if as_json:
        _print_json(found.as_json())
    else:
        verdicts.print_comparison(found)


@main.command()
@click.argument("results", type=PATH, metavar="RESULTS.json")
@click.option("--html", type=PATH, metavar="F", help="One self-contained page.")
@click.option("--csv", "csv_file", type=PATH, metavar="F")
@click.option("--md", type=PATH, metavar="F", help="Markdown tables.")
@click.option(
    "--flips",
    multiple=True,
    type=PATH,
    metavar="F.png",
    help="Show this sheet of `bench --flips` in the page; repeatable.",
)
@json_option
def report(
    results: Path, html: Path | None, csv_file: Path | None, md: Path | None, flips: tuple[Path, ...], as_json: bool
) -> None:
    """Show measured results as a table, a page, CSV or Markdown; with --json the facts that they tell."""
    from histoedge import reporting

    if flips and html is None:
        raise click.UsageError("--flips shows sheets in the page; give --html F")
    measured = histoedge.report(results, html=html, csv=csv_file, md=md, flips=flips)
    written = [str(place) for place in (html, csv_file, md) if place is not None]
    if as_json:
        _print_json({**reporting.document(measured, name=reporting.name_of(results)), "written": written})
        return
    if not written:
        reporting.print_table(measured)
    for place_written in written:
        click.echo(place_written)


@main.command()
@click.argument("model", type=PATH)
@click.option("--into", required=True, type=PATH, metavar="DIR", help="Folder to write: empty, or embedded before.")
@json_option
def embed(model: Path, into: Path, as_json: bool) -> None:
    """Write one folder to copy: MODEL, the code that runs it without histoedge, a self-test, examples and a page."""
    written = histoedge.embed(model, into=into)
    if as_json:
        _print_json({"model": str(model), "into": str(into), "files": [path.as_posix() for path in written]})
        return
    click.echo(f"{into}: {len(written)} files; README.md tells how to use them\nnext: cd {into} && {SELFTEST}")


@main.command()
@click.argument("a", type=PATH, metavar="A")
@click.argument("b", type=PATH, metavar="B")
@click.option(
    "--results",
    nargs=2,
    type=PATH,
    metavar="A.json B.json",
    help="Results of `bench` for A and for B; may be one file.",
)
@json_option
def diff(a: Path, b: Path, results: tuple[Path, Path] | None, as_json: bool) -> None:
    """What changed from model A to model B, and does it need a new validation? For change control; it is no gate."""
    found = histoedge.diff(a, b, results=results)
    if as_json:
        _print_json(found.as_json())
        return
    for table in (found.table(), found.measured_table()):
        if table:
            _print_rows(table)
            click.echo()
    for line in found.lines():
        click.echo(line)


@main.command()
@click.argument("place", type=PATH, metavar="MODEL|DIR")
@click.argument("logits", type=PATH, metavar="LOGITS.csv")
@json_option
def doctor(place: Path, logits: Path, as_json: bool) -> None:
    """Name the mistake behind LOGITS.csv: what a program that embeds the model got for its golden patches.

    A line for each golden patch, in their order. `python -m histoedge.edge golden MODEL --into DIR` writes them.
    """
    from histoedge.edge import __main__ as checks

    diagnosis = checks.examine(place, logits)
    if as_json:
        _print_json(diagnosis.as_json())
    else:
        for line in diagnosis.lines():
            click.echo(line)
    if diagnosis.verdict != "right":
        click.get_current_context().exit(ComparisonFailed.exit_code)


@main.command("list")
@click.argument("what", type=click.Choice(["networks", "recipes", "runtimes", "settings"]))
@json_option
def list_(what: str, as_json: bool) -> None:
    """What can be asked for: networks, recipes, runtimes, and every key of a settings file."""
    rows = _LISTS[what]()
    if what == "settings" and not as_json:  # defaults as they are written in the file
        rows = [{**row, "default": None if row["default"] is None else json.dumps(row["default"])} for row in rows]
    _print_rows(rows, as_json=as_json)


def _networks() -> list[dict[str, Any]]:
    from histoedge.lab import network as networks

    return networks.describe()


def _recipes() -> list[dict[str, Any]]:
    return [{"recipe": name, "what": config.Recipe.parse(name).summary} for name in config.RECIPES]


def _runtimes() -> list[dict[str, Any]]:
    return [
        {
            "runtime": row.name,
            "opens": ", ".join(row.formats),
            "version": row.installed_version(),
            "install": None if row.installed() else row.install,
        }
        for row in edge.known().values()
    ]


def _settings() -> list[dict[str, Any]]:
    from histoedge.lab import network as networks

    rows = [row for table, kind in config.KINDS.items() for row in config.described(kind, table=table)]
    return rows + networks.settings()


_LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "networks": _networks,
    "recipes": _recipes,
    "runtimes": _runtimes,
    "settings": _settings,
}


@main.command()
@click.argument("model", type=PATH)
@json_option
def info(model: Path, as_json: bool) -> None:
    """What MODEL's manifest says, after checking its hashes, and whether a passing verdict lies beside it."""
    from histoedge import verification as verifying
    from histoedge.edge import manifest as manifests

    manifest = manifests.read(model)
    content = manifests.checked_bytes(model, manifest)
    manifests.read_golden(model, manifest)
    document = {
        "model": str(model),
        "size_bytes": len(content),
        "verified": verifying.is_current(model),
        **manifest.as_json(),
    }
    if as_json:
        _print_json(document)
        return
    for key, value in document.items():
        if key == "operating_points":
            for line in _operating_points(manifest.operating_points):
                click.echo(f"{key:20} {line}")
            continue
        nested = isinstance(value, dict)
        click.echo(f"{key:20} {', '.join(f'{name} {item}' for name, item in value.items()) if nested else value}")


def _operating_points(points: Sequence[OperatingPoint]) -> Iterable[str]:
    """A line for each; ``none`` where there is none."""
    for point in points:
        yield (
            f"{point.name}: probability {point.threshold:.4f} or above; on valid sensitivity {point.sensitivity:.4f} "
            f"[{point.sensitivity_lo:.4f}, {point.sensitivity_hi:.4f}] of {point.n_positive}, specificity "
            f"{point.specificity:.4f} [{point.specificity_lo:.4f}, {point.specificity_hi:.4f}] of {point.n_negative}"
        )
    if not points:
        yield "none"


def _print_rows(rows: Iterable[dict[str, Any]], *, as_json: bool = False) -> None:
    """Rows as an aligned table, in a terminal no wider than that, or as JSON."""
    rows = list(rows)
    if as_json:
        _print_json(rows)
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns] + [[_shown(row.get(column)) for column in columns] for row in rows]
    for line in _aligned(table, shutil.get_terminal_size().columns if sys.stdout.isatty() else None):
        click.echo(line)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _aligned(table: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Lines of the table; with a ``width``, the widest cells go on below themselves, between words, to keep to it."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    words = [max(len(word) for row in table for word in row[column].split() or [""]) for column in range(len(widths))]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=lambda column: widths[column] - words[column])
        if widths[widest] <= words[widest]:
            break
        widths[widest] -= 1
    lines = []
    for row in table:
        cells = [textwrap.wrap(cell, wide) or [""] for cell, wide in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True)).rstrip())
    return lines


if __name__ == "__main__":
    sys.exit(main())
