"""The cells of a benchmark: file x runtime x threads x shape."""

import dataclasses
import importlib.util
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import config, cpus, edge, files
from histoedge.benchmark import environment
from histoedge.benchmark.result_row import Measurement
from histoedge.cell import EDGE_COMMAND, KERAS_COMMAND, SOURCE, CellFailed
from histoedge.config import SCENARIOS, BenchPlan, Shape
from histoedge.data import Split
from histoedge.edge import lookalike
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.edge.manifest import Manifest
from histoedge.edge.patches import LABEL_PX, PATCH_PX

KERAS = "keras"
KERAS_MISSING = "the lab is not installed; pip install 'histoedge[lab]'"
_IDENTITY = (
    *("model", "recipe", "format", "network", "runtime", "runtime_version", "kernels", "scenario", "threads", "cpus"),
    *("batch", "field_px", "size_bytes", "compressed_bytes", "zeros", "params", "macs", "sha256"),
)

FileOnRuntime = tuple[Path, str]
"""A file on a runtime: its answers do not depend on threads and shape."""


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """The inputs of a benchmark.

    Args:
        models: exported files with their manifests.
        plan: what to measure; ``plan.runtimes`` selects from all runtimes that open a file.
        split: the test patches, both classes.
        reference: weights of the source network, measured as runtime ``keras``.
        valid: the valid split, for the error of each layer of int8 files (``benchmark.layer_errors``); the files must
            be in their run. None: layers are not measured.
        flips: folder for sheets of the decisions that differ from the reference's (``benchmark.sheet``), one
            ``<model>@<runtime>.png`` per file. They are separate files because they show patches of the data set,
            which a published results file should not. None: nothing is drawn.
    """

    models: Sequence[Path]
    plan: BenchPlan
    split: Split
    reference: Path | None = None
    valid: Split | None = None
    flips: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One cell of the matrix with what has been measured of it so far.

    ``number`` is its place in the benchmark. ``fp32`` is the fp32 file next to the model, None for fp32 files and the
    source network. ``source`` is the SHA-256 of the source network. ``temperature`` and ``threshold`` are the
    manifest's, None without one; ``patch_px``, ``label_px``, ``classes`` and ``is_dense`` are the manifest's too.
    ``rounds_ms`` are the times of the calls of each round, ``joules`` their energy.
    """

    path: Path
    row: Measurement
    number: int = 0
    command: Sequence[str] = EDGE_COMMAND
    fp32: Path | None = None
    source: str | None = None
    temperature: float | None = None
    threshold: float | None = None
    patch_px: int | None = None
    label_px: int = LABEL_PX
    classes: tuple[str, str] = manifests.CLASSES
    is_dense: bool = True
    rounds_ms: tuple[np.ndarray, ...] = ()
    joules: tuple[float | None, ...] = ()

    @property
    def file_on_runtime(self) -> FileOnRuntime:
        """The file and the runtime."""
        return self.path, self.row.runtime

    @property
    def group(self) -> tuple[int, Shape]:
        """Threads and shape; the cells of a group are timed together."""
        return self.row.threads, Shape(self.row.batch, self.row.field_px)

    @property
    def threshold_logit(self) -> float:
        """The logit from which a patch is called positive; 0 without a manifest."""
        if self.threshold is None or self.temperature is None:
            return 0.0
        return manifests.threshold_logit(self.threshold, self.temperature)

    @property
    def note(self) -> str:
        """Model, runtime and any status but ``ok``, for ``Progress``."""
        name = f"{self.row.model} @ {self.row.runtime}"
        return name if self.row.status == "ok" else f"{name}: {self.row.status}"

    def with_figures(self, **figures: Any) -> "Contender":
        """Return the cell with these fields of its row replaced."""
        return dataclasses.replace(self, row=dataclasses.replace(self.row, **figures))

    def failed(self, failure: CellFailed) -> "Contender":
        """Return the cell without figures, with the reason of the failure."""
        status = "unavailable" if failure.kind == "RuntimeUnavailable" else "failed"
        identity = {name: getattr(self.row, name) for name in _IDENTITY}
        reason = environment.without_folder(failure.reason, self.path.parent)
        row = Measurement(**identity, status=status, reason=reason)
        return dataclasses.replace(self, row=row, rounds_ms=(), joules=())


def find_models(places: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """Return the exported files at these places, and the weights of the source network if a place is a run.

    Args:
        places: run directories (their ``models``) or model files.

    Raises:
        ModelError: a place contains no exported file.
        ConfigError: more than one run; files would be compared with the wrong source network.
    """
    models: list[Path] = []
    sources: list[Path] = []
    for place in places:
        if place.is_dir():
            exported = sorted(path for path in (place / "models").glob("*") if path.suffix[1:] in manifests.FORMATS)
            if not exported:
                raise ModelError(lookalike.explain_path(place))
            sources += [place / SOURCE] if (place / SOURCE).is_file() else []
        elif place.is_file():
            if (other := lookalike.explain_path(place)) is not None:
                raise ModelError(other)
            exported = [place]
        else:
            raise ModelError(f"{place}: no such run or model file")
        models += [path for path in exported if path not in models]
    if len(set(sources)) > 1:
        raise ConfigError(
            f"{len(set(sources))} runs, expected at most one; bench one run at a time, or name model files"
        )
    return models, sources[0] if sources else None


def bench_inputs(job: BenchJob) -> dict[str, Any]:
    """Return everything that a measurement depends on, as JSON: plan, data, SHA-256 of every model, packages.

    Raises:
        ModelError: a model file is missing.
    """
    content = {
        "plan": dataclasses.asdict(job.plan),
        "data": job.split.content_hash,
        "models": {name: _sha256(path) for name, path in zip(_names(job.models), job.models, strict=True)},
        "source": None if job.reference is None else _sha256(job.reference),
        "packages": environment.packages(),
    }
    return json.loads(json.dumps(content))  # type: ignore[no-any-return]


def contenders(job: BenchJob) -> list[Contender]:
    """Return all cells: by threads, then by shape, then the source network and the files in order, by runtime.

    Raises:
        ConfigError: unknown runtime, or none of the selected runtimes opens any of the files.
        ModelError: a model file is missing.
    """
    plan = job.plan
    for name in plan.runtimes:
        if name not in (*edge.all_runtimes(), KERAS):
            raise config.unknown_name("runtime", name, (*edge.all_runtimes(), KERAS))
    one_shape = list(_files_on_runtimes(job))
    if not one_shape:
        runtimes = ", ".join(plan.runtimes) or "any runtime"
        raise ConfigError(f"nothing to measure: none of {len(job.models)} files can be opened by {runtimes}")
    allowed = cpus.allowed()
    patch_px = job.split.patches.shape[1]
    shapes = _shapes(plan, patch_px)
    cells: list[Contender] = []
    for threads in dict.fromkeys(plan.threads):
        for shape, scenario in shapes.items():
            fields: dict[str, Any] = {"threads": threads, "scenario": scenario, **dataclasses.asdict(shape)}
            for file in one_shape:
                row = dataclasses.replace(file.row, **fields)
                if row.status == "ok" and (reason := _no_field(file, shape.field_px, patch_px)) is not None:
                    row = dataclasses.replace(row, status="unavailable", reason=reason)
                if row.status == "ok" and allowed is not None and threads > allowed:
                    reason = f"{threads} threads requested, but this process may use only {allowed} CPUs"
                    row = dataclasses.replace(row, status="unavailable", reason=reason)
                cells.append(dataclasses.replace(file, row=row, number=len(cells)))
    return cells


def _shapes(plan: BenchPlan, patch_px: int) -> dict[Shape, str | None]:
    """Return the shapes of the plan with the names of their scenarios; a field of 96 px, the default, is one patch."""
    shapes: dict[Shape, str | None] = {}
    for shape in plan.shapes:
        name = next((name for name, scenario in SCENARIOS.items() if scenario.shape == shape), None)
        shapes.setdefault(Shape(shape.batch, patch_px if shape.field_px == PATCH_PX else shape.field_px), name)
    return shapes


def _no_field(file: Contender, field_px: int, patch_px: int) -> str | None:
    """Return why the file cannot compute fields of ``field_px`` of data with ``patch_px``; None if it can."""
    if file.patch_px not in (None, patch_px):
        return f"the file expects patches of {file.patch_px} px, the data has patches of {patch_px} px"
    if field_px < patch_px:
        return f"a field of {field_px} px is smaller than a patch of {patch_px} px"
    if field_px > patch_px and not file.is_dense:
        return f"the file computes single patches (edge_mode patch); a field of {field_px} px is cut into its patches"
    return None


def _files_on_runtimes(job: BenchJob) -> Iterator[Contender]:
    read = [_read(path) for path in job.models]
    runtimes = job.plan.runtimes
    if job.reference is not None and (not runtimes or KERAS in runtimes):
        yield _source(job.reference, [manifest for manifest in read if isinstance(manifest, Manifest)])
    selected = [edge.all_runtimes()[name] for name in edge.all_runtimes() if name in (runtimes or edge.RUNTIMES)]
    for path, name, manifest in zip(job.models, _names(job.models), read, strict=True):
        for runtime in selected:
            if path.suffix[1:] in runtime.formats:
                yield _exported(path, name, manifest, runtime)


def _read(path: Path) -> Manifest | ModelError:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        return manifests.read(path)
    except ModelError as error:
        return error


ONE_PATCH: dict[str, Any] = {"threads": 1, "batch": 1, "field_px": PATCH_PX}


def _source(weights: Path, manifests_read: Sequence[Manifest]) -> Contender:
    """Return the cell of the source network; network and calibration are those of its exported fp32 file."""
    sha256 = _sha256(weights)
    fp32 = [file for file in manifests_read if file.recipe == "fp32" and file.parents.get("source") == sha256]
    fields = {name: getattr(fp32[0], name) for name in ("network", "params", "macs")} if fp32 else {}
    stated: dict[str, Any] = _stated(fp32[0]) if fp32 else {}
    installed = importlib.util.find_spec("keras") is not None
    row = Measurement(
        **ONE_PATCH,
        model=weights.name,
        recipe="fp32",
        format=KERAS,
        runtime=KERAS,
        status="ok" if installed else "unavailable",
        reason=None if installed else KERAS_MISSING,
        size_bytes=weights.stat().st_size,
        sha256=sha256,
        **fields,
    )
    return Contender(path=weights, row=row, command=KERAS_COMMAND, source=sha256, **stated)


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
        return Contender(path=path, row=dataclasses.replace(row, status="failed", reason=reason))
    fields = {name: getattr(manifest, name) for name in ("recipe", "network", "params", "macs", "zeros")}
    row = dataclasses.replace(row, **fields)
    if not runtime.installed():
        row = dataclasses.replace(row, status="unavailable", reason=f"not installed; {runtime.install}")
    return Contender(
        path=path,
        row=row,
        fp32=None if manifest.recipe == "fp32" else path.with_name(manifest.fp32),
        source=manifest.parents.get("source"),
        **_stated(manifest),
    )


def _stated(manifest: Manifest) -> dict[str, Any]:
    """Return the fields of a contender that are the manifest's."""
    names = ("temperature", "threshold", "patch_px", "label_px", "classes", "is_dense")
    return {name: getattr(manifest, name) for name in names}


def _sha256(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def _names(models: Sequence[Path]) -> list[str]:
    """Return file names, with as many parent folders as needed to distinguish them."""
    for length in range(1, max((len(path.parts) for path in models), default=0) + 1):
        names = ["/".join(path.parts[-length:]) for path in models]
        if len(set(names)) == len(set(models)):
            return names
    return [path.name for path in models]
