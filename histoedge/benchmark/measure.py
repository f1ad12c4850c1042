"""The measurement: load the cells of a group, time them in interleaved rounds, collect the answers of every file."""

import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.benchmark import answers as answering
from histoedge.benchmark import ceiling, environment, layer_errors, matrix, results, sheet, timing
from histoedge.benchmark.answers import AnswerJob, Answers
from histoedge.benchmark.decode import decode
from histoedge.benchmark.judge import Machine, Pair, judge_cells
from histoedge.benchmark.matrix import BenchJob, Contender
from histoedge.benchmark.result_row import Measurement, is_int8
from histoedge.benchmark.resume import FinishedCells
from histoedge.benchmark.running import RunningGroup
from histoedge.cell import EDGE_COMMAND, Cell, CellFailed
from histoedge.config import BenchPlan
from histoedge.data import Split, evenly_spaced
from histoedge.edge.patches import PATCH_PX
from histoedge.files import make_folder, write_bytes
from histoedge.progress import Progress, silent

TIMED_PATCHES = 256  # 7 MB of pixels: too many for a cache or a branch predictor to learn
MIN_FIELDS = 2
LOADED_FIGURES = ("runtime_version", "kernels", "cpus", "os_threads", "n_outputs", "load_ms", "first_ms")


def bench(job: BenchJob, *, progress: Progress = silent) -> list[Measurement]:
    """Measure every file on every runtime that opens it.

    Every cell is a child process with pinned threads. Cells with the same threads and shape form a group. All cells of
    a group load one after another. Then rounds run on patches of the split (larger fields are assembled from them),
    with the cells in a new random order in each round. Then each file answers the whole split once on each runtime,
    and once more after each perturbation if the plan requires it, from the first of its cells that can. Then the next
    group follows. Cells that are compared were therefore interleaved, and the number of processes is at most the
    number of cells in a group. A cell that fails, or whose runtime is missing, becomes a row with the reason; the
    others continue. An interrupted benchmark leaves no process behind.

    Args:
        job: what to measure; ``valid`` and ``flips`` are not used.
        progress: called after each cell, round and chunk of patches.

    Returns:
        A measurement per cell: by threads, then by shape, the source network first, then in the order of ``models``.

    Raises:
        ConfigError: unknown runtime, or none of the selected runtimes opens any of the files.
        ModelError: a model file is missing.
        DataError: the split is empty or has only one class.
    """
    contenders = _contenders(job)
    judged = _measure(contenders, job, FinishedCells(None, {}), progress)
    return [contender.row for contender in judged.contenders]


def bench_to(out: Path, job: BenchJob, *, progress: Progress = silent) -> None:
    """Measure as ``bench`` into a results file, with figures of the machine in its ``environment``.

    Finished cells are in the folder ``<out>.partial`` until the results are written. A killed benchmark that is started
    again with the same inputs, packages and CPU resumes from there.

    Raises:
        ConfigError, ModelError, DataError: as ``bench``.
        WriteError: ``out`` or ``job.flips`` cannot be written; checked before anything runs.
    """
    contenders = _contenders(job)
    inputs = matrix.bench_inputs(job)
    this_machine = environment.this_machine()
    machine = {name: this_machine[name] for name in ("cpu", "cpus_allowed", "python", "histoedge")}
    finished = FinishedCells(out.with_name(f"{out.name}.partial"), {"inputs": inputs, "machine": machine})
    if job.flips is not None:
        make_folder(job.flips)
    judged = _measure(contenders, job, finished, progress)
    if job.flips is not None:
        _draw_flips(job.flips, judged, job.split)
    about = environment.subject(job.models, job.split) | judged.about
    rows = [contender.row for contender in judged.contenders]
    layers = () if job.valid is None else _layers(judged.contenders, job.valid, job.plan, progress)
    results.write_results(out, rows, inputs=inputs, about=about, layers=layers)
    finished.discard()


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """All cells with complete rows, pairs of file and reference, all answers, and figures of the machine."""

    contenders: Sequence[Contender]
    pairs: Sequence[Pair]
    answers: Answers
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _TimingJob:
    """How to time one group: its number, its name for ``progress``, and the file with pixels that the cells read."""

    plan: BenchPlan
    pixels: Path
    number: int
    progress: Progress
    name: str


def _contenders(job: BenchJob) -> list[Contender]:
    """Return the cells. Check first that both classes are present, because a benchmark can take an hour."""
    metrics.auc(job.split.labels, job.split.labels)
    return matrix.contenders(job)


