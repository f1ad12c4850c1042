"""Find the known mistake that explains an integrator's logits of the golden patches.

Each mistake is simulated on the golden patches; the interpreter on this machine computes the logits for comparison.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..patches import UM_PER_PX
from . import mistakes
from .mistakes import MISTAKES, Suspect

FORMAT = 1  # of the diagnosis' JSON
PRINT_ROUNDING = 1e-4  # largest change when a logit is printed with few digits
HALF_PRECISION = 2e-2  # the tolerance of float16 files
TIE = 0.25  # rms in units of the tolerance: mistakes this close to the best are named too
LEAST_EXPLAINED = 0.8  # chance explains less
REFINED = 6  # best candidates of the coarse search, refined further
MIN_PATCHES = 8  # with fewer, chance explains too much


@dataclass(frozen=True)
class Case:
    """Golden patches with their expected logits, and the model to predict damaged patches.

    ``patches`` are uint8 (N, S, S, 3), ``expected`` the logits (N,), ``predict`` returns N logits in any shape.
    ``tolerance`` is the largest difference on a correct runtime. ``saturated`` are the logits (N,) of a CPU whose
    kernels saturate, if available.

    Raises:
        DataError: too few patches.
    """

    patches: np.ndarray
    expected: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]
    tolerance: float
    temperature: float = 1.0
    um_per_px: float = UM_PER_PX
    saturated: np.ndarray | None = None
    _simulated: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.patches) < MIN_PATCHES:
            raise DataError(f"{len(self.patches)} patches are too few for a diagnosis; expected {MIN_PATCHES} or more")

    def simulated(self, suspect: Suspect) -> np.ndarray:
        """Return the logits float64 (N,) of the patches with this mistake; computed once."""
        key = (suspect.mistake, suspect.detail)
        if key not in self._simulated:
            damaged = np.ascontiguousarray(suspect.damaged(self.patches))
            self._simulated[key] = np.asarray(self.predict(damaged), np.float64).reshape(-1)
        return self._simulated[key]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One mistake that explains the logits, with its description, variant (``detail``) and remedy (``mend``).

    ``explained`` is a share: of the squared difference to the expected logits, or of the squared spread of the
    program's logits if that is smaller. Chance comes close to the expected logits or to the mean, but not to both.
    ``largest`` is the largest remaining difference in logits; ``exact`` when it is within the tolerance.
    The field names are the keys of the JSON document.
    """

    mistake: str
    said: str
    detail: str
    mend: str
    exact: bool
    explained: float
    largest: float

    def __str__(self) -> str:
        return f"{self.said}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The verdict on the logits: ``right``, ``mistake`` or ``unknown``.

    ``largest`` is the largest difference to the expected logits, on patch ``worst``. With several ``findings``, this
    model returns the same logits for each of these mistakes, and they cannot be distinguished. ``turns_unseen``: the
    model returns the same logits for mirrored and rotated patches, so this mistake cannot be detected.
    """

    verdict: Literal["right", "mistake", "unknown"]
    largest: float
    worst: int
    tolerance: float
    findings: tuple[Finding, ...] = ()
    turns_unseen: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def lines(self) -> Iterator[str]:
        """Yield the lines to print."""
        difference = f"the largest difference in logits is {self.largest:.4g}, on golden patch {self.worst:02d}"
        if self.verdict == "right":
            yield f"right: {difference}; {self.tolerance:.4g} is allowed"
            if self.turns_unseen:
                yield (
                    "note: this model returns the same logits for mirrored and rotated patches; "
                    "check the orientation of your patches by eye"
                )
            return
        yield f"wrong: {difference}; {self.tolerance:.4g} is allowed"
        if self.verdict == "unknown":
            yield "unknown: no known mistake explains these logits"
            if self.largest <= HALF_PRECISION:
                yield "to do: so small a difference may be rounding: write all digits, and compute in full float32"
            yield "to do: compare your patches with the golden patches byte by byte, just before the model is run"
            return
        yield f"mistake: {'; or '.join(map(str, self.findings))}"
        if len(self.findings) > 1:
            yield "note: this model returns the same logits for each of these mistakes"
        for mend in dict.fromkeys(finding.mend for finding in self.findings):
            yield f"to do: {mend}"


def diagnose(case: Case, logits: np.ndarray) -> Diagnosis:
    """Find the mistake that explains a program's ``logits`` (N,), all finite.

    Correct logits are ``right``. Otherwise the mistakes that explain all logits within the tolerance come first, then
    those that explain most of the difference.

    Raises:
        DataError: the number of logits differs from the number of patches.
    """
    expected, logits = (np.asarray(values, np.float64).reshape(-1) for values in (case.expected, logits))
    if logits.shape != expected.shape:
        raise DataError(f"{len(logits)} logits for {len(expected)} patches; expected one per patch")
    difference = np.abs(logits - expected)
    summary: dict[str, Any] = {
        "largest": float(difference.max()),
        "worst": int(difference.argmax()),
        "tolerance": case.tolerance,
    }
    if summary["largest"] <= case.tolerance:
        return Diagnosis(verdict="right", turns_unseen=_turns_unseen(case), **summary)
    findings = _exact(case, logits)
    if np.ptp(logits) <= PRINT_ROUNDING and case.tolerance < np.ptp(expected):
        findings = (*findings, *_families(case, logits, exact_only=True)) or _constant(case, logits)
    findings = findings or _reordered(case, logits) or _families(case, logits, exact_only=False)[:1]
    return Diagnosis(verdict="mistake" if findings else "unknown", findings=findings, **summary)


def _turns_unseen(case: Case) -> bool:
    """Whether all eight orientations return the same logits, up to twice the tolerance."""
    return all(
        np.abs(case.simulated(suspect) - case.expected).max() <= 2 * case.tolerance for suspect in mistakes.TURNS
    )


def _exact(case: Case, logits: np.ndarray) -> tuple[Finding, ...]:
    """Return the mistakes that explain the logits within the tolerance: the closest, and those tied with it."""
    matches: list[tuple[float, Finding]] = []
    for mistake, detail, simulated, tolerance in _candidates(case):
        distance = np.abs(logits - simulated) / tolerance
        if distance.max() <= 1:
            matches.append((_rms(distance), _finding(case, logits, mistake, detail, simulated, exact=True)))
    matches.sort(key=lambda match: match[0])
    closest: dict[str, Finding] = {}
    for rms, finding in matches:
        if rms <= matches[0][0] + TIE:
            closest.setdefault(finding.mistake, finding)
    return tuple(closest.values())


def _candidates(case: Case) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield mistake, detail, logits (N,) and tolerance (N,) of the mistakes without a free parameter."""
    expected = np.asarray(case.expected, np.float64)
    tolerance = np.full(expected.shape, case.tolerance)
    for mistake, detail, change in mistakes.logit_mistakes(case.temperature):
        simulated = change(expected)
        spread = [np.abs(change(expected + sign * case.tolerance) - simulated) for sign in (-1, 1)]
        yield mistake, detail, simulated, np.maximum(*spread) + PRINT_ROUNDING
    for suspect in (*mistakes.SIMPLE, *mistakes.TURNS):
        yield suspect.mistake, suspect.detail, case.simulated(suspect), tolerance
    if case.saturated is not None:
        yield "saturation", "", np.asarray(case.saturated, np.float64), tolerance


