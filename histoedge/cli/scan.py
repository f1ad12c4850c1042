"""The command on whole slides: scan."""

from pathlib import Path

import click

import histoedge
from histoedge import edge
from histoedge.cli.group import main
from histoedge.cli.options import PATH, json_option
from histoedge.cli.output import print_json


@main.command("scan")
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
def scan_command(
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
    from histoedge import progress
    from histoedge.scanning.outcome import raise_for_failed

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
        print_json([outcome.as_json() for outcome in outcomes])
    raise_for_failed(outcomes)
