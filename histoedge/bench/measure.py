"""The measurement: load every cell, time all in interleaved rounds, then let all answer the whole split."""

import dataclasses
import importlib.util
import json
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import config, edge, files, metrics
from histoedge.bench import environment, quality
from histoedge.bench.results import Measurement
from histoedge.cell import CHUNK_PATCHES, EDGE_COMMAND, KERAS_COMMAND, SOURCE, Cell, CellFailed
from histoedge.config import BenchPlan
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.edge.manifest import Manifest
from histoedge.progress import Progress, silent

KERAS = "keras"
KERAS_MISSING = "the lab is not installed; pip install 'histoedge[lab]'"
TIMED_PATCHES = 256  # 7 MB of pixels: enough that no branch predictor or cache learns them by heart
SETTLED_WIDTH = 0.10  # p50 repeats to about 1 % even on a shared machine: a tenth means that something disturbed it


@dataclass
class _Contender:
    """One cell of the matrix on its way to a ``Measurement``."""

    path: Path
    row: Measurement
    fp32: Path | None
    source: str | None
    """SHA-256 of the source network."""
    temperature: float | None = None
    """Of the calibrated probability; None where no manifest tells it."""
    cell: Cell | None = None
    rounds_ms: list[np.ndarray] = dataclasses.field(default_factory=list)
    logits: list[np.ndarray] = dataclasses.field(default_factory=list)

    def set(self, **figures: Any) -> None:
        self.row = dataclasses.replace(self.row, **figures)

    def fail(self, failure: CellFailed) -> None:
        status = "unavailable" if failure.kind == "RuntimeUnavailable" else "failed"
        identity = ("model", "recipe", "format", "network", "runtime", "runtime_version", "kernels", "threads", "cpus")
        also = ("batch", "field_px", "size_bytes", "compressed_bytes", "zeros", "params", "macs", "sha256")
        kept = {name: getattr(self.row, name) for name in (*identity, *also)}
        self.row = Measurement(**kept, status=status, reason=failure.reason)
        self.give_up()

    def give_up(self) -> None:
        if self.cell is not None:
            self.cell.kill()
            self.cell = None