def _measure(contenders: Sequence[Contender], job: BenchJob, finished: FinishedCells, progress: Progress) -> _Judged:
    groups = _groups(contenders, job.plan)
    about: dict[str, Any] = {"load_average_at_start": environment.load_average()}
    answers = answering.restored(contenders, job.plan, finished)
    timed: list[Contender] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histoedge-")))
        patches = _evenly(job.split, TIMED_PATCHES)
        about["decode"] = decode(patches, seed=job.plan.seed)
        about["empty_rss_bytes"] = _empty_rss_bytes(job.plan)
        for number, cells in enumerate(groups):
            name = "" if len(groups) == 1 else f", group {number + 1} of {len(groups)}"
            stored = finished.restore_group(number, cells)
            with RunningGroup(stored or cells, timeout_s=job.plan.timeout_s) as group:
                if stored is None:
                    pixels = folder / "timed.npy"
                    np.save(pixels, _fields(patches, cells[0].row.field_px, job.plan.seed))
                    timing_job = _TimingJob(plan=job.plan, pixels=pixels, number=number, progress=progress, name=name)
                    _time(group, _load(group, timing_job), timing_job)
                    finished.store_group(number, group.contenders)
                places = [place for place, cell in enumerate(group.contenders) if not _is_ceiling(cell)]
                collecting = AnswerJob(
                    plan=job.plan,
                    split=job.split,
                    pixels=folder / "patches.npy",
                    store=finished.store_answers,
                    progress=progress,
                    group_name=name,
                )
                answering.collect(group, places, answers, collecting)
            timed += group.contenders
    about["integer_peak_gmacs"] = peaks = _peaks([cell for cell in timed if _is_ceiling(cell)])
    machine = Machine(empty_rss_bytes=about["empty_rss_bytes"], peaks=peaks)
    judged, pairs = judge_cells([cell for cell in timed if not _is_ceiling(cell)], answers, job, machine)
    return _Judged(contenders=judged, pairs=pairs, answers=answers, about=about)


def _groups(contenders: Sequence[Contender], plan: BenchPlan) -> list[list[Contender]]:
    """Return the groups, each integer peak in the first group with its number of threads, if that has its field."""
    groups = [list(group) for _, group in groupby(contenders, key=lambda contender: contender.group)]
    usable = sorted({contender.row.threads for contender in contenders if contender.row.status == "ok"})
    for threads in usable if plan.integer_peak else []:
        peaks = [_ceiling_cell(threads, runtime) for runtime in ceiling.RUNTIMES]
        first = next(group for group in groups if group[0].row.threads == threads)
        if first[0].row.field_px == PATCH_PX:
            first += peaks
        else:  # other patches: the peak has its own
            groups.append(peaks)
    return groups


def _ceiling_cell(threads: int, runtime: str) -> Contender:
    """Return a cell that measures the integer peak of a CPU runtime."""
    name = "integer peak"
    row = Measurement(
        model=name,
        recipe="int8",
        format="onnx",
        runtime=runtime,
        threads=threads,
        batch=1,
        field_px=PATCH_PX,
        status="ok",
        macs=ceiling.MACS,
    )
    return Contender(path=Path(name), row=row, command=ceiling.COMMAND)


def _is_ceiling(contender: Contender) -> bool:
    return contender.command is ceiling.COMMAND


def _layers(
    contenders: Sequence[Contender], valid: Split, plan: BenchPlan, progress: Progress
) -> tuple[layer_errors.FileLayers, ...]:
    files = {contender.row.model: contender.path for contender in contenders if is_int8(contender.row)}
    sample = _evenly(valid, layer_errors.SAMPLE_PATCHES)
    return layer_errors.measure_layers(files, sample, timeout_s=plan.timeout_s, progress=progress) if files else ()


def _draw_flips(folder: Path, judged: _Judged, split: Split) -> None:
    """Draw a sheet for every file on a runtime with decisions that differ from its reference's."""
    for contender, reference in judged.pairs:
        row = contender.row
        if row.flips:
            image = sheet.draw_flips(
                split,
                judged.answers.clean[contender.file_on_runtime],
                judged.answers.clean[reference.file_on_runtime],
                threshold_logit=contender.threshold_logit,
                label_px=contender.label_px,
                classes=contender.classes,
                temperature=contender.temperature or 1.0,
                model=f"{row.model} @ {row.runtime}",
                reference_model=row.reference or "",
            )
            write_bytes(folder / f"{row.model.replace('/', '_')}@{row.runtime}.png", image)


