"""The commands run, train, tune, compress and export."""

from pathlib import Path

import click

import histoedge
from histoedge import config
from histoedge.cli.group import main
from histoedge.cli.options import (
    PATH,
    config_option,
    data_option,
    device_option,
    json_option,
    patches_on_option,
    recipe_option,
    threads_option,
    train_options,
    verbose_option,
    watch_options,
)
from histoedge.cli.output import print_json, print_rows
from histoedge.edge.manifest import FORMATS


@main.command("run")
@train_options
@recipe_option
@device_option
@threads_option
@patches_on_option
@watch_options
@config_option
@verbose_option
@json_option
def run_command(
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
    """Run all stages: train, compress, export, verify, bench, report. An interrupted run resumes when started again."""
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
    results = benchmark.read_results(outcome.results)
    if as_json:
        print_json({"run": str(out), "models": outcome.models, "results": outcome.results, "page": outcome.page})
        return
    reporting.print_table(results)
    click.echo(f"models   {outcome.models[0].parent}{_separator()}")
    click.echo(f"results  {outcome.results}\nreport   {outcome.page}")


def _separator() -> str:
    import os

    return os.sep


@main.command("train")
@train_options
@device_option
@patches_on_option
@watch_options
@config_option
@verbose_option
@json_option
def train_command(
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
    """Train the source network. When started again, it resumes after the last complete epoch."""
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
        print_json(document)
    else:
        click.echo(f"{weights}: valid AUC {trained.valid_auc:.4f}")


@main.command("tune")
@data_option
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder of the study.")
@click.option(
    "--trials", type=click.IntRange(1), default=30, show_default=True, help="Total number of trials in the study."
)
@click.option("--epochs", type=int, help="Epochs per trial.  [default: 14]")
@click.option(
    "--patches", type=click.IntRange(2), help="Number of training patches, drawn with the seed.  [default: all]"
)
@click.option(
    "--network", "family", metavar="NAME", help="Stay within the budget of this family: nano, edge or accurate."
)
@click.option("--seed", type=int, help="Seed of all random numbers.  [default: 0]")
@patches_on_option
@config_option
@verbose_option
@json_option
def tune_command(
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

    The study in DIR resumes when the command is started again; several processes can work on one study. best.toml is
    the trial with the highest AUC among those that no other trial beats in both AUC and latency; to train it:
    `histoedge train --config DIR/best.toml`.
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
        print_rows(point.as_row() for point in front)
        click.echo(f"best     trial {best.trial}, the highest AUC: {out / 'best.toml'}")


@main.command("compress")
@click.argument("run_folder", metavar="RUN", type=PATH)
@data_option
@click.option(
    "--calibration",
    metavar="FOLDER|DATA",
    help="Patches that set the activation ranges: images in a folder, or a data set.  [default: training patches]",
)
@recipe_option
@device_option
@patches_on_option
@config_option
@verbose_option
@json_option
def compress_command(
    run_folder: Path,
    source: str,
    no_cache: bool,
    calibration: str | None,
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
        checkpoints = histoedge.compress(
            run_folder,
            data=source,
            calibration=calibration,
            recipe=recipe_names,
            device=device,
            config=file,
            patches_on=patches_on,
            no_cache=no_cache,
            progress=show,
        )
    rows = []
    for compressed in checkpoints:
        weights = checkpoint.path_of(run_folder, compressed.recipe)
        rows.append({"recipe": compressed.recipe, "weights": str(weights), "valid_auc": round(compressed.valid_auc, 6)})
    print_rows(rows, as_json=as_json)
    if outdated := exporting.outdated(run_folder):
        recipes = "".join(f" --recipe {recipe}" for recipe in dict.fromkeys(model.stem for model in outdated))
        names = ", ".join(str(model.relative_to(run_folder)) for model in outdated)
        click.echo(
            f"{names}: exported from earlier weights; update: histoedge export {run_folder}{recipes}", err=as_json
        )


@main.command("export")
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option(
    "--recipe",
    "recipe_names",
    multiple=True,
    metavar="R",
    help="Recipe, repeatable, or `all`.  [default: all recipes with weights in RUN]",
)
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(FORMATS), help="Format, repeatable.  [default: both]"
)
@click.option(
    "--target-ort",
    default="1.15",
    show_default=True,
    metavar="X.Y",
    help="Oldest ONNX Runtime that must run the files.",
)
@json_option
def export_command(
    run_folder: Path, recipe_names: tuple[str, ...], formats: tuple[str, ...], target_ort: str, as_json: bool
) -> None:
    """Export RUN's recipes as TFLite and ONNX files, each with its manifest and golden patches."""
    from histoedge.lab import checkpoint, layer_graph
    from histoedge.lab.layer_graph import LayerGraph

    rows = [
        {"model": str(exported.model), "size_bytes": exported.model.stat().st_size, "written": exported.written}
        for exported in histoedge.export(run_folder, recipe=recipe_names, format=formats, target_ort=target_ort)
    ]
    print_rows(rows, as_json=as_json)
    compressed = {recipe.name for recipe in checkpoint.recipes_in(run_folder)}
    source = checkpoint.path_of(run_folder, "fp32")
    kept = source.is_file() and isinstance(checkpoint.read(source).architecture, LayerGraph)
    missing = [name for name in (layer_graph.RECIPES if kept else config.DEFAULT_RECIPES) if name not in compressed]
    if missing and not recipe_names:
        options = "".join(f" --recipe {name}" for name in missing) if kept else ""
        command = f"histoedge compress {run_folder} --data DATA{options}"
        click.echo(f"not compressed yet: {', '.join(missing)}; next: {command}", err=as_json)
