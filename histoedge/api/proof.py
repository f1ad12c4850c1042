"""Evidence on exported models: verify, bench, report, diff."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoedge.api.arguments import Names, Numbers, Place, Places, as_path, as_tuple
from histoedge.progress import Progress, silent

if TYPE_CHECKING:
    from histoedge.benchmark import Results
    from histoedge.benchmark.gated import Benched
    from histoedge.data import Split
    from histoedge.difference import Diff
    from histoedge.verification import Verdict
    from histoedge.verification.verifier import LayerErrors


def verify(
    model: Place,
    *,
    data: Place | None = None,
    layers: bool = False,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Verdict":
    """Run a model's golden patches on each installed runtime.

    The map of a field must equal its patches. An int8 file must also compute in integers, and with ``data`` match the
    file of the same recipe in the other format.

    Returns:
        The verdict; ``verdict.passed`` is the result. With ``layers`` it contains the errors of an int8 file's layers,
        and advice.
    """
    from histoedge import data as sources
    from histoedge import verification

    splits = {}
    if data is not None:
        names = ("test", "valid") if layers else ("test",)
        splits = sources.load(str(data), splits=names, cache=not no_cache, progress=progress)
    measure_layers = partial(_layer_errors, Path(model), splits.get("valid")) if layers else None
    return verification.verify(Path(model), split=splits.get("test"), layers=measure_layers)


def _layer_errors(model: Path, valid: "Split | None") -> "LayerErrors":
    from histoedge.lab import layers  # imports TensorFlow

    return layers.errors_and_advice(model, valid)


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
    """Measure latency, size, memory and test AUC of each file of runs and models, each in its own process.

    Arguments with several values are combined. An interrupted bench resumes when called with the same arguments.

    Returns:
        The results, as written to ``out``, and the outcome of each gate; ``open_gates`` are those that do not pass.
        (``bench --compare`` is ``histoedge.benchmark.compare.compare`` on two results.)
    """
    from histoedge import config as settings
    from histoedge.benchmark import gated

    repeated: dict[str, Any] = {"runtimes": runtime, "threads": threads, "batch": batch}
    repeated |= {"field_px": field, "scenarios": scenario}
    options: dict[str, Any] = {name: tuple(dict.fromkeys(as_tuple(value))) or None for name, value in repeated.items()}
    options["robustness"] = robustness or None
    plan = settings.resolve(settings.BenchPlan, file=as_path(config), options=options)
    job = gated.GatedBenchJob(
        out=Path(out),
        places=[Path(place) for place in as_tuple(places)],
        source=str(data),
        plan=plan,
        flips=as_path(flips),
        gate_texts=as_tuple(gate),
        baseline=as_path(baseline),
        junit_file=as_path(junit),
        cache=not no_cache,
    )
    return gated.bench_gated(job, progress=progress)


def report(
    results: Place,
    *,
    html: Place | None = None,
    csv: Place | None = None,
    md: Place | None = None,
    flips: Places = (),
) -> "Results":
    """Write results of ``bench`` as a page, CSV or Markdown; ``flips`` are sheets of ``bench`` to show in the page.

    Returns:
        The results.
    """
    from histoedge import benchmark, files, reporting
    from histoedge.edge.errors import ConfigError

    if as_tuple(flips) and html is None:
        raise ConfigError("--flips adds sheets to the page; also give --html F")
    measured = benchmark.read_results(Path(results))
    if html is not None:
        sheets = [reporting.read_sheet(Path(path)) for path in as_tuple(flips)]
        files.write_text(Path(html), reporting.html(measured, sheets=sheets, name=reporting.name_of(Path(results))))
    if csv is not None:
        files.write_text(Path(csv), reporting.csv_text(measured))
    if md is not None:
        files.write_text(Path(md), reporting.markdown(measured))
    return measured


def diff(a: Place, b: Place, *, results: tuple[Place, Place] | None = None) -> "Diff":
    """Compare model B with model A: what changed, and is a new validation needed? For change control, not a gate.

    ``results`` are the results files of A and of B; they may be the same file.
    """
    from histoedge import difference

    return difference.diff(Path(a), Path(b), results=None if results is None else (Path(results[0]), Path(results[1])))
