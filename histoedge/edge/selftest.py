"""Does each exported file here answer as it should on this machine? Made to run at install, in milliseconds."""

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
    """The golden patches of one file on one runtime, which took ``ms`` milliseconds to load and to answer.

    ``largest`` is the largest difference in logits to the golden ones, on golden patch ``worst``; both are None where
    the runtime did not answer, ``reason`` then says why.
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
        told = f"{where}: {'pass' if self.status == 'ok' else 'FAILED'}, the largest difference in logits is "
        told += f"{self.largest:.4g}, on golden patch {self.worst:02d}; {self.tolerance:.4g} allowed ({self.ms:.0f} ms)"
        return told if self.reason is None else f"{told}; {self.reason}"


@dataclass(frozen=True)
class SelfTest:
    """All files on all their runtimes."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Every runtime that is installed answers as it should."""
        return all(check.status != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The JSON document."""
        return {"format": FORMAT, "passed": self.passed, **dataclasses.asdict(self)}


def selftest(place: Path) -> SelfTest:
    """Check every hash, and the golden patches on each installed runtime that opens the file.

    Args:
        place: a model file, or a folder with one or more of them.

    Raises:
        ModelError: no model there; a file missing, unreadable or altered.
        RuntimeUnavailable: a model that no runtime installed opens.
    """
    return SelfTest(tuple(check for model in models(place) for check in _checks(model)))


def models(place: Path) -> Sequence[Path]:
    """The model file, or those of a folder: whatever is a model or has a manifest, by name.

    Raises:
        ModelError: no such file or folder, or none in it.
    """
    if not place.is_dir():
        return [place]
    here = {path for path in place.iterdir() if path.suffix in SUFFIXES}
    here |= {path.with_suffix("") for path in place.glob("*.json") if path.with_suffix("").suffix in SUFFIXES}
    if not here:
        raise ModelError(lookalike.told(place))
    return sorted(here)


def model(place: Path) -> Path:
    """The model file, or the only one of a folder.

    Raises:
        ModelError: see ``models``; more than one.
    """
    found = models(place)
    if len(found) > 1:
        raise ModelError(f"{place}: holds {', '.join(path.name for path in found)}; name one of these files")
    return found[0]


def _checks(path: Path) -> list[Check]:
    manifest = manifests.read(path)
    manifests.checked_bytes(path, manifest)
    golden = goldens.read_golden(path, manifest)
    rows = [row for row in RUNTIMES.values() if manifest.format in row.formats]
    if not any(row.installed() for row in rows):
        hints = " or ".join(row.install for row in rows)
        raise RuntimeUnavailable(f"{path}: no runtime installed opens {manifest.format} files; {hints}")
    return [_check(path, manifest, golden, row) for row in rows]


def _check(path: Path, manifest: Manifest, golden: Golden, row: Runtime) -> Check:
    told: dict[str, Any] = {"model": path.name, "runtime": row.name, "version": row.installed_version()}
    told["tolerance"] = manifest.tolerance
    if not row.installed():
        return Check(status="unavailable", reason=f"not installed: {row.install}", **told)
    before = time.perf_counter()
    try:
        logits = load(path, runtime=row.name).predict(golden.patches).reshape(-1)
    except (ModelError, RuntimeUnavailable) as error:
        return Check(status="failed", reason=str(error), **told)
    told["ms"] = 1e3 * (time.perf_counter() - before)
    if not np.isfinite(logits).all():
        return Check(status="failed", reason="a logit is not finite; install another release of this runtime", **told)
    difference = np.abs(logits - golden.logits)
    told |= {"largest": float(difference.max()), "worst": int(difference.argmax())}
    if told["largest"] <= manifest.tolerance:
        return Check(status="ok", **told)
    doctor = f"python -m {__package__} doctor {path.name} LOGITS.csv"
    to_do = f"to do: install another release of {row.name}; where your own program reads the file: {doctor}"
    return Check(status="failed", reason=f"{manifest.tolerance_reason}; {to_do}", **told)
