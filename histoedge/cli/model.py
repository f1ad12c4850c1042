"""Commands on one exported model: verify, predict, explain, embed, diff, doctor, info."""

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
from histoedge.edge.errors import ComparisonFailed
from histoedge.edge.manifest import OperatingPoint

SELFTEST = "python -m edge selftest ."


@main.command("verify")
@click.argument("model", type=PATH)
@click.option("--data", "source", metavar="DATA", help="Also compare with the source network on the test split.")
@click.option(
    "--layers", is_flag=True, help="Also say which layer of an int8 file errs most; with --data on 256 valid patches."
)
@no_cache_option
@json_option
def verify_command(model: Path, source: str | None, layers: bool, no_cache: bool, as_json: bool) -> None:
    """Recompute the golden patches of MODEL on every runtime installed; exit code 3 when an answer is wrong.

    An int8 file must also run in integers, and with --data answer as the same recipe's file in the other format does.
    """
    from histoedge import progress

    with progress.on_terminal() as show:
        verdict = histoedge.verify(model, data=source, layers=layers, no_cache=no_cache, progress=show)
    if as_json:
        print_json(verdict.as_json())
    else:
        columns = ("runtime", "version", "kernels", "status", "reason", "largest")
        rows = [{key: getattr(check, key) for key in columns} for check in verdict.golden]
        print_rows([{key: value for key, value in row.items() if value is not None} for row in rows])
        for check in verdict.golden if verdict.output_quantum is not None else ():
            if check.operators is not None:
                click.echo(check.operators_line())
        if verdict.output_quantum is not None:
            click.echo(_sums(verdict.may_saturate))
        for found in (verdict.comparison, verdict.twin):
            if found is not None:
                print_rows([dataclasses.asdict(found)])
        click.echo(f"{verdict.model}: {'passed' if verdict.passed else 'FAILED'} (tolerance {verdict.tolerance:.4g})")
        if verdict.advice is not None:
            print_rows(dataclasses.asdict(error) for error in verdict.layers)
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


@main.command("predict")
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
def predict_command(
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
            print_json({"csv": str(csv_file), "images": len(predictions)})
        else:
            click.echo(f"{csv_file}: {len(predictions)} images")
    elif as_json:
        print_json([{**dataclasses.asdict(one), "id": one.id} for one in predictions])
    else:
        for one in predictions:
            click.echo(f"{one.probability:.4f}  {'tumour' if one.positive else 'normal'}  {one.path}")


@main.command("explain")
@click.argument("model", type=PATH)
@click.argument("places", nargs=-1, type=PATH, metavar="[IMAGE|FOLDER]...")
@click.option("--data", "source", metavar="DATA", help="Also or instead: the valid split of a data set.")
@click.option("--out", type=PATH, default=Path("explain"), show_default=True, metavar="DIR", help="For the pictures.")
@click.option("--runtime", type=click.Choice(list(edge.RUNTIMES)), help="Of an exported file; default: as predict.")
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
        print_json({"model": str(model), "temperature": found.temperature, **document})
        return
    if found.images:
        print_rows(found.images)
    print_rows(evidence)
    if found.contact_sheet is not None:
        click.echo(f"contact sheet  {found.contact_sheet}")
    click.echo(f"probabilities at temperature {found.temperature:.4g}")


@main.command("embed")
@click.argument("model", type=PATH)
@click.option("--into", required=True, type=PATH, metavar="DIR", help="Folder to write: empty, or embedded before.")
@json_option
def embed_command(model: Path, into: Path, as_json: bool) -> None:
    """Write one folder to copy: MODEL, the code that runs it without histoedge, a self-test, examples and a page."""
    written = histoedge.embed(model, into=into)
    if as_json:
        print_json({"model": str(model), "into": str(into), "files": [path.as_posix() for path in written]})
        return
    click.echo(f"{into}: {len(written)} files; README.md tells how to use them\nnext: cd {into} && {SELFTEST}")


@main.command("diff")
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
def diff_command(a: Path, b: Path, results: tuple[Path, Path] | None, as_json: bool) -> None:
    """What changed from model A to model B, and does it need a new validation? For change control; it is no gate."""
    found = histoedge.diff(a, b, results=results)
    if as_json:
        print_json(found.as_json())
        return
    for table in (found.table(), found.measured_table()):
        if table:
            print_rows(table)
            click.echo()
    for line in found.lines():
        click.echo(line)


@main.command("doctor")
@click.argument("place", type=PATH, metavar="MODEL|DIR")
@click.argument("logits", type=PATH, metavar="LOGITS.csv")
@json_option
def doctor_command(place: Path, logits: Path, as_json: bool) -> None:
    """Name the mistake behind LOGITS.csv: what a program that embeds the model got for its golden patches.

    A line for each golden patch, in their order. `python -m histoedge.edge golden MODEL --into DIR` writes them.
    """
    from histoedge.edge import __main__ as checks

    diagnosis = checks.examine(place, logits)
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
    """What MODEL's manifest says, after checking its hashes, and whether a passing verdict lies beside it."""
    from histoedge import verification as verifying
    from histoedge.edge import golden as goldens
    from histoedge.edge import manifest as manifests

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
