"""The measurement: load the cells of a group, time them in interleaved rounds, let each file answer the whole split."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.bench import ceiling, environment, matrix, quality, results, timing
from histoedge.bench.decode import decode
from histoedge.bench.kept import Kept
from histoedge.bench.matrix import KERAS, Contender
from histoedge.bench.results import Measurement
from histoedge.cell import CHUNK_PATCHES, EDGE_COMMAND, Cell, CellFailed
from histoedge.config import BenchPlan
from histoedge.data import PATCH_PX, Split
from histoedge.progress import Progress, silent

TIMED_PATCHES = 256  # 7 MB of pixels: enough that no branch predictor or cache learns them by heart
LEAST_FIELDS = 2
GPU_RUNTIMES = ("onnxruntime-cuda", "onnxruntime-tensorrt")

Answered = tuple[Path, str]
"""A file on a runtime."""


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
    put together from these). Then each file answers the whole split once on each runtime, from the first of its
    cells that can, and the next group follows: what is compared was interleaved, and never are more processes alive
    than a group has cells. A cell that fails or whose runtime is missing is a row that says why; the rest goes on.
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
    _measure(contenders, plan, split, Kept(None, {}), progress)
    return [one.row for one in contenders]


def bench_to(
    out: Path,
    models: Sequence[Path],
    *,
    plan: BenchPlan,
    split: Split,
    reference: Path | None = None,
    progress: Progress = silent,
) -> None:
    """As ``bench``, into a results file, with what was measured of the machine itself in its ``environment``.

    What is finished lies in the folder ``<out>.partial`` until the results are written: killed and started again with
    the same inputs, packages and CPU, it goes on there.

    Raises:
        ConfigError, ModelError, DataError: as ``bench``.
        WriteError: ``out`` cannot be written, which is found out before anything runs.
    """
    contenders = _checked(models, plan, split, reference)
    inputs = matrix.inputs_of(models, plan=plan, split=split, reference=reference)
    here = environment.describe()
    machine = {name: here[name] for name in ("cpu", "cpus_allowed", "python", "histoedge")}
    kept = Kept(out.with_name(f"{out.name}.partial"), {"inputs": inputs, "machine": machine})
    about = _measure(contenders, plan, split, kept, progress)
    results.write(out, [one.row for one in contenders], inputs=inputs, about=about)
    kept.discard()


def _checked(models: Sequence[Path], plan: BenchPlan, split: Split, reference: Path | None) -> list[Contender]:
    """The cells, when both classes are there: else there is no point in measuring for an hour."""
    metrics.auc(split.labels, split.labels)
    return matrix.contenders(models, plan, reference)


def _measure(
    contenders: Sequence[Contender], plan: BenchPlan, split: Split, kept: Kept, progress: Progress
) -> dict[str, Any]:
    """Fill the rows of the cells; what was measured of the machine."""
    ceilings = _ceilings(contenders, plan)
    groups = [list(group) for _, group in groupby(contenders, key=lambda one: one.group)]
    numbers = {id(one): number for number, one in enumerate(contenders)}
    about: dict[str, Any] = {"load_average_at_start": environment.load_average()}
    answers: dict[Answered, np.ndarray] = {}
    for one in contenders:
        if (found := kept.answers(numbers[id(one)])) is not None:
            answers.setdefault(one.file_on_runtime, found)
    with ExitStack() as stack:
        for one in (*contenders, *ceilings):
            stack.callback(one.give_up)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histoedge-")))
        patches = _timed_patches(split)
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
            for one in _answer(group, plan, split, folder / "patches.npy", answers, progress, name):
                kept.keep_answers(numbers[id(one)], answers[one.file_on_runtime])
            for one in group:
                one.give_up()
    about["integer_peak_gmacs"] = peaks = _peaks(ceilings)
    _judge(contenders, np.asarray(split.labels), answers, plan, about["empty_rss_bytes"], peaks)
    return about


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


def _timed_patches(split: Split) -> np.ndarray:
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, TIMED_PATCHES).astype(int))
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
                loaded = _opened(one, plan)
                _check_threads(loaded, one.row.threads)
                told = ("runtime_version", "kernels", "cpus", "os_threads", "n_outputs", "load_ms", "first_ms")
                one.set(**{key: loaded[key] for key in told})
                assert one.cell is not None
                few = one.cell.time(file, n=2, batch=one.row.batch)
                one.calls = timing.calls_of_a_round(float(few.ms.mean()), plan)
            except CellFailed as failure:
                one.fail(failure)
        progress(f"bench, cells loaded{name}", done, len(group), _note(one.row))


def _opened(contender: Contender, plan: BenchPlan) -> dict[str, Any]:
    row = contender.row
    contender.cell = Cell(contender.command, threads=row.threads, timeout_s=plan.timeout_s)
    return contender.cell.load(contender.path, runtime=row.runtime, batch=row.batch, field_px=row.field_px)


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


def _answer(
    group: Sequence[Contender],
    plan: BenchPlan,
    split: Split,
    file: Path,
    answers: dict[Answered, np.ndarray],
    progress: Progress,
    name: str,
) -> Iterator[Contender]:
    """Let each file answer on each runtime where none of its cells has yet; give the cells that did, one by one.

    One cell after the other, in chunks: one chunk of pixels is on disk and in memory, however long the split.
    """
    waiting = []
    for one in group:
        if one.row.status == "ok" and not _is_ceiling(one) and one.file_on_runtime not in answers:
            waiting.append(one)
        else:
            one.give_up()
    count = len(split.labels)
    for place, one in enumerate(waiting):
        if one.file_on_runtime not in answers:
            parts = []
            try:
                if one.cell is None:  # its times were kept, its answers were not
                    _opened(one, plan)
                for at in range(0, count, CHUNK_PATCHES):
                    parts.append(_chunk(one, np.asarray(split.patches[at : at + CHUNK_PATCHES]), file))
                    done = place * count + min(at + CHUNK_PATCHES, count)
                    progress(f"bench, test patches{name}", done, len(waiting) * count, _note(one.row))
            except CellFailed as failure:
                one.fail(failure)
                continue
            answers[one.file_on_runtime] = np.concatenate(parts)
            yield one
        one.give_up()


def _chunk(contender: Contender, patches: np.ndarray, file: Path) -> np.ndarray:
    assert contender.cell is not None
    np.save(file, patches)
    logits = contender.cell.predict_file(file).reshape(-1)
    if len(logits) != len(patches):
        raise CellFailed(f"{len(logits)} logits for {len(patches)} patches")
    if not np.isfinite(logits).all():
        raise CellFailed(f"{np.count_nonzero(~np.isfinite(logits))} logits are not finite")
    return logits


def _peaks(ceilings: Sequence[Contender]) -> dict[str, dict[str, float]]:
    """Billions of integer MACs per second at p50, by threads and runtime, as JSON knows keys."""
    found: dict[str, dict[str, float]] = {}
    for one in ceilings:
        if one.row.status == "ok" and one.rounds_ms:
            rate = ceiling.MACS / 1e6 / float(np.median(np.stack(one.rounds_ms)))
            found.setdefault(str(one.row.threads), {})[one.row.runtime] = rate
    return found


def _judge(
    contenders: Sequence[Contender],
    labels: np.ndarray,
    answers: dict[Answered, np.ndarray],
    plan: BenchPlan,
    empty_rss_bytes: int | None,
    peaks: dict[str, dict[str, float]],
) -> None:
    """Turn times and logits into figures, and compare each file with its reference."""
    done = [one for one in contenders if one.row.status == "ok"]
    qualities: dict[Answered, dict[str, Any]] = {}
    for one in done:
        at = one.file_on_runtime
        if at not in qualities:
            logits, temperature = answers[at], one.temperature
            qualities[at] = quality.figures(labels, logits, temperature=temperature, seed=plan.seed)
        one.set(**qualities[at])
        _cost(one, plan, empty_rss_bytes, max(peaks.get(str(one.row.threads), {}).values(), default=None))
    at_place = {(one.path, one.row.runtime, one.group): one for one in done}
    sources = {one.group: one for one in done if one.row.runtime == KERAS}
    differences: dict[tuple[Answered, Answered], dict[str, Any]] = {}
    for one in done:
        source = sources.get(one.group)
        reference = source if one.fp32 is None else at_place.get((one.fp32, one.row.runtime, one.group))
        if reference is None or reference is one or reference.source != one.source:
            continue
        pair = one.file_on_runtime, reference.file_on_runtime
        if pair not in differences:
            differences[pair] = quality.difference(labels, answers[pair[0]], answers[pair[1]])
        one.set(reference=f"{reference.row.model} @ {reference.row.runtime}", **differences[pair])
        if reference is not source:
            shared = min(len(one.rounds_ms), len(reference.rounds_ms))  # rounds that ran side by side
            times = np.stack(one.rounds_ms[:shared]), np.stack(reference.rounds_ms[:shared])
            ratio = metrics.ratio_of_medians(*times, seed=plan.seed)
            one.set(p50_ratio=ratio.value, p50_ratio_lo=ratio.lo, p50_ratio_hi=ratio.hi)


def _cost(contender: Contender, plan: BenchPlan, empty_rss_bytes: int | None, peak_gmacs: float | None) -> None:
    """Time, memory, energy and share of the machine's integer peak of one cell."""
    row = contender.row
    speed = timing.figures(contender.rounds_ms, outputs=row.n_outputs or 1, seed=plan.seed)
    reason = timing.unsettled(contender.rounds_ms, plan)
    figures: dict[str, Any] = {**speed, "status": "ok" if reason is None else "unsettled", "reason": reason}
    if row.peak_rss_bytes is not None and empty_rss_bytes is not None:
        figures["rss_over_empty_bytes"] = row.peak_rss_bytes - empty_rss_bytes
    spent = [joules for joules in contender.joules if joules is not None]
    if spent and len(spent) == len(contender.joules):
        figures["energy_mj"] = 1e3 * sum(spent) / speed["n_calls"]
    on_cpu = row.runtime not in GPU_RUNTIMES
    if peak_gmacs is not None and row.macs is not None and row.field_px == PATCH_PX and on_cpu:
        figures["peak_share"] = row.macs * row.batch / (1e6 * speed["p50_ms"]) / peak_gmacs
    pixels = row.batch * row.field_px**2
    figures["mpx_per_s"] = speed["patches_per_s"] * pixels / (row.n_outputs or 1) / 1e6
    contender.set(**figures)


def _note(row: Measurement) -> str:
    return f"{row.model} @ {row.runtime}" + ("" if row.status == "ok" else f": {row.status}")
