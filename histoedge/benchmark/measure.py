"""The measurement: load the cells of a group, time them in interleaved rounds, let each file answer the whole split."""

import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.benchmark import answers as asking
from histoedge.benchmark import ceiling, environment, layer_errors, matrix, results, sheet, timing
from histoedge.benchmark import judge as judging
from histoedge.benchmark.decode import decode
from histoedge.benchmark.matrix import Contender
from histoedge.benchmark.results import Measurement
from histoedge.benchmark.resume import FinishedCells
from histoedge.cell import EDGE_COMMAND, Cell, CellFailed
from histoedge.config import BenchPlan
from histoedge.data import PATCH_PX, Split
from histoedge.files import make_folder, write_bytes
from histoedge.progress import Progress, silent

TIMED_PATCHES = 256  # 7 MB of pixels: enough that no branch predictor or cache learns them by heart
LEAST_FIELDS = 2


def bench(
    models: Sequence[Path],
    *,
    plan: BenchPlan,
    split: Split,
    reference: Path | None = None,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure every file on every runtime that opens it.

    Every cell is a child process with pinned threads. Cells of the same threads and shape form a group: all load
    one after the other, then rounds run, cells in a new random order in each, on patches of the split (fields are
    put together from these). Then each file answers the whole split once on each runtime (and once more after each
    perturbation, where the plan asks for it), from the first of its cells that can, and the next group follows: what
    is compared was interleaved, and never are more processes alive than a group has cells. A cell that fails or whose
    runtime is missing is a row that says why; the rest goes on.
    Interrupted, it leaves no process behind.

    Args:
        models: exported files with their manifests.
        plan: what to measure; ``plan.runtimes`` chooses among all that open a file.
        split: the test patches, both classes.
        reference: weights of the source network, measured as runtime ``keras``.
        progress: called as each cell, round and chunk of patches ends.

    Returns:
        A measurement per cell: by threads, then by shape, the source network first, then as in ``models``.

    Raises:
        ConfigError: a runtime of that name does not exist, or none of those chosen opens any of the files.
        ModelError: a model file is missing.
        DataError: the split is empty or has one class.
    """
    contenders = _checked(models, plan, split, reference)
    _measure(contenders, plan, split, FinishedCells(None, {}), progress)
    return [one.row for one in contenders]


def bench_to(
    out: Path,
    models: Sequence[Path],
    *,
    plan: BenchPlan,
    split: Split,
    reference: Path | None = None,
    valid: Split | None = None,
    flips: Path | None = None,
    progress: Progress = silent,
) -> None:
    """As ``bench``, into a results file, with what was measured of the machine itself in its ``environment``.

    What is finished lies in the folder ``<out>.partial`` until the results are written: killed and started again with
    the same inputs, packages and CPU, it goes on there.

    With ``valid``, the split of that name, the results also tell the error of each layer of int8 files, on a sample of
    its patches (``bench.layers``); the files must lie in their run.

    ``flips`` is a folder for ``<model>@<runtime>.png``, the sheet of ``bench.sheet`` of every file that decides
    otherwise than its reference. They are files of their own, because they show patches of the data set, which a
    results file that is passed on or committed should not; the report takes those that it is given.

    Raises:
        ConfigError, ModelError, DataError: as ``bench``.
        WriteError: ``out`` or ``flips`` cannot be written, which is found out before anything runs.
    """
    contenders = _checked(models, plan, split, reference)
    inputs = matrix.bench_inputs(models, plan=plan, split=split, reference=reference)
    here = environment.this_machine()
    machine = {name: here[name] for name in ("cpu", "cpus_allowed", "python", "histoedge")}
    kept = FinishedCells(out.with_name(f"{out.name}.partial"), {"inputs": inputs, "machine": machine})
    if flips is not None:
        make_folder(flips)
    about = environment.subject(models, split) | _measure(contenders, plan, split, kept, progress, flips)
    rows = [one.row for one in contenders]
    found = () if valid is None else _layers(contenders, valid, plan, progress)
    results.write_results(out, rows, inputs=inputs, about=about, layers=found)
    kept.discard()


def _checked(models: Sequence[Path], plan: BenchPlan, split: Split, reference: Path | None) -> list[Contender]:
    """The cells, when both classes are there: else there is no point in measuring for an hour."""
    metrics.auc(split.labels, split.labels)
    return matrix.contenders(models, plan, reference)


def _measure(
    contenders: Sequence[Contender],
    plan: BenchPlan,
    split: Split,
    kept: FinishedCells,
    progress: Progress,
    flips: Path | None = None,
) -> dict[str, Any]:
    """Fill the rows of the cells; what was measured of the machine."""
    ceilings = _ceilings(contenders, plan)
    groups = [list(group) for _, group in groupby(contenders, key=lambda one: one.group)]
    numbers = {id(one): number for number, one in enumerate(contenders)}

    def keep(one: Contender, logits: np.ndarray, perturbation: str | None) -> None:
        kept.keep_answers(numbers[id(one)], logits, perturbation)

    about: dict[str, Any] = {"load_average_at_start": environment.load_average()}
    answers = asking.restored(contenders, plan, kept)
    with ExitStack() as stack:
        for one in (*contenders, *ceilings):
            stack.callback(one.give_up)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histoedge-")))
        patches = _evenly(split, TIMED_PATCHES)
        about["decode"] = decode(patches, seed=plan.seed)
        about["empty_rss_bytes"] = _empty_rss_bytes(plan)
        for number, group in enumerate(groups):
            threads = group[0].row.threads
            group += [
                one for one in ceilings if one.row.threads == threads and one.row.status == "ok" and not one.rounds_ms
            ]
            name = "" if len(groups) == 1 else f", group {number + 1} of {len(groups)}"
            if not kept.restore_group(number, group):
                np.save(folder / "timed.npy", _fields(patches, group[0].row.field_px, plan.seed))
                _load(group, plan, folder / "timed.npy", progress, name)
                _time(group, plan, folder / "timed.npy", progress, name, seed=number)
                kept.keep_group(number, group)
            files = [one for one in group if not _is_ceiling(one)]
            pixels = folder / "patches.npy"
            asked: dict[str, Any] = {"plan": plan, "split": split, "file": pixels, "keep": keep}
            asking.ask(files, answers, **asked, progress=progress, name=name)
            for one in group:
                one.give_up()
    about["integer_peak_gmacs"] = peaks = _peaks(ceilings)
    empty = about["empty_rss_bytes"]
    pairs = judging.judge_cells(contenders, answers, plan=plan, split=split, empty_rss_bytes=empty, peaks=peaks)
    if flips is not None:
        _draw_flips(flips, pairs, answers, split)
    return about


def _layers(
    contenders: Sequence[Contender], valid: Split, plan: BenchPlan, progress: Progress
) -> tuple[layer_errors.FileLayers, ...]:
    files = {one.row.model: one.path for one in contenders if results.is_int8(one.row)}
    sample = _evenly(valid, layer_errors.SAMPLE_PATCHES)
    return layer_errors.measure_layers(files, sample, timeout_s=plan.timeout_s, progress=progress) if files else ()


def _draw_flips(folder: Path, pairs: Sequence[judging.Pair], answers: asking.Answers, split: Split) -> None:
    """A sheet for every file on a runtime that decides otherwise than its reference."""
    for one, reference in pairs:
        if one.row.flips:
            logits, before = (answers.clean[pair.file_on_runtime] for pair in (one, reference))
            names: dict[str, Any] = {
                "model": f"{one.row.model} @ {one.row.runtime}",
                "reference_model": one.row.reference or "",
            }
            at: dict[str, Any] = {"threshold_logit": one.threshold_logit, "temperature": one.temperature or 1.0}
            drawn = sheet.draw_flips(split, logits, before, **at, **names)
            write_bytes(folder / f"{one.row.model.replace('/', '_')}@{one.row.runtime}.png", drawn)


def _ceilings(contenders: Sequence[Contender], plan: BenchPlan) -> list[Contender]:
    """A cell for every count of threads and CPU runtime that can say how fast the machine multiplies integers."""
    usable = sorted({one.row.threads for one in contenders if one.row.status == "ok"})
    found = []
    for threads in usable if plan.integer_peak else []:
        for name in ceiling.RUNTIMES:
            told: dict[str, Any] = {"model": "integer peak", "recipe": "int8", "format": "onnx", "runtime": name}
            row = Measurement(**told, threads=threads, batch=1, field_px=PATCH_PX, status="ok", macs=ceiling.MACS)
            found.append(Contender(Path("integer peak"), row, ceiling.COMMAND))
    return found


def _is_ceiling(contender: Contender) -> bool:
    return contender.command is ceiling.COMMAND


def _empty_rss_bytes(plan: BenchPlan) -> int | None:
    """The peak of a cell that opens nothing: Python, numpy and this package."""
    try:
        with Cell(EDGE_COMMAND, timeout_s=plan.timeout_s) as empty:
            found: int | None = empty.ask("close")["peak_rss_bytes"]
    except CellFailed:
        return None
    return found


def _evenly(split: Split, most: int) -> np.ndarray:
    """At most so many patches of a split, uint8 (n, 96, 96, 3), evenly spaced."""
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, most).astype(int))
    return np.asarray(split.patches[chosen])


def _fields(patches: np.ndarray, field_px: int, seed: int) -> np.ndarray:
    """The patches, or larger fields put together from patches drawn among them: uint8 (n, field_px, field_px, 3)."""
    if field_px == PATCH_PX:
        return patches
    side = math.ceil(field_px / PATCH_PX)
    count = max(LEAST_FIELDS, TIMED_PATCHES * PATCH_PX**2 // field_px**2)
    drawn = patches[np.random.default_rng(seed).integers(0, len(patches), (count, side, side))]
    fields = drawn.swapaxes(2, 3).reshape(count, side * PATCH_PX, side * PATCH_PX, 3)
    return np.ascontiguousarray(fields[:, :field_px, :field_px])


def _load(group: Sequence[Contender], plan: BenchPlan, file: Path, progress: Progress, name: str) -> None:
    """Open every cell and find out how many calls fit into a round."""
    for done, one in enumerate(group, start=1):
        if one.row.status == "ok":
            try:
                loaded = one.open(plan.timeout_s)
                _check_threads(loaded, one.row.threads)
                told = ("runtime_version", "kernels", "cpus", "os_threads", "n_outputs", "load_ms", "first_ms")
                one.set(**{key: loaded[key] for key in told})
                assert one.cell is not None
                few = one.cell.time(file, n=2, batch=one.row.batch)
                one.calls = timing.calls_of_a_round(float(few.ms.mean()), plan)
            except CellFailed as failure:
                one.fail(failure)
        progress(f"bench, cells loaded{name}", done, len(group), one.note)


def _check_threads(loaded: dict[str, Any], threads: int) -> None:
    if loaded["cpus"] is not None and loaded["cpus"] != threads:
        raise CellFailed(f"its threads may run on {loaded['cpus']} CPUs, expected {threads}: the runtime moved them")


def _time(group: Sequence[Contender], plan: BenchPlan, file: Path, progress: Progress, name: str, *, seed: int) -> None:
    """Rounds of calls of all cells that still need some, each round in another random order."""
    random = np.random.default_rng([plan.seed, seed])
    running = [one for one in group if one.cell is not None]
    number = 0
    while running:
        for index in random.permutation(len(running)):
            one = running[index]
            assert one.cell is not None
            warmup = min(plan.warmup_runs, one.calls)
            try:
                times = one.cell.time(file, n=one.calls, batch=one.row.batch, start=number * one.calls, warmup=warmup)
            except CellFailed as failure:
                one.fail(failure)
                continue
            one.rounds_ms.append(times.ms)
            one.joules.append(times.joules)
            one.set(peak_rss_bytes=times.peak_rss_bytes)
        number += 1
        running = [one for one in running if one.cell is not None and _wants_more(one, plan)]
        note = f"{len(running)} of {len(group)} not settled" if number >= plan.rounds and running else ""
        total = max(plan.rounds, number + 1) if running else number
        progress(f"bench, rounds{name}", number, total, note)


def _wants_more(contender: Contender, plan: BenchPlan) -> bool:
    """By the plan's stop rule; a ceiling, of which no interval is told, is timed for the least number of rounds."""
    if _is_ceiling(contender):
        return len(contender.rounds_ms) < plan.rounds
    return timing.wants_more(contender.rounds_ms, plan)


def _peaks(ceilings: Sequence[Contender]) -> dict[str, dict[str, float]]:
    """Billions of integer MACs per second at p50, by threads and runtime, as JSON knows keys."""
    found: dict[str, dict[str, float]] = {}
    for one in ceilings:
        if one.row.status == "ok" and one.rounds_ms:
            rate = ceiling.MACS / 1e6 / float(np.median(np.stack(one.rounds_ms)))
            found.setdefault(str(one.row.threads), {})[one.row.runtime] = rate
    return found