def find(places: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """The exported files that these places name, and the weights of the source network where a run was named.

    Args:
        places: run directories (their ``models``) or model files.

    Raises:
        ModelError: a place that holds no exported file.
        ConfigError: more than one run: their files would be compared with the wrong source network.
    """
    models: list[Path] = []
    sources: list[Path] = []
    for place in places:
        if place.is_dir():
            found = sorted(path for path in (place / "models").glob("*") if path.suffix[1:] in config.FORMATS)
            if not found:
                raise ModelError(f"{place}: no exported files in its models folder; expected a run or a model file")
            sources += [place / SOURCE] if (place / SOURCE).is_file() else []
        elif place.is_file():
            found = [place]
        else:
            raise ModelError(f"{place}: no such run or model file")
        models += [path for path in found if path not in models]
    if len(set(sources)) > 1:
        raise ConfigError(f"{len(set(sources))} runs at once; bench one run at a time, or name model files")
    return models, sources[0] if sources else None


def inputs_of(models: Sequence[Path], *, plan: BenchPlan, split: Split, reference: Path | None) -> dict[str, Any]:
    """What a measurement depends on, as JSON: plan, data, every model's SHA-256, installed packages.

    Raises:
        ModelError: a model file is missing.
    """
    content = {
        "plan": dataclasses.asdict(plan),
        "data": split.content_hash,
        "models": {name: _sha256(path) for name, path in zip(_names(models), models, strict=True)},
        "source": None if reference is None else _sha256(reference),
        "packages": environment.packages(),
    }
    return json.loads(json.dumps(content))  # type: ignore[no-any-return]


def bench(
    models: Sequence[Path],
    *,
    plan: BenchPlan,
    split: Split,
    reference: Path | None = None,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure every file on every runtime that opens it.

    Every cell is a child process with pinned threads. All load one after the other; then ``plan.rounds`` rounds
    run, cells in a new random order in each, on patches of the split; then all answer the whole split. A
    cell that fails or whose runtime is missing is a row that says why; the rest goes on. Interrupted, it leaves
    no process behind.

    Args:
        models: exported files with their manifests.
        plan: what to measure; ``plan.runtimes`` chooses among all that open a file.
        split: the test patches, both classes.
        reference: weights of the source network, measured as runtime ``keras``.
        progress: called as each cell, round and chunk of patches ends.

    Returns:
        A measurement per file and runtime, the source network first, then as in ``models``.

    Raises:
        ConfigError: a runtime of that name does not exist, or none of those chosen opens any of the files.
        ModelError: a model file is missing.
        DataError: the split is empty or has one class.
    """
    labels = np.asarray(split.labels)
    metrics.auc(labels, labels)  # both classes are there, or there is no point in measuring for an hour
    contenders = _matrix(models, plan, reference)
    with ExitStack() as stack:
        for contender in contenders:
            stack.callback(contender.give_up)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histoedge-")))
        for done, contender in enumerate(contenders, start=1):
            if contender.row.status == "ok":
                _load(contender, plan)
            progress("bench, cells loaded", done, len(contenders), _note(contender.row))
        _time(contenders, plan, split, folder / "timed.npy", progress)
        _answer(contenders, split, folder / "patches.npy", progress)
    _judge(contenders, labels, plan)
    return [contender.row for contender in contenders]


def _matrix(models: Sequence[Path], plan: BenchPlan, reference: Path | None) -> list[_Contender]:
    for name in plan.runtimes:
        if name not in (*edge.RUNTIMES, KERAS):
            raise config.nearest("runtime", name, (*edge.RUNTIMES, KERAS))
    read = [_read(path) for path in models]
    contenders = []
    if reference is not None and (not plan.runtimes or KERAS in plan.runtimes):
        contenders.append(_source(reference, [one for one in read if isinstance(one, Manifest)], plan))
    for path, name, manifest in zip(models, _names(models), read, strict=True):
        for runtime in edge.RUNTIMES.values():
            if path.suffix[1:] in runtime.formats and (not plan.runtimes or runtime.name in plan.runtimes):
                contenders.append(_exported(path, name, manifest, runtime, plan))
    if not contenders:
        asked = ", ".join(plan.runtimes) or "any runtime"
        raise ConfigError(f"nothing to measure: none of {len(models)} files can be opened by {asked}")
    return contenders


def _read(path: Path) -> Manifest | ModelError:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        return manifests.read(path)
    except ModelError as error:
        return error


def _source(weights: Path, beside: Sequence[Manifest], plan: BenchPlan) -> _Contender:
    sha256 = _sha256(weights)
    exported = [one for one in beside if one.recipe == "fp32" and one.parents.get("source") == sha256]
    known = {name: getattr(exported[0], name) for name in ("network", "params", "macs")} if exported else {}
    here = importlib.util.find_spec("keras") is not None
    row = Measurement(
        model=weights.name,
        recipe="fp32",
        format=KERAS,
        runtime=KERAS,
        threads=plan.threads,
        batch=plan.batch,
        field_px=96,
        status="ok" if here else "unavailable",
        reason=None if here else KERAS_MISSING,
        size_bytes=weights.stat().st_size,
        sha256=sha256,
        **known,
    )
    temperature = exported[0].temperature if exported else None
    return _Contender(weights, row, fp32=None, source=sha256, temperature=temperature)


def _exported(
    path: Path, name: str, manifest: Manifest | ModelError, runtime: edge.Runtime, plan: BenchPlan
) -> _Contender:
    row = Measurement(
        model=name,
        recipe=path.stem,
        format=path.suffix[1:],
        runtime=runtime.name,
        threads=plan.threads,
        batch=plan.batch,
        field_px=96,
        status="ok",
        size_bytes=path.stat().st_size,
        compressed_bytes=len(zlib.compress(path.read_bytes(), 9)),
        sha256=_sha256(path),
    )
    if isinstance(manifest, ModelError):
        failed = dataclasses.replace(row, status="failed", reason=str(manifest))
        return _Contender(path, failed, fp32=None, source=None)
    figures = {field: getattr(manifest, field) for field in ("recipe", "network", "params", "macs", "zeros")}
    row = dataclasses.replace(row, **figures)
    if not runtime.installed():
        row = dataclasses.replace(row, status="unavailable", reason=f"not installed; {runtime.install}")
    fp32 = None if manifest.recipe == "fp32" else path.with_name(manifest.fp32)
    source = manifest.parents.get("source")
    return _Contender(path, row, fp32=fp32, source=source, temperature=manifest.temperature)


def _load(contender: _Contender, plan: BenchPlan) -> None:
    command = KERAS_COMMAND if contender.row.runtime == KERAS else EDGE_COMMAND
    try:
        contender.cell = Cell(command, threads=plan.threads, timeout_s=plan.timeout_s)
        loaded = contender.cell.load(contender.path, runtime=contender.row.runtime, batch=plan.batch)
    except CellFailed as failure:
        contender.fail(failure)
        return
    contender.set(**{name: loaded[name] for name in ("runtime_version", "kernels", "cpus", "load_ms", "first_ms")})


def _time(contenders: Sequence[_Contender], plan: BenchPlan, split: Split, file: Path, progress: Progress) -> None:
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, TIMED_PATCHES).astype(int))
    np.save(file, np.asarray(split.patches[chosen]))
    random = np.random.default_rng(plan.seed)
    for number in range(plan.rounds):
        running = [contender for contender in contenders if contender.cell is not None]
        for index in random.permutation(len(running)):
            contender = running[index]
            assert contender.cell is not None
            settings = {"n": plan.runs_per_round, "batch": plan.batch, "warmup": plan.warmup_runs}
            try:
                times, peak = contender.cell.time(file, start=number * plan.runs_per_round, **settings)
            except CellFailed as failure:
                contender.fail(failure)
                continue
            contender.rounds_ms.append(times)
            contender.set(peak_rss_bytes=peak)
        progress("bench, rounds", number + 1, plan.rounds)


def _answer(contenders: Sequence[_Contender], split: Split, file: Path, progress: Progress) -> None:
    """All cells predict one chunk before the next is written: one chunk on disk, however long the split."""
    count = len(split.labels)
    for at in range(0, count, CHUNK_PATCHES):
        np.save(file, np.asarray(split.patches[at : at + CHUNK_PATCHES]))
        for contender in contenders:
            if contender.cell is None:
                continue
            try:
                logits = contender.cell.predict_file(file).reshape(-1)
                if len(logits) != min(CHUNK_PATCHES, count - at):
                    raise CellFailed(f"{len(logits)} logits for {min(CHUNK_PATCHES, count - at)} patches")
                if not np.isfinite(logits).all():
                    raise CellFailed(f"{np.count_nonzero(~np.isfinite(logits))} logits are not finite")
            except CellFailed as failure:
                contender.fail(failure)
                continue
            contender.logits.append(logits)
        progress("bench, test patches", min(at + CHUNK_PATCHES, count), count)


def _judge(contenders: Sequence[_Contender], labels: np.ndarray, plan: BenchPlan) -> None:
    """Turn times and logits into figures, and compare each file with its reference."""
    done = [contender for contender in contenders if contender.row.status == "ok"]
    places = {(contender.path, contender.row.runtime): contender for contender in done}
    for contender in done:
        contender.set(**_speed(np.stack(contender.rounds_ms), plan))
        logits, temperature = np.concatenate(contender.logits), contender.temperature
        contender.set(**quality.figures(labels, logits, temperature=temperature, seed=plan.seed))
    source = next((contender for contender in done if contender.row.runtime == KERAS), None)
    for contender in done:
        reference = source if contender.fp32 is None else places.get((contender.fp32, contender.row.runtime))
        if reference is None or reference is contender or reference.source != contender.source:
            continue
        answers = np.concatenate(contender.logits), np.concatenate(reference.logits)
        contender.set(reference=f"{reference.row.model} @ {reference.row.runtime}")
        contender.set(**quality.difference(labels, *answers))
        if reference is not source:
            ratio = metrics.ratio_of_medians(contender.rounds_ms, reference.rounds_ms, seed=plan.seed)
            contender.set(p50_ratio=ratio.value, p50_ratio_lo=ratio.lo, p50_ratio_hi=ratio.hi)


def _speed(rounds_ms: np.ndarray, plan: BenchPlan) -> dict[str, Any]:
    p50 = metrics.median(rounds_ms, seed=plan.seed)
    p90, p95, p99 = (float(one) for one in np.quantile(rounds_ms, (0.90, 0.95, 0.99)))
    reason = None
    if len(rounds_ms) == 1:
        reason = "one round shows no spread; measure several"
    elif p50.relative_width > SETTLED_WIDTH:
        reason = f"the interval of p50 is {p50.relative_width:.0%} of p50 wide; measure longer or on a quieter machine"
    return {
        "status": "ok" if reason is None else "unsettled",
        "reason": reason,
        "p50_ms": p50.value,
        "p50_lo": p50.lo,
        "p50_hi": p50.hi,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "n_calls": rounds_ms.size,
        "patches_per_s": 1e3 * plan.batch / float(rounds_ms.mean()),
    }


def _note(row: Measurement) -> str:
    return f"{row.model} @ {row.runtime}" + ("" if row.status == "ok" else f": {row.status}")


def _sha256(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def _names(models: Sequence[Path]) -> list[str]:
    """File names, with as many folders in front as tell them apart."""
    for length in range(1, max((len(path.parts) for path in models), default=0) + 1):
        names = ["/".join(path.parts[-length:]) for path in models]
        if len(set(names)) == len(set(models)):
            return names
    return [path.name for path in models]
