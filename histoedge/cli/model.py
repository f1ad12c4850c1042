"""The commands on an exported model: verify, predict, explain, embed, diff, doctor and info."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

import histoedge
from histoedge import edge
from histoedge.cli.group import main
from histoedge.cli.options import PATH, json_option, no_cache_option, threads_option
from histoedge.cli.output import print_json, print_rows
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ComparisonFailed
from histoedge.edge.manifest import OperatingPoint

SELFTEST = "python -m edge selftest ."


@main.command("verify")
@click.argument("model", type=PATH)
@click.option("--data", "source", metavar="DATA", help="Also compare with the source network on the test split.")
@click.option(
    "--layers",
    is_flag=True,
    help="Also measure the error of each layer of an int8 file; with --data on 256 valid patches.",
)
@no_cache_option
@json_option
def verify_command(model: Path, source: str | None, layers: bool, no_cache: bool, as_json: bool) -> None:
    """Run MODEL's golden patches on each installed runtime; exit code 3 when a logit is wrong.

    The map of a field must equal its patches, whatever the manifest states. An int8 file must also compute in integers,
    and with --data match the file of the same recipe in the other format.
    """
    from histoedge import progress

    with progress.on_terminal() as show:
        verdict = histoedge.verify(model, data=source, layers=layers, no_cache=no_cache, progress=show)
    if as_json:
        print_json(verdict.as_json())
    else:
        columns = ("runtime", "version", "kernels", "status", "largest")
        rows = [{key: getattr(check, key) for key in columns} for check in verdict.golden]
        print_rows([{key: value for key, value in row.items() if value is not None} for row in rows])
        for check in verdict.golden:
            if check.reason is not None:
                click.echo(f"{check.runtime}: {check.reason}")
        integers = verdict.output_quantum is not None or "int8" in verdict.recipe
        for check in verdict.golden if integers else ():
            if check.operators is not None:
                click.echo(check.operators_line())
        if (geometry := verdict.geometry_line()) is not None:
            click.echo(geometry)
        if integers:
            click.echo(_sums(verdict.may_saturate))
        for comparison in (verdict.comparison, verdict.twin):
            if comparison is not None:
                print_rows([dataclasses.asdict(comparison)])
        click.echo(f"{verdict.model}: {'passed' if verdict.passed else 'FAILED'} (tolerance {verdict.tolerance:.4g})")
        if verdict.advice is not None:
            print_rows(dataclasses.asdict(error) for error in verdict.layers)
            click.echo(verdict.advice)
    if verdict.not_kept is not None:
        click.echo(f"histoedge: the verdict was not saved: {verdict.not_kept}", err=True)
    if not verdict.passed:
        reason = "verification failed; do not ship this file" if verdict.outdated is None else verdict.outdated
        raise ComparisonFailed(f"{model}: {reason}")


def _sums(may_saturate: Sequence[str]) -> str:
    if not may_saturate:
        return "sums: proved to fit in 16 bits; CPUs without VNNI return the same logits"
    return (
        f"sums: may overflow 16 bits on CPUs without VNNI in {', '.join(may_saturate)}; "
        "histoedge.edge requests exact sums from ONNX Runtime and floats from OpenVINO; other programs must set "
        "session.x64quantprecision"
    )


@main.command("predict")
@click.argument("model", type=PATH)
@click.argument("places", nargs=-1, required=True, type=PATH, metavar="IMAGE|FOLDER...")
@click.option(
    "--csv", "csv_file", type=PATH, metavar="F", help="Write columns id,label (label: the probability) to this file."
)
@click.option(
    "--at", metavar="NAME", help="Operating point for the verdict, such as 'specificity 0.95'; see `histoedge info`."
)
@click.option(
    "--runtime", type=click.Choice(list(edge.RUNTIMES)), help="Runtime to use.  [default: the first installed]"
)
@threads_option
@json_option
def predict_command(
    model: Path,
    places: tuple[Path, ...],
    csv_file: Path | None,
    at: str | None,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Predict the positive class' probability of patches, in the order given; folders sorted by file name."""
    if at is not None and csv_file is not None:
        raise click.UsageError("--csv writes probabilities, which --at does not change; use only one of them")
    show_bar = csv_file is not None and sys.stderr.isatty()
    with click.progressbar(length=1, label="predict", file=sys.stderr, hidden=not show_bar) as bar:

        def show(what: str, done: int, total: int, note: str = "") -> None:
            bar.length = total
            bar.update(done - bar.pos)

        predictions = histoedge.predict(
            model, places, csv=csv_file, at=at, runtime=runtime, threads=threads or 1, progress=show
        )
    if csv_file is not None:
        if as_json:
            print_json({"csv": str(csv_file), "images": len(predictions)})
        else:
            click.echo(f"{csv_file}: {len(predictions)} images")
    elif as_json:
        print_json([{**dataclasses.asdict(row), "id": row.id} for row in predictions])
    else:
        classes = manifests.read(model).classes
        for row in predictions:
            click.echo(f"{row.probability:.4f}  {classes[row.positive]}  {row.path}")