def _constant(case: Case, logits: np.ndarray) -> tuple[Finding, ...]:
    """Return the mistake for logits that are all equal."""
    return (_finding(case, logits, "constant", "", np.full_like(logits, logits.mean()), exact=True),)


def _reordered(case: Case, logits: np.ndarray) -> tuple[Finding, ...]:
    """Return the mistake for the expected logits in another order; empty when they do not match."""
    expected = np.sort(np.asarray(case.expected, np.float64))
    if np.abs(np.sort(logits) - expected).max() > case.tolerance:
        return ()
    reordered = np.empty_like(logits)
    reordered[np.argsort(logits, kind="stable")] = expected
    return (_finding(case, logits, "order", "", reordered, exact=True),)


def _families(case: Case, logits: np.ndarray, *, exact_only: bool) -> tuple[Finding, ...]:
    """Return the mistakes with a free parameter that explain most of the difference, the best of each family first.

    ``exact_only`` returns only those that explain all logits within the tolerance.
    """
    best = []
    for family in mistakes.families(case.patches.shape[1], case.um_per_px):
        coarse = _closest(case, logits, family.coarse())[:REFINED]
        fine = [neighbour for suspect in coarse for neighbour in family.neighbours(suspect)]
        suspect = _closest(case, logits, [*coarse, *fine])[0]
        simulated = case.simulated(suspect)
        exact = bool(np.abs(logits - simulated).max() <= case.tolerance)
        best.append(_finding(case, logits, suspect.mistake, suspect.detail, simulated, exact=exact))
    best.sort(key=lambda finding: -finding.explained)
    return tuple(
        finding for finding in best if finding.exact or (not exact_only and finding.explained >= LEAST_EXPLAINED)
    )


def _closest(case: Case, logits: np.ndarray, suspects: Iterable[Suspect]) -> list[Suspect]:
    """Return the suspects sorted by the difference that they leave, the smallest first."""
    return sorted(suspects, key=lambda suspect: _rms(logits - case.simulated(suspect)))


def _finding(
    case: Case, logits: np.ndarray, mistake: str, detail: str, simulated: np.ndarray, *, exact: bool
) -> Finding:
    text, rest = MISTAKES[mistake], logits - simulated
    total = min(np.sum((logits - case.expected) ** 2), np.sum((logits - logits.mean()) ** 2))
    return Finding(
        mistake=mistake,
        said=text.description,
        detail=detail,
        mend=text.remedy,
        exact=exact,
        explained=1 - float(np.sum(rest**2) / total) if total > 0 else 0.0,
        largest=float(np.abs(rest).max()),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
