"""The committed results files: where they are, and the command that makes each."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import suite

from histoedge import benchmark, config

HERE = Path(__file__).parent

TEACHERS = {
    "teacher": "first",
    "accurate": "teacher",
    "edge": "accurate",
    "nano": "accurate",
}  # student: teacher

WITHOUT_AMX = "-without-amx"  # end of a machine's name: the command ran under without_amx.py


@dataclass(frozen=True)
class ResultsFile:
    """A results file of a machine: the ``bench.json`` of a run or of the suite, or a document of a script."""

    path: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        """The content of the file."""
        content: dict[str, Any] = json.loads(self.path.read_text())
        return content

    @cached_property
    def bench(self) -> benchmark.Results:
        """The content of a ``bench.json``."""
        return benchmark.read_results(self.path)

    @property
    def name(self) -> str:
        """The file name without suffix, which is also the heading of its section."""
        return self.path.stem

    @property
    def machine(self) -> str:
        """The name of the machine's folder."""
        return self.path.parent.name

    @property
    def kind(self) -> str:
        """The kind of a script's document; ``suite`` or ``run`` for a ``bench.json``."""
        if "kind" in self.document:
            return str(self.document["kind"])
        return "suite" if self.name in (suite.NAME, suite.NAME + suite.SYNTHETIC) else "run"

    @property
    def without_amx(self) -> bool:
        """Whether AMX was refused while it was measured."""
        return self.machine.endswith(WITHOUT_AMX)

    @property
    def settings(self) -> str:
        """The name of a run's settings file: results of other seeds have the same one."""
        return self.name.partition("-seed")[0]

    @property
    def place(self) -> str:
        """The path below ``benchmarks``."""
        return f"results/{self.machine}/{self.path.name}"

    @property
    def section(self) -> str:
        """The link from ``benchmarks/README.md`` to its section on the machine's page."""
        return f"[{self.machine}](results/{self.machine}/README.md#{self.name})"

    @property
    def command(self) -> str:
        """The command that makes it; words in capitals stand for paths."""
        if "kind" in self.document:
            return str(self.document["command"])
        if self.kind == "suite":
            command = "python benchmarks/suite.py --data DATA"
        else:
            command = run_command(self.name)
            if command.startswith("histoedge run"):
                command += _recipe_options(self.bench)
        return f"python benchmarks/without_amx.py {command}" if self.without_amx else command


def committed_results(folder: Path = HERE) -> list[ResultsFile]:
    """Return the results files of all machines, sorted by machine and name."""
    return [ResultsFile(path) for path in sorted(folder.glob("results/*/*.json"))]


def run_command(name: str) -> str:
    """Return the command that makes the run whose results are ``<name>.json``."""
    if name == "baseline-author":
        return (
            "python benchmarks/baseline.py --data DATA --out RUN && histoedge export RUN --recipe fp32 && "
            "histoedge bench RUN --data DATA --out RUN/bench.json"
        )
    settings, _, seed = name.partition("-seed")
    teacher = f" --teacher RUN_OF_{TEACHERS[settings].upper()}" if settings in TEACHERS else ""
    return f"histoedge run --data DATA --out RUN --config benchmarks/{settings}.toml{teacher}" + (
        f" --seed {seed}" if seed else ""
    )


def _recipe_options(results: benchmark.Results) -> str:
    """Return the ``--recipe`` options of ``histoedge run``; none for its default recipes."""
    names = list(dict.fromkeys(row.recipe for row in results.measurements))
    if set(names) == set(config.RECIPES):
        return " --recipe all"
    return "" if set(names) == set(config.DEFAULT_RECIPES) else "".join(f" --recipe {name}" for name in names)