@main.command("explain")
@click.argument("model", type=PATH)
@click.argument("places", nargs=-1, type=PATH, metavar="[IMAGE|FOLDER]...")
@click.option("--data", "source", metavar="DATA", help="Data set; explain patches of its valid split.")
@click.option(
    "--out", type=PATH, default=Path("explain"), show_default=True, metavar="DIR", help="Folder of the pictures."
)
@click.option(
    "--runtime",
    type=click.Choice(list(edge.RUNTIMES)),
    help="Runtime of an exported file.  [default: the first installed]",
)
@no_cache_option
@json_option
def explain_command(
    model: Path,
    places: tuple[Path, ...],
    source: str | None,
    out: Path,
    runtime: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Draw where MODEL looks: heat maps of patches, and the share of the evidence in the labelled centre.

    MODEL is an exported file (occlusion) or a run's weights file (occlusion and Grad-CAM). With --data, also a contact
    sheet of the most confident right and wrong patches, and the evidence of 256 patches, both from the valid split.
    """
    from histoedge import progress

    with progress.on_terminal() as show:
        explained = histoedge.explain(
            model, places, data=source, out=out, runtime=runtime, no_cache=no_cache, progress=show
        )
    evidence = [dataclasses.asdict(row) for row in explained.evidence]
    if as_json:
        document = {"images": explained.images, "evidence": evidence, "contact_sheet": explained.contact_sheet}
        print_json({"model": str(model), "temperature": explained.temperature, **document})
        return
    if explained.images:
        print_rows(explained.images)
    print_rows(evidence)
    if explained.contact_sheet is not None:
        click.echo(f"contact sheet  {explained.contact_sheet}")
    click.echo(f"probabilities at temperature {explained.temperature:.4g}")


@main.command("embed")
@click.argument("model", type=PATH)
@click.option(
    "--into", required=True, type=PATH, metavar="DIR", help="Folder to write: new, empty, or written by embed before."
)
@json_option
def embed_command(model: Path, into: Path, as_json: bool) -> None:
    """Write one folder to copy: MODEL, the code to run it without histoedge, a self-test, examples and a README."""
    paths = histoedge.embed(model, into=into)
    if as_json:
        print_json({"model": str(model), "into": str(into), "files": [path.as_posix() for path in paths]})
        return
    click.echo(f"{into}: {len(paths)} files; instructions: README.md\nnext: cd {into} && {SELFTEST}")


@main.command("diff")
@click.argument("a", type=PATH, metavar="A")
@click.argument("b", type=PATH, metavar="B")
@click.option(
    "--results",
    nargs=2,
    type=PATH,
    metavar="A.json B.json",
    help="Results of `bench` for A and for B, or the same file twice.",
)
@json_option
def diff_command(a: Path, b: Path, results: tuple[Path, Path] | None, as_json: bool) -> None:
    """Compare model B with model A: what changed, and is a new validation needed? For change control, not a gate."""
    difference = histoedge.diff(a, b, results=results)
    if as_json:
        print_json(difference.as_json())
        return
    for table in (difference.table(), difference.measured_table()):
        if table:
            print_rows(table)
            click.echo()
    for line in difference.lines():
        click.echo(line)


@main.command("doctor")
@click.argument("place", type=PATH, metavar="MODEL|DIR")
@click.argument("logits", type=PATH, metavar="LOGITS.csv")
@json_option
def doctor_command(place: Path, logits: Path, as_json: bool) -> None:
    """Find the mistake that explains LOGITS.csv, your program's logits of the golden patches.

    The file has one line per golden patch, in the order of the patches. To write the patches:
    `python -m histoedge.edge golden MODEL --into DIR`.
    """
    from histoedge.edge import __main__ as commands

    diagnosis = commands.examine(place, logits)
    if as_json:
        print_json(diagnosis.as_json())
    else:
        for line in diagnosis.lines():
            click.echo(line)
    if diagnosis.verdict != "right":
        click.get_current_context().exit(ComparisonFailed.exit_code)


@main.command("info")
@click.argument("model", type=PATH)
@json_option
def info_command(model: Path, as_json: bool) -> None:
    """Print MODEL's manifest, after checking its hashes, and whether it has a passing verdict."""
    from histoedge import verification as verifying
    from histoedge.edge import golden as goldens

    manifest = manifests.read(model)
    content = manifests.checked_bytes(model, manifest)
    goldens.read_golden(model, manifest)
    document = {
        "model": str(model),
        "size_bytes": len(content),
        "verified": verifying.is_current(model),
        **manifest.as_json(),
    }
    if as_json:
        print_json(document)
        return
    for key, value in document.items():
        if key == "operating_points":
            for line in _operating_points(manifest.operating_points):
                click.echo(f"{key:20} {line}")
            continue
        click.echo(f"{key:20} {_value_text(value)}")


def _value_text(value: object) -> str:
    """Return a value of a manifest in words: ``yes``, ``none``, ``mean 1.5, p01 1``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        items = ((name, f"({_value_text(item)})" if isinstance(item, dict) else item) for name, item in value.items())
        return ", ".join(f"{name} {item}" for name, item in items) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _operating_points(points: Sequence[OperatingPoint]) -> Iterable[str]:
    """Yield a line for each point, or ``none``."""
    for point in points:
        yield (
            f"{point.name}: probability {point.threshold:.4f} or above; on valid sensitivity {point.sensitivity:.4f} "
            f"[{point.sensitivity_lo:.4f}, {point.sensitivity_hi:.4f}] of {point.n_positive}, specificity "
            f"{point.specificity:.4f} [{point.specificity_lo:.4f}, {point.specificity_hi:.4f}] of {point.n_negative}"
        )
    if not points:
        yield "none"
