"""Contenders: files on runtimes, each in child processes, timed in one interleaved run."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.cell import PREDICT_BATCH, Cell
from histoedge.config import BenchPlan
from histoedge.data import Split
from histoedge.progress import Progress

PEER_COMMAND = (sys.executable, str(Path(__file__).with_name("serve.py")))
TIMED_PATCHES = 256  # as histoedge bench
SPLITS = ("valid", "test")

Row = dict[str, Any]


@dataclass
class Peer:
    """One file on one runtime, and the child that opens it."""

    row: Row
    model: Path
    command: Sequence[str]
    batch: int | None = PREDICT_BATCH
    """Patches per call when it answers the splits; None where its answers mean nothing."""
    rounds_ms: list[np.ndarray] = field(default_factory=list)
    logits: dict[str, np.ndarray] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self, plan: BenchPlan) -> Iterator[Cell]:
        """A fresh child process that has the file open."""
        with Cell(self.command, threads=plan.threads[0], timeout_s=plan.timeout_s) as cell:
            loaded = cell.load(self.model, runtime=self.row["runtime"], batch=plan.batch[0])
            self.row |= {name: loaded[name] for name in ("runtime_version", "kernels")}
            yield cell


def answer(contenders: Sequence[Peer], splits: Mapping[str, Split], plan: BenchPlan, show: Progress) -> None:
    """Open every file once, and let each that is trained answer valid and test.

    Raises:
        CellFailed: a file cannot be opened or does not answer.
    """
    for number, one in enumerate(contenders, start=1):
        with one.opened(plan) as cell:
            if one.batch is not None:
                for name in SPLITS:
                    one.logits[name] = cell.predict(splits[name].patches, batch=one.batch).reshape(-1)
        show("peers, files answered", number, len(contenders), named(one.row))


def time(contenders: Sequence[Peer], split: Split, plan: BenchPlan, file: Path, show: Progress) -> None:
    """Rounds of calls of all contenders, each round in another random order, each turn in a fresh process.

    Raises:
        CellFailed: a file cannot be opened or does not answer.
    """
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, TIMED_PATCHES).astype(int))
    np.save(file, split.patches[chosen])
    random = np.random.default_rng(plan.seed)
    for number in range(plan.rounds):
        for index in random.permutation(len(contenders)):
            one, start = contenders[index], number * plan.runs_per_round
            with one.opened(plan) as cell:
                times = cell.time(file, n=plan.runs_per_round, start=start, warmup=plan.warmup_runs)
            one.rounds_ms.append(times.ms)
        show("peers, rounds", number + 1, plan.rounds)


def named(row: Row) -> str:
    """A row in words."""
    return f"{row['name']} @ {row['runtime']}"
