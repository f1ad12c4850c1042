"""Self-test of exported files on this machine, to run at installation; it takes milliseconds."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import golden as goldens
from . import lookalike
from . import manifest as manifests
from .errors import ModelError, RuntimeUnavailable
from .golden import Golden
from .manifest import Manifest
from .runtimes import RUNTIMES, Runtime, load

FORMAT = 1  # of the self-test's JSON
SUFFIXES = tuple(f".{format_}" for format_ in dict.fromkeys(name for row in RUNTIMES.values() for name in row.formats))


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of the golden patches of one file on one runtime; loading and prediction took ``ms`` milliseconds.

    ``largest`` is the largest difference from the golden logits, on golden patch ``worst``; both are None when the
    runtime returned no logits, for the ``reason``.
    """

    model: str
    runtime: str
    version: str | None
    status: Literal["ok", "failed", "unavailable"]
    tolerance: float
    largest: float | None = None
    worst: int | None = None
    ms: float | None = None
    reason: str | None = None

    def __str__(self) -> str:
        where = f"{self.model} on {self.runtime}{f' {self.version}' if self.version else ''}"
        if self.status == "unavailable" or self.largest is None:
            return f"{where}: {'not tested' if self.status == 'unavailable' else 'FAILED'}, {self.reason}"
        line = f"{where}: {'pass' if self.status == 'ok' else 'FAILED'}, the largest difference in logits is "
        line += (
            f"{self.largest:.4g}, on golden patch {self.worst:02d}; {self.tolerance:.4g} is allowed ({self.ms:.0f} ms)"
        )
        return line if self.reason is None else f"{line}; {self.reason}"


@dataclass(frozen=True)
class SelfTest:
    """The checks of all files on all their runtimes."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed; runtimes that are not installed do not count."""
        return all(check.status != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"format": FORMAT, "passed": self.passed, **dataclasses.asdict(self)}


def selftest(place: Path) -> SelfTest:
    """Check all hashes, and run the golden patches on each installed runtime that opens the file.

    Args:
        place: a model file, or a folder with one or more of them.

    Raises:
        ModelError: no model at ``place``; a file is missing, unreadable or altered.
        RuntimeUnavailable: no installed runtime opens the model.
    """
    return SelfTest(tuple(check for model in models(place) for check in _checks(model)))


def models(place: Path) -> Sequence[Path]:
    """Return the model file, or the models of a folder sorted by name; a manifest without its model counts too.

    Raises:
        ModelError: the folder contains no model.
    """
    if not place.is_dir():
        return [place]
    paths = {path for path in place.iterdir() if path.suffix in SUFFIXES}
    paths |= {path.with_suffix("") for path in place.glob("*.json") if path.with_suffix("").suffix in SUFFIXES}
    if not paths:
        raise ModelError(lookalike.explain_path(place))
    return sorted(paths)


def model(place: Path) -> Path:
    """Return the model file, or the only model of a folder.

    Raises:
        ModelError: the folder contains no model, or several.
    """
    paths = models(place)
    if len(paths) > 1:
        raise ModelError(f"{place}: several models, {', '.join(path.name for path in paths)}; name one of these files")
    return paths[0]


def _checks(path: Path) -> list[Check]:
    manifest = manifests.read(path)
    manifests.checked_bytes(path, manifest)
    golden = goldens.read_golden(path, manifest)
    rows = [row for row in RUNTIMES.values() if manifest.format in row.formats]
    if not any(row.installed() for row in rows):
        hints = " or ".join(row.install for row in rows)
        raise RuntimeUnavailable(f"{path}: no installed runtime opens {manifest.format} files; {hints}")
    return [_check(path, manifest, golden, row) for row in rows]


def _check(path: Path, manifest: Manifest, golden: Golden, row: Runtime) -> Check:
    fields: dict[str, Any] = {"model": path.name, "runtime": row.name, "version": row.installed_version()}
    fields["tolerance"] = manifest.tolerance
    if not row.installed():
        return Check(status="unavailable", reason=f"not installed: {row.install}", **fields)
    start = time.perf_counter()
    try:
        logits = load(path, runtime=row.name).predict(golden.patches).reshape(-1)
    except (ModelError, RuntimeUnavailable) as error:
        return Check(status="failed", reason=str(error), **fields)
    fields["ms"] = 1e3 * (time.perf_counter() - start)
    if not np.isfinite(logits).all():
        return Check(status="failed", reason="a logit is not finite; install another release of this runtime", **fields)
    difference = np.abs(logits - golden.logits)
    fields |= {"largest": float(difference.max()), "worst": int(difference.argmax())}
    if fields["largest"] <= manifest.tolerance:
        return Check(status="ok", **fields)
    doctor = f"python -m {__package__} doctor {path.name} LOGITS.csv"
    to_do = f"to do: install another release of {row.name}; to check your own program: {doctor}"
    return Check(status="failed", reason=f"{manifest.tolerance_reason}; {to_do}", **fields)
