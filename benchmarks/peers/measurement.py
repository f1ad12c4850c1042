"""Contenders: files on runtimes in child processes, timed in one interleaved run."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from record import Row
from targets import evenly_spaced

from histoedge.cell import PREDICT_BATCH, Cell
from histoedge.config import BenchPlan
from histoedge.data import Split
from histoedge.progress import Progress

PEER_COMMAND = (sys.executable, str(Path(__file__).with_name("serve.py")))
SPLITS = ("valid", "test")


@dataclass
class Peer:
    """A file on a runtime, and the command of the child process that opens it."""

    row: Row
    model: Path
    command: Sequence[str]
    batch: int | None = PREDICT_BATCH
    """Patches per call when it predicts the splits; None for an untrained network, which predicts none."""
    rounds_ms: list[np.ndarray] = field(default_factory=list)
    logits: dict[str, np.ndarray] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self, plan: BenchPlan) -> Iterator[Cell]:
        """Open the file in a fresh child process."""
        with Cell(self.command, threads=plan.threads[0], timeout_s=plan.timeout_s) as cell:
            loaded = cell.load(self.model, runtime=self.row["runtime"], batch=plan.batch[0])
            self.row |= {name: loaded[name] for name in ("runtime_version", "kernels")}
            yield cell


def predict_splits(contenders: Sequence[Peer], splits: Mapping[str, Split], plan: BenchPlan, show: Progress) -> None:
    """Open each file once; predict valid and test with the trained ones.

    Raises:
        CellFailed: a file cannot be opened or a prediction fails.
    """
    for number, contender in enumerate(contenders, start=1):
        with contender.opened(plan) as cell:
            if contender.batch is not None:
                for name in SPLITS:
                    logits = cell.predict(splits[name].patches, batch=contender.batch)
                    contender.logits[name] = logits.reshape(-1)
        show("peers, files answered", number, len(contenders), named(contender.row))


def time_rounds(contenders: Sequence[Peer], split: Split, plan: BenchPlan, file: Path, show: Progress) -> None:
    """Time rounds of calls of all contenders, in a random order per round, each turn in a fresh process.

    Raises:
        CellFailed: a file cannot be opened or a prediction fails.
    """
    np.save(file, evenly_spaced(split))
    random = np.random.default_rng(plan.seed)
    for number in range(plan.rounds):
        for index in random.permutation(len(contenders)):
            contender, start = contenders[index], number * plan.runs_per_round
            with contender.opened(plan) as cell:
                times = cell.time(file, n=plan.runs_per_round, start=start, warmup=plan.warmup_runs)
            contender.rounds_ms.append(times.ms)
        show("peers, rounds", number + 1, plan.rounds)


def named(row: Row) -> str:
    """Return the name of a row: quantiser or network, and runtime."""
    return f"{row['name']} @ {row['runtime']}"
