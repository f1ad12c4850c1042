"""Which known mistake explains the logits that an integrator got for the golden patches?

Each mistake is made on purpose with the golden patches, and this machine's interpreter tells what the model answers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from . import mistakes
from .mistakes import MISTAKES, Suspect

FORMAT = 1  # of the diagnosis' JSON
PRINTED = 1e-4  # what rounding when a value is printed may change
HALF_PRECISION = 2e-2  # the tolerance of float16 files
ALIKE = 0.25  # of the tolerance, rms: two mistakes that explain the logits so equally well are both named
LEAST_EXPLAINED = 0.8  # chance explains less
REFINED = 6  # of the net's best, looked at more closely
FEWEST = 8  # logits: with fewer, chance explains too much


@dataclass(frozen=True)
class Case:
    """The patches, what the model should answer, and what it would answer to damaged ones.

    ``patches`` are uint8 (N, S, S, 3), ``expected`` the logits (N,), ``predict`` gives N logits in any shape.
    ``tolerance`` is what a correct runtime may differ by. ``saturated`` are the logits (N,) of a CPU whose kernels
    saturate, where that is known.

    Raises:
        DataError: too few patches.
    """

    patches: np.ndarray
    expected: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]
    tolerance: float
    temperature: float = 1.0
    um_per_px: float = 0.972
    saturated: np.ndarray | None = None
    _simulated: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.patches) < FEWEST:
            raise DataError(f"{len(self.patches)} patches are too few to judge; expected {FEWEST} or more")

    def simulated(self, suspect: Suspect) -> np.ndarray:
        """The logits float64 (N,) of the patches damaged so; computed once."""
        key = (suspect.mistake, suspect.detail)
        if key not in self._simulated:
            damaged = np.ascontiguousarray(suspect.damaged(self.patches))
            self._simulated[key] = np.asarray(self.predict(damaged), np.float64).reshape(-1)
        return self._simulated[key]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One mistake that explains the logits: in which form, and how well.

    ``explained`` is the share of the squared difference to the expected logits, or of the squared spread of those
    found if that is less: chance comes close to the expected logits or to the mean, but not to both. ``largest`` is
    the largest difference in logits that remains. ``exact`` says that it is within the tolerance.
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
    """What the logits say: ``right``, ``mistake`` or ``unknown``.

    ``largest`` is the largest difference to the expected logits, on patch ``worst``. Where several ``findings`` stand,
    this model answers alike to each and they cannot be told apart. ``turns_unseen`` says that the model answers alike
    to mirrored and turned patches, which would therefore not be noticed.
    """

    verdict: Literal["right", "mistake", "unknown"]
    largest: float
    worst: int
    tolerance: float
    findings: tuple[Finding, ...] = ()
    turns_unseen: bool = False

    def as_json(self) -> dict[str, Any]:
        """The JSON document."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def lines(self) -> Iterator[str]:
        """What to print."""
        difference = f"the largest difference in logits is {self.largest:.4g}, on golden patch {self.worst:02d}"
        if self.verdict == "right":
            yield f"right: {difference}, and {self.tolerance:.4g} are allowed"
            if self.turns_unseen:
                yield "note: this model answers alike to mirrored and turned patches; check by eye that yours are not"
            return
        yield f"wrong: {difference}; {self.tolerance:.4g} are allowed"
        if self.verdict == "unknown":
            yield "unknown: no known mistake explains these logits"
            if self.largest <= HALF_PRECISION:
                yield "to do: so small a difference may be rounding: write all digits, and compute in full float32"
            yield "to do: compare your patches with the golden ones byte by byte, just before the model gets them"
            return
        yield f"mistake: {'; or '.join(map(str, self.findings))}"
        if len(self.findings) > 1:
            yield "note: this model answers alike to each of these"
        for mend in dict.fromkeys(finding.mend for finding in self.findings):
            yield f"to do: {mend}"


def diagnose(case: Case, found: np.ndarray) -> Diagnosis:
    """The mistake that explains the logits ``found`` (N,), finite.

    Right comes first; then mistakes that explain every logit within the tolerance; then those that explain most of the
    difference.

    Raises:
        DataError: another number of logits than of patches.
    """
    expected, found = (np.asarray(logits, np.float64).reshape(-1) for logits in (case.expected, found))
    if found.shape != expected.shape:
        raise DataError(f"{len(found)} logits for {len(expected)} patches; expected one per patch")
    difference = np.abs(found - expected)
    told: dict[str, Any] = {
        "largest": float(difference.max()),
        "worst": int(difference.argmax()),
        "tolerance": case.tolerance,
    }
    if told["largest"] <= case.tolerance:
        return Diagnosis(verdict="right", turns_unseen=_turns_unseen(case), **told)
    findings = _exact(case, found)
    if np.ptp(found) <= PRINTED and case.tolerance < np.ptp(expected):
        findings = (*findings, *_families(case, found, within=True)) or _same(case, found)
    findings = findings or _reordered(case, found) or _families(case, found, within=False)[:1]
    return Diagnosis(verdict="mistake" if findings else "unknown", findings=findings, **told)


