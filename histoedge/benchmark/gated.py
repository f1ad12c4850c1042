"""A bench from what a person names: places, DATA, a plan, gates; into a results file, judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histoedge import data
from histoedge.benchmark import compare, gates, junit, matrix, measure, noise, results
from histoedge.benchmark.gates import Judgement
from histoedge.benchmark.results import Results
from histoedge.config import BenchPlan
from histoedge.edge.errors import ConfigError
from histoedge.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Benched:
    """What was measured, and how the gates stand, one ``Judgement`` for each gate and cell.

    ``other_machine`` says why times of the baseline do not compare; it is empty where they do.
    """

    results: Results
    gates: tuple[Judgement, ...]
    other_machine: tuple[str, ...]

    @property
    def open_gates(self) -> tuple[str, ...]:
        """The gates that do not pass, each once."""
        return tuple(dict.fromkeys(one.gate for one in self.gates if not one.holds_up))


def bench_gated(
    out: Path,
    places: Sequence[Path],
    source: str,
    *,
    plan: BenchPlan,
    flips: Path | None = None,
    gate_texts: Sequence[str] = (),
    baseline: Path | None = None,
    junit_file: Path | None = None,
    cache: bool = True,
    progress: Progress = silent,
) -> Benched:
    """Measure runs and models on the test split of DATA into the results file ``out``, as ``bench_to`` does, and judge.

    Gates and baseline are read before anything is measured. ``junit_file`` gets the judged gates.

    Raises:
        ConfigError: a wrong gate, or a baseline or JUnit file without a gate for it.
        ConfigError, ModelError, DataError, WriteError: as ``find`` and ``bench_to``.
    """
    if (needless := without_gates(gate_texts, baseline, junit_file)) is not None:
        raise ConfigError(needless)
    asked = gates.parse(gate_texts, baseline=baseline is not None)
    older = None if baseline is None else compare.read_comparable(baseline)
    models, reference = matrix.find_models(places)
    with_valid = reference is not None and data.has(source, "valid")
    splits = data.load(source, splits=("test", "valid") if with_valid else ("test",), cache=cache, progress=progress)
    measure.bench_to(
        out,
        models,
        plan=plan,
        split=splits["test"],
        reference=reference,
        valid=splits.get("valid"),
        flips=flips,
        progress=progress,
    )
    found = results.read_results(out)
    judged = gates.judge_gates(asked, found, baseline=older)
    if asked and junit_file is not None:
        junit.write_junit(junit_file, judged)
    elsewhere = () if older is None else tuple(noise.other_machine(older.environment, found.environment))
    return Benched(results=found, gates=judged, other_machine=elsewhere)


def without_gates(gate_texts: Sequence[str], baseline: Path | None, junit_file: Path | None) -> str | None:
    """What to say of a baseline or JUnit file that no gate needs; None where there is none.

    Raises:
        ConfigError: a wrong gate.
    """
    if not gate_texts and (baseline or junit_file):
        return "--baseline and --junit are of gates; give --gate EXPR"
    asked = gates.parse(gate_texts, baseline=baseline is not None)
    if baseline is not None and not any(gate.column in gates.BASELINE for gate in asked):
        return f"--baseline: no --gate is on {' or '.join(gates.BASELINE)}"
    return None
