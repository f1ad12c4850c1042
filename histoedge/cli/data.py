"""The commands data synth and data check."""

from pathlib import Path

import click

from histoedge.cli.group import main
from histoedge.cli.options import PATH, json_option, no_cache_option
from histoedge.cli.output import print_json, print_rows


@main.group("data")
def data_group() -> None:
    """Write a synthetic data set, or check a data set."""


@data_group.command("synth")
@click.argument("out", type=PATH)
@click.option("--patches", type=click.IntRange(16), default=4000, show_default=True, help="Number of training patches.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all patches.")
@json_option
def synth_command(out: Path, patches: int, seed: int, as_json: bool) -> None:
    """Write synthetic stained-tissue patches to OUT, in PatchCamelyon's layout."""
    from histoedge import progress
    from histoedge.data import synthetic

    with progress.on_terminal() as show:
        written = synthetic.synth(out, patches=patches, seed=seed, progress=show)
    if as_json:
        print_json({"out": str(out), "patches": {name: len(split.labels) for name, split in written.items()}})
    else:
        for name, split in written.items():
            click.echo(f"{name}: {len(split.labels)} patches, {int(split.labels.sum())} with tumour")


@data_group.command("check")
@click.argument("source", metavar="DATA")
@click.option(
    "--picture", type=PATH, metavar="F.png", help="Draw label balance, patches, brightness and stain into this file."
)
@no_cache_option
@json_option
def check_command(source: str, picture: Path | None, no_cache: bool, as_json: bool) -> None:
    """Check DATA: layout, number of patches, positives, duplicates within and between splits, content hashes."""
    from histoedge import progress
    from histoedge.data import check as checks

    with progress.on_terminal() as show:
        report = checks.check(source, cache=not no_cache, progress=show)
        if picture is not None:
            from histoedge.data import picture as pictures

            pictures.picture(source, picture, cache=not no_cache, progress=show)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(report.summary())
        print_rows(report.rows())
        for note in report.notes:
            click.echo(note)
        if picture is not None:
            click.echo(f"picture  {picture}")
