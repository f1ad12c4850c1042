"""The verdict on an exported file, as it is kept beside it and read again."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge import edge, files
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.edge.manifest import Manifest

FORMAT = 2  # of the verdict's JSON; 2 tells operators and the twin

NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """The golden patches on one runtime. ``largest`` is the largest difference in logits to the golden ones.

    ``operators`` counts the runtime's optimised graph and ``integer_operators`` those of them that run in integers;
    ``not_integer`` names the others, ``undelegated`` those that ``kernels`` left to the runtime's own.
    """

    runtime: str
    version: str | None
    kernels: str | None
    status: str
    reason: str | None
    largest: float | None
    operators: int | None
    integer_operators: int | None
    not_integer: tuple[str, ...]
    undelegated: tuple[str, ...]

    def operators_line(self) -> str:
        """One line that tells how many operators run in integers and names the first of those that do not."""
        line = f"{self.runtime}: {self.integer_operators} of {self.operators} operators in integers"
        for label, names in (("not", self.not_integer), (f"not by {self.kernels}", self.undelegated)):
            if names:
                more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
                line += f"; {label}: {', '.join(names[:NAMES_SHOWN])}{more}"
        return line


@dataclass(frozen=True, kw_only=True)
class SourceComparison:
    """The file against the network it came from, on a whole split.

    ``largest`` and ``rms`` are differences in logits; ``flips`` counts decisions that differ at the manifest's
    threshold; ``d_auc`` is the file's AUC less the reference's, with its paired DeLong 95 % interval.
    """

    reference: str
    runtime: str
    n_patches: int
    largest: float
    rms: float
    flips: int
    auc: float
    d_auc: float
    d_auc_lo: float
    d_auc_hi: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class TwinCheck:
    """An int8 file against the same recipe's file in the other format, on a whole split.

    ``largest_quanta`` is the largest difference in logits, in quanta of the output; ``flips`` counts decisions that
    differ at the manifest's threshold, ``flips_beyond_quantum`` those with a logit further than a quantum from it.
    """

    model: str
    runtime: str
    n_patches: int
    largest_quanta: float
    flips: int
    flips_beyond_quantum: int
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What ``verify`` found: a golden check per runtime, and where data was given a comparison and a check of the twin.

    ``output_quantum`` is None for a file that computes in floats; ``may_saturate`` is the manifest's. ``twin`` is
    None where there is no twin or no runtime for it. ``outdated`` says so where the run has other weights by now than
    the file was made from. ``layers`` are the layers' errors (``lab.layers.LayerError``, worst first) with the
    ``advice`` that follows, where they were asked for. ``not_kept`` says why the verdict could not be kept
    beside the model; it is no part of the JSON document.
    """

    model: str
    sha256: str
    recipe: str
    tolerance: float
    tolerance_reason: str
    output_quantum: float | None
    may_saturate: tuple[str, ...]
    golden: tuple[GoldenCheck, ...]
    comparison: SourceComparison | None
    twin: TwinCheck | None
    outdated: str | None = None
    not_kept: str | None = None
    layers: tuple[Any, ...] = ()
    advice: str | None = None

    @property
    def passed(self) -> bool:
        """At least one runtime answered, none failed, comparison and twin (if any) passed; it is not outdated."""
        ran = [check for check in self.golden if check.status != "unavailable"]
        golden = bool(ran) and all(check.status == "ok" for check in ran) and self.outdated is None
        return golden and all(check is None or check.passed for check in (self.comparison, self.twin))

    def with_layers(self, layers: Sequence[Any], advice: str) -> "Verdict":
        """The verdict with the errors of the layers too, see ``layers``."""
        return dataclasses.replace(self, layers=tuple(layers), advice=advice)

    def as_json(self) -> dict[str, Any]:
        """The JSON document."""
        without = {"not_kept"} | ({"layers", "advice"} if self.advice is None else set())
        told = {name: value for name, value in dataclasses.asdict(self).items() if name not in without}
        return {"format": FORMAT, "passed": self.passed, **told}


def outdated_reason(model: Path, manifest: Manifest) -> str | None:
    """What to say where the run's weights are not those that the file was made from; None else, and without a run."""
    run = (model if len(model.parts) > 1 else model.absolute()).parent.parent
    weights = run / f"{manifest.recipe}.weights.h5"
    made_from = manifest.parents.get("weights")
    if made_from is None or not weights.is_file() or files.sha256(weights) == made_from:
        return None
    return (
        f"made from other weights than {weights.name} holds now; "
        f"to export it again: histoedge export {run} --recipe {manifest.recipe}"
    )


def write_verdict(verdict: Verdict, place: Path) -> str | None:
    """Write a passing verdict, remove what lies in the place of a failing one; why not, where that cannot be done."""
    try:
        if verdict.passed:
            files.write_json(place, verdict.as_json())
        else:
            place.unlink(missing_ok=True)
    except files.WriteError as error:
        return str(error)
    except OSError as error:  # of unlink
        return f"{place}: an earlier verdict cannot be removed ({error.strerror}); it is no longer true"
    return None


def is_current(model: Path) -> bool:
    """Whether a passing verdict on exactly these bytes and the runtimes installed now lies beside the model."""
    try:
        seen = passed_on(model)
        format_ = manifests.read(model).format
    except ModelError:
        return False
    return seen == {row.name: row.installed_version() for row in edge.RUNTIMES.values() if format_ in row.formats}


def passed_on(model: Path) -> dict[str, str | None]:
    """The runtimes with their versions (None: not installed) on which these very bytes passed, wherever that was.

    Raises:
        ModelError: model or manifest missing, unreadable or altered; no passing verdict of these bytes beside them; the
            run has other weights by now.
    """
    manifest = manifests.read(model)
    manifests.checked_bytes(model, manifest)
    if (outdated := outdated_reason(model, manifest)) is not None:
        raise ModelError(f"{model}: {outdated}")
    place = manifests.verdict_path(model)
    try:
        if place.stat().st_size > files.LARGEST_JSON_BYTES:
            raise ModelError(f"{place}: larger than a verdict can be; run histoedge verify {model}")
        verdict = json.loads(place.read_text())
        passed = (verdict["format"], verdict["sha256"], verdict["passed"]) == (FORMAT, manifest.sha256, True)
        seen = {str(check["runtime"]): check["version"] for check in verdict["golden"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        passed = False
    if not passed:
        raise ModelError(f"{model}: no passing verdict of these bytes lies beside it; run histoedge verify {model}")
    return seen