def _turns_unseen(case: Case) -> bool:
    """Whether all eight orientations give the same logits, two roundings apart."""
    return all(
        np.abs(case.simulated(suspect) - case.expected).max() <= 2 * case.tolerance for suspect in mistakes.TURNS
    )


def _exact(case: Case, found: np.ndarray) -> tuple[Finding, ...]:
    """The mistakes that give these logits within the tolerance, and nearly as closely as the closest of them."""
    matches: list[tuple[float, Finding]] = []
    for mistake, detail, logits, tolerance in _known(case):
        away = np.abs(found - logits) / tolerance
        if away.max() <= 1:
            matches.append((_rms(away), _finding(case, found, mistake, detail, logits, exact=True)))
    matches.sort(key=lambda match: match[0])
    named: dict[str, Finding] = {}
    for away_rms, finding in matches:
        if away_rms <= matches[0][0] + ALIKE:
            named.setdefault(finding.mistake, finding)
    return tuple(named.values())


def _known(case: Case) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Mistake, detail, logits (N,) and tolerance (N,) of all that can be told exactly."""
    expected = np.asarray(case.expected, np.float64)
    allowed = np.full(expected.shape, case.tolerance)
    for mistake, detail, changed in mistakes.on_logits(case.temperature):
        logits = changed(expected)
        spread = [np.abs(changed(expected + sign * case.tolerance) - logits) for sign in (-1, 1)]
        yield mistake, detail, logits, np.maximum(*spread) + PRINTED
    for suspect in (*mistakes.SIMPLE, *mistakes.TURNS):
        yield suspect.mistake, suspect.detail, case.simulated(suspect), allowed
    if case.saturated is not None:
        yield "saturation", "", np.asarray(case.saturated, np.float64), allowed


def _same(case: Case, found: np.ndarray) -> tuple[Finding, ...]:
    """The mistake of logits that are all the same."""
    return (_finding(case, found, "constant", "", np.full_like(found, found.mean()), exact=True),)


def _reordered(case: Case, found: np.ndarray) -> tuple[Finding, ...]:
    """The mistake of logits that are the expected ones in another order."""
    expected = np.sort(np.asarray(case.expected, np.float64))
    if np.abs(np.sort(found) - expected).max() > case.tolerance:
        return ()
    reordered = np.empty_like(found)
    reordered[np.argsort(found, kind="stable")] = expected
    return (_finding(case, found, "order", "", reordered, exact=True),)


def _families(case: Case, found: np.ndarray, *, within: bool) -> tuple[Finding, ...]:
    """The mistakes with a number in them that explain most of the difference, or ``within`` the tolerance all of it.

    One of each family, the best first.
    """
    best = []
    for family in mistakes.families(case.patches.shape[1], case.um_per_px):
        rough = _closest(case, found, family.net())[:REFINED]
        suspect = _closest(case, found, [*rough, *(near for one in rough for near in family.near(one))])[0]
        logits = case.simulated(suspect)
        exact = bool(np.abs(found - logits).max() <= case.tolerance)
        best.append(_finding(case, found, suspect.mistake, suspect.detail, logits, exact=exact))
    best.sort(key=lambda finding: -finding.explained)
    return tuple(one for one in best if one.exact or (not within and one.explained >= LEAST_EXPLAINED))


def _closest(case: Case, found: np.ndarray, suspects: Iterable[Suspect]) -> list[Suspect]:
    """The suspects, those first that leave the least difference."""
    return sorted(suspects, key=lambda suspect: _rms(found - case.simulated(suspect)))


def _finding(case: Case, found: np.ndarray, mistake: str, detail: str, logits: np.ndarray, *, exact: bool) -> Finding:
    known, left = MISTAKES[mistake], found - logits
    least = min(np.sum((found - case.expected) ** 2), np.sum((found - found.mean()) ** 2))
    return Finding(
        mistake=mistake,
        said=known.said,
        detail=detail,
        mend=known.mend,
        exact=exact,
        explained=1 - float(np.sum(left**2) / least) if least > 0 else 0.0,
        largest=float(np.abs(left).max()),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
