"""The command scan."""

from pathlib import Path

import click

import histoedge
from histoedge import edge
from histoedge.cli.group import main
from histoedge.cli.options import PATH, json_option
from histoedge.cli.output import print_json
from histoedge.edge.patches import SMALLEST_PATCH_PX


@main.command("scan")
@click.argument("places", nargs=-1, required=True, type=PATH, metavar="SLIDE|FOLDER...")
@click.option("--model", required=True, type=PATH, help="Exported file.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write, DIR/<slide>/ for each slide.")
@click.option(
    "--um-per-px",
    type=click.FloatRange(0.01, 100),
    help="Resolution of level 0 in um per px; overrides the slide's metadata.",
)
@click.option(
    "--at", metavar="NAME", help="Operating point for the verdict, such as 'specificity 0.95'; see `histoedge info`."
)
@click.option("--everywhere", is_flag=True, help="Scan the whole slide, not only its tissue.")
@click.option(
    "--field",
    "field_px",
    type=click.IntRange(SMALLEST_PATCH_PX),
    help="Side in pixels of the region that is read at once.",
)
@click.option("--workers", type=click.IntRange(1), help="Number of CPU cores to use.  [default: all]")
@click.option("--scheduler", metavar="ADDRESS", help="Compute on the workers of this Dask cluster.")
@click.option(
    "--runtime", type=click.Choice(list(edge.all_runtimes())), help="Runtime to use.  [default: the first installed]"
)
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
    """Map whole slides: a verdict for each labelled square (32 x 32 px), as pictures, OME-TIFF, GeoJSON, table, page.

    An interrupted scan resumes; finished slides are kept. Unreadable slides are listed at the end; the others are
    scanned, and the exit code is 1.
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
            on_outcome=lambda outcome: None if as_json or outcome.status == "failed" else click.echo(outcome.line()),
        )
    if as_json:
        print_json([outcome.as_json() for outcome in outcomes])
    raise_for_failed(outcomes)
