"""Answers of every file to the test split on every runtime, on unchanged patches and after perturbations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from histoedge.benchmark.matrix import Contender, FileOnRuntime
from histoedge.benchmark.resume import FinishedCells
from histoedge.benchmark.running import RunningGroup
from histoedge.cell import CHUNK_PATCHES, CellFailed
from histoedge.config import BenchPlan
from histoedge.data import Split, perturb
from histoedge.progress import Progress

PERTURBED_CHUNK_PATCHES = 256  # a step in optical density takes 12 times the bytes of the patches: 85 MB


@dataclass(frozen=True)
class Answers:
    """Logits (n,) of the whole test split by file and runtime; ``perturbed`` then by name of the perturbation."""

    clean: dict[FileOnRuntime, np.ndarray] = field(default_factory=dict)
    perturbed: dict[FileOnRuntime, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnswerJob:
    """The inputs of ``collect``.

    Args:
        plan: whether to perturb.
        split: the test patches.
        pixels: file for the pixels that the cells read.
        store: called with the number of each cell that has answered the whole split, its logits (n,) and the
            perturbation.
        progress: called after each chunk.
        group_name: of the group, for ``progress``.
    """

    plan: BenchPlan
    split: Split
    pixels: Path
    store: Callable[[int, np.ndarray, str | None], None]
    progress: Progress
    group_name: str

    def chunks(self, patches_at_once: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the patches of the split in chunks, each with the number of patches up to its end."""
        for start in range(0, len(self.split.labels), patches_at_once):
            patches = np.asarray(self.split.patches[start : start + patches_at_once])
            yield start + len(patches), patches


def restored(contenders: Sequence[Contender], plan: BenchPlan, finished: FinishedCells) -> Answers:
    """Return the answers that an earlier start of the benchmark stored."""
    answers = Answers()
    for contender in contenders:
        if (logits := finished.answers(contender.number)) is not None:
            answers.clean.setdefault(contender.file_on_runtime, logits)
        for name in _perturbations(plan):
            if (logits := finished.answers(contender.number, name)) is not None:
                answers.perturbed.setdefault(contender.file_on_runtime, {}).setdefault(name, logits)
    return answers


def collect(group: RunningGroup, places: Sequence[int], answers: Answers, job: AnswerJob) -> None:
    """Let each file on each runtime answer the split, unless one of its cells already has; perturbations last.

    One chunk of pixels is on disk and in memory at a time. On unchanged patches the cells answer one after another.
    A perturbed chunk is answered by all cells before the next one is computed.

    Args:
        group: the cells; one that fails becomes a row with the reason.
        places: the places in the group of the cells to ask.
        answers: added to.
        job: patches, and where the answers go.
    """
    for place in _clean(group, places, answers, job):
        contender = group.contenders[place]
        job.store(contender.number, answers.clean[contender.file_on_runtime], None)
    for name in _perturbations(job.plan):
        for place in _perturbed(name, group, places, answers, job):
            contender = group.contenders[place]
            job.store(contender.number, answers.perturbed[contender.file_on_runtime][name], name)


def _perturbations(plan: BenchPlan) -> tuple[str, ...]:
    return tuple(perturb.PERTURBATIONS) if plan.robustness else ()


def _clean(group: RunningGroup, places: Sequence[int], answers: Answers, job: AnswerJob) -> Iterator[int]:
    """Yield each cell that has answered all unchanged patches; its process ends afterwards."""
    waiting = []
    for place in places:
        contender = group.contenders[place]
        if contender.row.status == "ok" and contender.file_on_runtime not in answers.clean:
            waiting.append(place)
        else:
            group.close(place)
    count = len(job.split.labels)
    for turn, place in enumerate(waiting):
        contender = group.contenders[place]
        if contender.file_on_runtime not in answers.clean:
            parts = []
            try:
                for done, patches in job.chunks(CHUNK_PATCHES):
                    np.save(job.pixels, patches)
                    parts.append(_chunk_logits(group, place, job.pixels, len(patches)))
                    total = len(waiting) * count
                    job.progress(f"bench, test patches{job.group_name}", turn * count + done, total, contender.note)
            except CellFailed as failure:
                group.fail(place, failure)
                continue
            answers.clean[contender.file_on_runtime] = np.concatenate(parts)
            yield place
        group.close(place)


def _perturbed(
    perturbation: str, group: RunningGroup, places: Sequence[int], answers: Answers, job: AnswerJob
) -> Iterator[int]:
    """Yield each cell that has answered all patches after one perturbation, which is computed once for all cells."""
    waiting: dict[FileOnRuntime, int] = {}
    for place in places:
        file = group.contenders[place].file_on_runtime
        if group.contenders[place].row.status == "ok" and perturbation not in answers.perturbed.get(file, {}):
            waiting.setdefault(file, place)
    parts: dict[FileOnRuntime, list[np.ndarray]] = {file: [] for file in waiting}
    count, names = len(job.split.labels), _perturbations(job.plan)
    for done, patches in job.chunks(PERTURBED_CHUNK_PATCHES) if waiting else ():
        np.save(job.pixels, perturb.perturbed(patches, perturbation))
        for file, place in list(waiting.items()):
            try:
                parts[file].append(_chunk_logits(group, place, job.pixels, len(patches)))
            except CellFailed as failure:
                group.fail(place, CellFailed(f"{perturbation}: {failure.reason}", kind=failure.kind))
                del waiting[file]
        before = names.index(perturbation) * count
        job.progress(f"bench, perturbed patches{job.group_name}", before + done, len(names) * count, perturbation)
    for file, place in waiting.items():
        answers.perturbed.setdefault(file, {})[perturbation] = np.concatenate(parts[file])
        yield place


def _chunk_logits(group: RunningGroup, place: int, pixels: Path, count: int) -> np.ndarray:
    """Return the logits (count,) of the patches in a file.

    The process is started if there is none: after a restart, and for perturbed patches.
    """
    logits = group.cell(place).predict_file(pixels).reshape(-1)
    if len(logits) != count:
        raise CellFailed(f"{len(logits)} logits for {count} patches")
    if not np.isfinite(logits).all():
        raise CellFailed(f"{np.count_nonzero(~np.isfinite(logits))} logits are not finite")
    return logits