def _empty_rss_bytes(plan: BenchPlan) -> int | None:
    """Return the peak memory of a cell that opens no model: Python, numpy and this package."""
    try:
        with Cell(EDGE_COMMAND, timeout_s=plan.timeout_s) as empty:
            peak: int | None = empty.ask("close")["peak_rss_bytes"]
    except CellFailed:
        return None
    return peak


def _evenly(split: Split, count: int) -> np.ndarray:
    """Return at most ``count`` patches of a split, evenly spaced, uint8 (n, S, S, 3)."""
    return np.asarray(split.patches[evenly_spaced(len(split.labels), count)])


def _fields(patches: np.ndarray, field_px: int, seed: int) -> np.ndarray:
    """Return the patches, or larger fields assembled from random patches: uint8 (n, field_px, field_px, 3)."""
    patch_px = patches.shape[1]
    if field_px == patch_px:
        return patches
    side = math.ceil(field_px / patch_px)
    count = max(MIN_FIELDS, TIMED_PATCHES * patch_px**2 // field_px**2)
    drawn = patches[np.random.default_rng(seed).integers(0, len(patches), (count, side, side))]
    fields = drawn.swapaxes(2, 3).reshape(count, side * patch_px, side * patch_px, 3)
    return np.ascontiguousarray(fields[:, :field_px, :field_px])


def _load(group: RunningGroup, job: _TimingJob) -> dict[int, int]:
    """Open every cell, and return the number of calls in a round by its place in the group."""
    calls = {}
    for place, contender in enumerate(group.contenders):
        if contender.row.status == "ok":
            try:
                loaded = group.load(place)
                _check_threads(loaded, contender.row.threads)
                group.add_figures(place, **{key: loaded[key] for key in LOADED_FIGURES})
                few = group.cell(place).time(job.pixels, n=2, batch=contender.row.batch)
                calls[place] = timing.calls_of_a_round(float(few.ms.mean()), job.plan)
            except CellFailed as failure:
                group.fail(place, failure)
        note = group.contenders[place].note
        job.progress(f"bench, cells loaded{job.name}", place + 1, len(group.contenders), note)
    return calls


def _check_threads(loaded: dict[str, Any], threads: int) -> None:
    if loaded["cpus"] is not None and loaded["cpus"] != threads:
        raise CellFailed(f"its threads may use {loaded['cpus']} CPUs, expected {threads}: the runtime moved them")


def _time(group: RunningGroup, calls: dict[int, int], job: _TimingJob) -> None:
    """Time rounds of calls of all cells that need more, each round in a new random order."""
    plan = job.plan
    random = np.random.default_rng([plan.seed, job.number])
    running = [place for place in range(len(group.contenders)) if group.running(place)]
    rounds = 0
    while running:
        for place in random.permutation(running).tolist():
            n, batch = calls[place], group.contenders[place].row.batch
            warmup = min(plan.warmup_runs, n)
            try:
                times = group.cell(place).time(job.pixels, n=n, batch=batch, start=rounds * n, warmup=warmup)
            except CellFailed as failure:
                group.fail(place, failure)
                continue
            group.add_round(place, times)
        rounds += 1
        running = [place for place in running if group.running(place) and _wants_more(group.contenders[place], plan)]
        note = f"{len(running)} of {len(group.contenders)} not settled" if rounds >= plan.rounds and running else ""
        job.progress(f"bench, rounds{job.name}", rounds, max(plan.rounds, rounds + 1) if running else rounds, note)


def _wants_more(contender: Contender, plan: BenchPlan) -> bool:
    """Apply the plan's stop rule; an integer peak has no interval and stops after the minimum number of rounds."""
    if _is_ceiling(contender):
        return len(contender.rounds_ms) < plan.rounds
    return timing.wants_more(contender.rounds_ms, plan)


def _peaks(ceilings: Sequence[Contender]) -> dict[str, dict[str, float]]:
    """Return billions of integer MACs per second at p50, by threads (as in JSON, a string) and runtime."""
    peaks: dict[str, dict[str, float]] = {}
    for cell in ceilings:
        if cell.row.status == "ok" and cell.rounds_ms:
            rate = ceiling.MACS / 1e6 / float(np.median(np.stack(cell.rounds_ms)))
            peaks.setdefault(str(cell.row.threads), {})[cell.row.runtime] = rate
    return peaks
