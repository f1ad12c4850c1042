"""The cells of a benchmark: file x runtime x threads x shape, each on its way to a ``Measurement``."""

import dataclasses
import importlib.util
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import config, edge, files
from histoedge.benchmark import environment, quality
from histoedge.benchmark.results import Measurement
from histoedge.cell import EDGE_COMMAND, KERAS_COMMAND, SOURCE, Cell, CellFailed
from histoedge.config import SCENARIOS, BenchPlan, Shape
from histoedge.data import Split
from histoedge.edge import lookalike
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.edge.manifest import Manifest

KERAS = "keras"
KERAS_MISSING = "the lab is not installed; pip install 'histoedge[lab]'"
_IDENTITY = (
    *("model", "recipe", "format", "network", "runtime", "runtime_version", "kernels", "scenario", "threads", "cpus"),
    *("batch", "field_px", "size_bytes", "compressed_bytes", "zeros", "params", "macs", "sha256"),
)

Answered = tuple[Path, str]
"""A file on a runtime."""


@dataclass
class Contender:
    """One cell of the matrix."""

    path: Path
    row: Measurement
    command: Sequence[str] = EDGE_COMMAND
    fp32: Path | None = None
    """The fp32 file beside it; None for fp32 files and the source network."""
    source: str | None = None
    """SHA-256 of the source network."""
    temperature: float | None = None
    """Of the calibrated probability; None where no manifest tells it."""
    threshold: float | None = None
    """The calibrated probability from which on a patch is called tumour; None where no manifest tells it."""
    cell: Cell | None = None
    calls: int = 0
    """Timed calls in each round; 0 before it has been loaded."""
    rounds_ms: list[np.ndarray] = dataclasses.field(default_factory=list)
    joules: list[float | None] = dataclasses.field(default_factory=list)

    @property
    def file_on_runtime(self) -> Answered:
        """What decides its answers: threads and shape do not."""
        return self.path, self.row.runtime

    @property
    def group(self) -> tuple[int, Shape]:
        """Cells of one group are timed together."""
        return self.row.threads, Shape(self.row.batch, self.row.field_px)

    def set(self, **figures: Any) -> None:
        """Put these into its row."""
        self.row = dataclasses.replace(self.row, **figures)

    @property
    def threshold_logit(self) -> float:
        """The logit from which on a patch is called tumour; 0 where no manifest tells a threshold."""
        if self.threshold is None or self.temperature is None:
            return 0.0
        return quality.threshold_logit(self.threshold, self.temperature)

    @property
    def note(self) -> str:
        """Which cell it is and how it stands, for ``Progress``."""
        name = f"{self.row.model} @ {self.row.runtime}"
        return name if self.row.status == "ok" else f"{name}: {self.row.status}"

    def open(self, timeout_s: float) -> dict[str, Any]:
        """Start its process and load its file; what ``Cell.load`` tells.

        Raises:
            CellFailed: it cannot.
        """
        self.cell = Cell(self.command, threads=self.row.threads, timeout_s=timeout_s)
        shape = {"batch": self.row.batch, "field_px": self.row.field_px}
        return self.cell.load(self.path, runtime=self.row.runtime, **shape)

    def fail(self, failure: CellFailed) -> None:
        """Make its row one that says why it has no figures, and end its process."""
        status = "unavailable" if failure.kind == "RuntimeUnavailable" else "failed"
        kept = {name: getattr(self.row, name) for name in _IDENTITY}
        reason = environment.without_folder(failure.reason, self.path.parent)
        self.row = Measurement(**kept, status=status, reason=reason)
        self.rounds_ms, self.joules = [], []
        self.give_up()

    def give_up(self) -> None:
        """End its process, if it has one."""
        if self.cell is not None:
            self.cell.kill()
            self.cell = None


def find_models(places: Sequence[Path]) -> tuple[list[Path], Path | None]:
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
                raise ModelError(lookalike.told(place))
            sources += [place / SOURCE] if (place / SOURCE).is_file() else []
        elif place.is_file():
            if (other := lookalike.told(place)) is not None:
                raise ModelError(other)
            found = [place]
        else:
            raise ModelError(f"{place}: no such run or model file")
        models += [path for path in found if path not in models]
    if len(set(sources)) > 1:
        raise ConfigError(f"{len(set(sources))} runs at once; bench one run at a time, or name model files")
    return models, sources[0] if sources else None


def bench_inputs(models: Sequence[Path], *, plan: BenchPlan, split: Split, reference: Path | None) -> dict[str, Any]:
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


