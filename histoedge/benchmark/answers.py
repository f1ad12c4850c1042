"""What every file answers to the test split on every runtime, as the patches are and after perturbations."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from histoedge.benchmark.matrix import Answered, Contender
from histoedge.benchmark.resume import FinishedCells
from histoedge.cell import CHUNK_PATCHES, CellFailed
from histoedge.config import BenchPlan
from histoedge.data import Split, perturb
from histoedge.progress import Progress

PERTURBED_CHUNK_PATCHES = 256  # a step in optical density takes 12 times the bytes of the patches: 85 MB


@dataclasses.dataclass
class Answers:
    """Logits (n,) of the whole test split by file and runtime, on which alone they depend."""

    clean: dict[Answered, np.ndarray] = dataclasses.field(default_factory=dict)
    perturbed: dict[Answered, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    """Then by name of the perturbation."""


def restored(contenders: Sequence[Contender], plan: BenchPlan, kept: FinishedCells) -> Answers:
    """What an earlier start has kept."""
    answers = Answers()
    for number, one in enumerate(contenders):
        if (found := kept.answers(number)) is not None:
            answers.clean.setdefault(one.file_on_runtime, found)
        for name in _perturbations(plan):
            if (found := kept.answers(number, name)) is not None:
                answers.perturbed.setdefault(one.file_on_runtime, {}).setdefault(name, found)
    return answers


def ask(
    group: Sequence[Contender],
    answers: Answers,
    *,
    plan: BenchPlan,
    split: Split,
    file: Path,
    keep: Callable[[Contender, np.ndarray, str | None], None],
    progress: Progress,
    name: str,
) -> None:
    """Let each file answer on each runtime where none of its cells has yet, perturbations last.

    One chunk of pixels is on disk and in memory, however long the split. The cells answer one after the other, but
    every chunk that had to be perturbed is answered by all of them before the next.

    Args:
        group: cells to ask; one that fails becomes a row that says why.
        answers: what is answered already; added to.
        plan: whether to perturb, and how long a cell may take.
        split: the test patches.
        file: where pixels are put for the cells.
        keep: called with every cell that has answered all of the split, its logits (n,), and the perturbation.
        progress: told of every chunk.
        name: of the group, for ``progress``.
    """
    for one in _clean(group, answers, plan, split, file, progress, name):
        keep(one, answers.clean[one.file_on_runtime], None)
    for perturbation in _perturbations(plan):
        for one in _perturbed(perturbation, group, answers, plan, split, file, progress, name):
            keep(one, answers.perturbed[one.file_on_runtime][perturbation], perturbation)


def _perturbations(plan: BenchPlan) -> tuple[str, ...]:
    return tuple(perturb.PERTURBATIONS) if plan.robustness else ()


def _clean(
    group: Sequence[Contender],
    answers: Answers,
    plan: BenchPlan,
    split: Split,
    file: Path,
    progress: Progress,
    name: str,
) -> Iterator[Contender]:
    """The cells that have answered all patches as they are, one by one; each ends its process after."""
    waiting = []
    for one in group:
        if one.row.status == "ok" and one.file_on_runtime not in answers.clean:
            waiting.append(one)
        else:
            one.give_up()
    count = len(split.labels)
    for place, one in enumerate(waiting):
        if one.file_on_runtime not in answers.clean:
            parts = []
            try:
                for at in range(0, count, CHUNK_PATCHES):
                    patches = np.asarray(split.patches[at : at + CHUNK_PATCHES])
                    np.save(file, patches)
                    parts.append(_chunk(one, file, len(patches), plan))
                    done = place * count + at + len(patches)
                    progress(f"bench, test patches{name}", done, len(waiting) * count, one.note)
            except CellFailed as failure:
                one.fail(failure)
                continue
            answers.clean[one.file_on_runtime] = np.concatenate(parts)
            yield one
        one.give_up()


def _perturbed(
    perturbation: str,
    group: Sequence[Contender],
    answers: Answers,
    plan: BenchPlan,
    split: Split,
    file: Path,
    progress: Progress,
    name: str,
) -> Iterator[Contender]:
    """The cells that have answered all patches after one perturbation: it is applied once for all of them."""
    waiting: dict[Answered, Contender] = {}
    for one in group:
        if one.row.status == "ok" and perturbation not in answers.perturbed.get(one.file_on_runtime, {}):
            waiting.setdefault(one.file_on_runtime, one)
    parts: dict[Answered, list[np.ndarray]] = {at: [] for at in waiting}
    count = len(split.labels)
    for start in range(0, count, PERTURBED_CHUNK_PATCHES) if waiting else ():
        patches = perturb.perturbed(np.asarray(split.patches[start : start + PERTURBED_CHUNK_PATCHES]), perturbation)
        np.save(file, patches)
        for at, one in list(waiting.items()):
            try:
                parts[at].append(_chunk(one, file, len(patches), plan))
            except CellFailed as failure:
                one.fail(CellFailed(f"{perturbation}: {failure.reason}", kind=failure.kind))
                del waiting[at]
        done = _perturbations(plan).index(perturbation) * count + start + len(patches)
        progress(f"bench, perturbed patches{name}", done, len(_perturbations(plan)) * count, perturbation)
    for at, one in waiting.items():
        answers.perturbed.setdefault(at, {})[perturbation] = np.concatenate(parts[at])
        yield one


def _chunk(one: Contender, file: Path, count: int, plan: BenchPlan) -> np.ndarray:
    """The logits (count,) of the patches in a file, from a process that is started where none runs.

    None runs where the times were kept from an earlier start, and once it has answered the patches as they are.
    """
    if one.cell is None:
        one.open(plan.timeout_s)
    assert one.cell is not None
    logits = one.cell.predict_file(file).reshape(-1)
    if len(logits) != count:
        raise CellFailed(f"{len(logits)} logits for {count} patches")
    if not np.isfinite(logits).all():
        raise CellFailed(f"{np.count_nonzero(~np.isfinite(logits))} logits are not finite")
    return logits
