"""The commands bench and report."""

import dataclasses
import json
from pathlib import Path

import click

import histoedge
from histoedge import config
from histoedge.cli.group import main
from histoedge.cli.options import PATH, config_option, json_option, no_cache_option
from histoedge.cli.output import print_json
from histoedge.edge.errors import ComparisonFailed
from histoedge.edge.patches import SMALLEST_PATCH_PX


@main.command("bench")
@click.argument("places", nargs=-1, type=PATH, metavar="RUN|MODEL...")
@click.option("--data", "source", metavar="DATA", help="Folder of a data set, or `synthetic`.")
@no_cache_option
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    help="`keras` or a name in `histoedge list runtimes`, repeatable.  [default: keras and the first three]",
)
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Number of threads, repeatable.  [default: 1]")
@click.option("--batch", multiple=True, type=click.IntRange(1), help="Fields per call, repeatable.  [default: 1]")
@click.option(
    "--field",
    "field_px",
    multiple=True,
    type=click.IntRange(SMALLEST_PATCH_PX),
    help="Side of a field in pixels, repeatable.  [default: one patch]",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(list(config.SCENARIOS)),
    help="Also measure the batch and field of this scenario, repeatable.",
)
@click.option("--out", type=PATH, metavar="RESULTS.json", help="File to write.")
@click.option("--robustness", is_flag=True, help="Also measure the AUC after ten perturbations of the test split.")
@click.option(
    "--flips", type=PATH, metavar="DIR", help="Draw the patches whose verdict differs from the reference's into DIR."
)
@config_option
@click.option(
    "--gate",
    "gate_texts",
    multiple=True,
    metavar="EXPR",
    help="Condition on the results, such as 'p50_ratio < 0.55', repeatable.",
)
@click.option(
    "--baseline",
    type=PATH,
    metavar="OLD.json",
    help="Earlier results, for gates on p50_vs_baseline and auc_vs_baseline.",
)
@click.option(
    "--junit", "junit_file", type=PATH, metavar="F.xml", help="Write the outcome of the gates as a JUnit file."
)
@click.option(
    "--compare",
    "compared",
    nargs=2,
    type=PATH,
    metavar="A.json B.json",
    help="Compare two results files; measure nothing.",
)
@json_option
def bench_command(
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
    """Measure latency, size, memory and test AUC of each file on each runtime, each in its own process.

    Repeated options are combined: each runtime with each number of threads, batch and field. An interrupted bench
    resumes when it is started again with the same arguments.

    A gate is COLUMN OP NUMBER, with a column of the results; `MODEL@RUNTIME:` before it limits it to those cells. For a
    figure with an interval the whole interval must satisfy the gate. Exit code 3 when a gate does not pass.
    """
    from histoedge import progress, reporting
    from histoedge.benchmark import gated
    from histoedge.reporting import verdicts

    if compared is not None:
        _compare(*compared, as_json=as_json)
        return
    if not places or source is None or out is None:
        raise click.UsageError("give RUN|MODEL..., --data DATA and --out RESULTS.json, or only --compare A.json B.json")
    if (message := gated.without_gates(gate_texts, baseline, junit_file)) is not None:
        raise click.UsageError(message)
    with progress.on_terminal() as show:
        benched = histoedge.bench(
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
    for difference in benched.other_machine:
        click.echo(f"histoedge: the baseline is from another machine, times cannot be compared: {difference}", err=True)
    if as_json:
        gates = {"gates": [dataclasses.asdict(gate) for gate in benched.gates]} if gate_texts else {}
        print_json({**json.loads(out.read_text()), **gates})
    else:
        reporting.print_table(benched.results)
        click.echo(f"results  {out}")
        if benched.gates:
            verdicts.print_gates(benched.gates)
    if benched.open_gates:
        raise ComparisonFailed(
            f"{len(benched.open_gates)} of {len(gate_texts)} gates do not pass: {'; '.join(benched.open_gates)}"
        )


def _compare(a: Path, b: Path, *, as_json: bool) -> None:
    from histoedge.benchmark import compare
    from histoedge.reporting import verdicts

    context = click.get_current_context()
    if {name for name, value in context.params.items() if value not in (None, (), False)} - {"compared", "as_json"}:
        raise click.UsageError("--compare A.json B.json can only be combined with --json")
    comparison = compare.compare(compare.read_comparable(a), compare.read_comparable(b))
    if as_json:
        print_json(comparison.as_json())
    else:
        verdicts.print_comparison(comparison)


@main.command("report")
@click.argument("results", type=PATH, metavar="RESULTS.json")
@click.option("--html", type=PATH, metavar="F", help="Write one self-contained page.")
@click.option("--csv", "csv_file", type=PATH, metavar="F", help="Write all columns as CSV.")
@click.option("--md", type=PATH, metavar="F", help="Write Markdown tables.")
@click.option(
    "--flips",
    multiple=True,
    type=PATH,
    metavar="F.png",
    help="Show this sheet of `bench --flips` in the page, repeatable.",
)
@json_option
def report_command(
    results: Path, html: Path | None, csv_file: Path | None, md: Path | None, flips: tuple[Path, ...], as_json: bool
) -> None:
    """Show results of bench as a table, a page, CSV or Markdown; with --json as a document with all facts."""
    from histoedge import reporting

    if flips and html is None:
        raise click.UsageError("--flips adds sheets to the page; also give --html F")
    measured = histoedge.report(results, html=html, csv=csv_file, md=md, flips=flips)
    written = [str(place) for place in (html, csv_file, md) if place is not None]
    if as_json:
        print_json({**reporting.document(measured, name=reporting.name_of(results)), "written": written})
        return
    if not written:
        reporting.print_table(measured)
    for path in written:
        click.echo(path)