def contenders(models: Sequence[Path], plan: BenchPlan, reference: Path | None) -> list[Contender]:
    """All cells: by threads, then by shape, then the source network and the files as given, by runtime.

    Raises:
        ConfigError: a runtime of that name does not exist, or none of those chosen opens any of the files.
        ModelError: a model file is missing.
    """
    for name in plan.runtimes:
        if name not in (*edge.known(), KERAS):
            raise config.unknown_name("runtime", name, (*edge.known(), KERAS))
    one_shape = list(_files_on_runtimes(models, plan, reference))
    if not one_shape:
        asked = ", ".join(plan.runtimes) or "any runtime"
        raise ConfigError(f"nothing to measure: none of {len(models)} files can be opened by {asked}")
    allowed = environment.cpus_allowed()
    found = []
    for threads in dict.fromkeys(plan.threads):
        for shape in plan.shapes:
            scenario = next((name for name, one in SCENARIOS.items() if one.shape == shape), None)
            told: dict[str, Any] = {"threads": threads, "scenario": scenario, **dataclasses.asdict(shape)}
            for one in one_shape:
                row = dataclasses.replace(one.row, **told)
                if row.status == "ok" and allowed is not None and threads > allowed:
                    reason = f"{threads} threads asked for, but only {allowed} CPUs may be used here"
                    row = dataclasses.replace(row, status="unavailable", reason=reason)
                found.append(dataclasses.replace(one, row=row, rounds_ms=[], joules=[]))
    return found


def _files_on_runtimes(models: Sequence[Path], plan: BenchPlan, reference: Path | None) -> Iterator[Contender]:
    read = [_read(path) for path in models]
    if reference is not None and (not plan.runtimes or KERAS in plan.runtimes):
        yield _source(reference, [one for one in read if isinstance(one, Manifest)])
    chosen = [edge.known()[name] for name in edge.known() if name in (plan.runtimes or edge.RUNTIMES)]
    for path, name, manifest in zip(models, _names(models), read, strict=True):
        for runtime in chosen:
            if path.suffix[1:] in runtime.formats:
                yield _exported(path, name, manifest, runtime)


def _read(path: Path) -> Manifest | ModelError:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        return manifests.read(path)
    except ModelError as error:
        return error


ONE_PATCH: dict[str, Any] = {"threads": 1, "batch": 1, "field_px": 96}


def _source(weights: Path, beside: Sequence[Manifest]) -> Contender:
    sha256 = _sha256(weights)
    exported = [one for one in beside if one.recipe == "fp32" and one.parents.get("source") == sha256]
    known = {name: getattr(exported[0], name) for name in ("network", "params", "macs")} if exported else {}
    here = importlib.util.find_spec("keras") is not None
    row = Measurement(
        **ONE_PATCH,
        model=weights.name,
        recipe="fp32",
        format=KERAS,
        runtime=KERAS,
        status="ok" if here else "unavailable",
        reason=None if here else KERAS_MISSING,
        size_bytes=weights.stat().st_size,
        sha256=sha256,
        **known,
    )
    decides: dict[str, Any] = {}
    if exported:
        decides = {name: getattr(exported[0], name) for name in ("temperature", "threshold")}
    return Contender(weights, row, KERAS_COMMAND, source=sha256, **decides)


def _exported(path: Path, name: str, manifest: Manifest | ModelError, runtime: edge.Runtime) -> Contender:
    row = Measurement(
        **ONE_PATCH,
        model=name,
        recipe=path.stem,
        format=path.suffix[1:],
        runtime=runtime.name,
        status="ok",
        size_bytes=path.stat().st_size,
        compressed_bytes=len(zlib.compress(path.read_bytes(), 9)),
        sha256=_sha256(path),
    )
    if isinstance(manifest, ModelError):
        reason = environment.without_folder(str(manifest), path.parent)
        return Contender(path, dataclasses.replace(row, status="failed", reason=reason))
    figures = {field: getattr(manifest, field) for field in ("recipe", "network", "params", "macs", "zeros")}
    row = dataclasses.replace(row, **figures)
    if not runtime.installed():
        row = dataclasses.replace(row, status="unavailable", reason=f"not installed; {runtime.install}")
    fp32 = None if manifest.recipe == "fp32" else path.with_name(manifest.fp32)
    source = manifest.parents.get("source")
    told: dict[str, Any] = {"temperature": manifest.temperature, "threshold": manifest.threshold}
    return Contender(path, row, fp32=fp32, source=source, **told)


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
