"""A benchmark with gates: from runs, model files and DATA to a results file and judged gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histoedge import data
from histoedge.benchmark import compare, gates, junit, matrix, measure, noise, results
from histoedge.benchmark.gates import Judgement
from histoedge.benchmark.matrix import BenchJob
from histoedge.benchmark.results import Results
from histoedge.config import BenchPlan
from histoedge.edge.errors import ConfigError
from histoedge.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class GatedBenchJob:
    """The inputs of ``bench_gated``.

    Args:
        out: the results file.
        places: runs and model files.
        source: DATA, whose test split is measured.
        plan: what to measure.
        flips: folder for sheets of flips, as in ``BenchJob``.
        gate_texts: gates, as in ``gates.parse``.
        baseline: older results, for gates on ``gates.BASELINE``.
        junit_file: file for the judged gates.
        cache: as in ``data.load``.
    """

    out: Path
    places: Sequence[Path]
    source: str
    plan: BenchPlan
    flips: Path | None = None
    gate_texts: Sequence[str] = ()
    baseline: Path | None = None
    junit_file: Path | None = None
    cache: bool = True


@dataclass(frozen=True, kw_only=True)
class Benched:
    """The results, and one ``Judgement`` for each gate and cell.

    ``other_machine`` lists the reasons why times of the baseline do not compare; it is usually empty.
    """

    results: Results
    gates: tuple[Judgement, ...]
    other_machine: tuple[str, ...]

    @property
    def open_gates(self) -> tuple[str, ...]:
        """The gates that do not pass, each once."""
        return tuple(dict.fromkeys(judgement.gate for judgement in self.gates if not judgement.passes))


def bench_gated(job: GatedBenchJob, *, progress: Progress = silent) -> Benched:
    """Measure the test split of DATA into ``job.out``, as ``bench_to`` does, and judge the gates.

    Gates and baseline are read before anything is measured.

    Raises:
        ConfigError: a gate is wrong, or there is a baseline or JUnit file without a gate for it.
        ConfigError, ModelError, DataError, WriteError: as ``find_models`` and ``bench_to``.
    """
    if (message := without_gates(job.gate_texts, job.baseline, job.junit_file)) is not None:
        raise ConfigError(message)
    parsed = gates.parse(job.gate_texts, baseline=job.baseline is not None)
    older = None if job.baseline is None else compare.read_comparable(job.baseline)
    models, reference = matrix.find_models(job.places)
    with_valid = reference is not None and data.has(job.source, "valid")
    names = ("test", "valid") if with_valid else ("test",)
    splits = data.load(job.source, splits=names, cache=job.cache, progress=progress)
    bench_job = BenchJob(
        models=models,
        plan=job.plan,
        split=splits["test"],
        reference=reference,
        valid=splits.get("valid"),
        flips=job.flips,
    )
    measure.bench_to(job.out, bench_job, progress=progress)
    measured = results.read_results(job.out)
    judgements = gates.judge_gates(parsed, measured, baseline=older)
    if parsed and job.junit_file is not None:
        junit.write_junit(job.junit_file, judgements)
    other_machine = () if older is None else tuple(noise.other_machine(older.environment, measured.environment))
    return Benched(results=measured, gates=judgements, other_machine=other_machine)


def without_gates(gate_texts: Sequence[str], baseline: Path | None, junit_file: Path | None) -> str | None:
    """Return the error message for a baseline or JUnit file that no gate uses; None if there is none.

    Raises:
        ConfigError: a gate is wrong.
    """
    if not gate_texts and (baseline or junit_file):
        return "--baseline and --junit require a gate; add --gate EXPR"
    parsed = gates.parse(gate_texts, baseline=baseline is not None)
    if baseline is not None and not any(gate.column in gates.BASELINE for gate in parsed):
        return f"--baseline: no --gate is on {' or '.join(gates.BASELINE)}"
    return None
