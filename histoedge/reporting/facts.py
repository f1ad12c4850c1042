"""What results say in few figures, and which files they must not be said of: those whose answers are wrong."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from histoedge.benchmark import Measurement, Results
from histoedge.data import PATCH_PX
from histoedge.reporting import groups
from histoedge.reporting.short import brackets, signed, three

MATERIAL_AUC = 0.01
"""A loss of AUC that matters: some three times what quantisation or pruning by half cost the released networks. A file
is known to lose as much where the whole 95 % interval of its paired difference lies below minus this."""

CHANCE = 0.5
"""The AUC of a file that tells nothing."""

Bounds = tuple[float | None, float | None, float | None]
"""A value and its 95 % interval."""


@dataclass(frozen=True)
class Headline:
    """One figure to see first, with its 95 % interval and the cell it is of.

    ``name``: ``fastest``, ``shortest`` (against fp32) or ``auc``. ``value``: milliseconds, a ratio, an AUC. ``rivals``
    counts the other networks whose AUC has an interval that overlaps this one's, of ``others``: where there are any,
    it is not known which is best.
    """

    name: str
    value: float
    lo: float | None
    hi: float | None
    row: Measurement
    rivals: int = 0
    others: int = 0

    @property
    def clearly_best(self) -> bool:
        """Of AUCs: whether its interval overlaps that of no other network."""
        return self.rivals == 0


def headlines(results: Results) -> list[Headline]:
    """The fastest file, the one that gains most against fp32 and the highest AUC, of files that answer well enough.

    Of speed those count that lose no more AUC than ``MATERIAL_AUC`` for certain and do not answer wrong. Times are
    those of one patch per call, or of the first shape where that was not measured.
    """
    sound = [row for row in results.measurements if row.measured and _is_sound(row, results)]
    shape = [row for row in sound if (row.batch, row.field_px) == (1, PATCH_PX)] or [
        row for row in sound if (row.batch, row.field_px) == (sound[0].batch, sound[0].field_px)
    ]
    found = [
        _least("fastest", shape, lambda row: (row.p50_ms, row.p50_lo, row.p50_hi)),
        _least("shortest", shape, lambda row: (row.p50_ratio, row.p50_ratio_lo, row.p50_ratio_hi)),
        _highest_auc(groups.files_on_runtimes(sound)),
    ]
    return [one for one in found if one is not None]


def warnings(results: Results) -> list[str]:
    """A line for each file on a runtime that answers wrong or loses AUC for certain, the wrong ones first."""
    judged = groups.files_on_runtimes(results.measurements)
    wrong = {id(row): better for row in judged if (better := _better_one(row, judged)) is not None}
    lines = [_said_wrong(row, wrong[id(row)]) for row in judged if id(row) in wrong]
    return lines + [_said_lost(row) for row in judged if id(row) not in wrong and _loses(row)]


def is_synthetic(results: Results) -> bool:
    """Whether the results say that their patches were drawn; older ones do not say it."""
    return results.environment.get("data") == "synthetic"


def _is_sound(row: Measurement, results: Results) -> bool:
    """Whether its speed is worth telling; without any AUC in the results nothing speaks against it."""
    judged = [one for one in groups.files_on_runtimes(results.measurements) if one.auc is not None]
    first = next((one for one in judged if (one.model, one.runtime) == (row.model, row.runtime)), None)
    if first is None:
        return not judged
    return _better_one(first, judged) is None and not _loses(first)


def _loses(row: Measurement) -> bool:
    return row.d_auc_hi is not None and row.d_auc_hi < -MATERIAL_AUC


def _better_one(row: Measurement, judged: Iterable[Measurement]) -> Measurement | None:
    """The cell by which this one answers wrong; None where it does not.

    Either the same recipe in another format or on another runtime has an AUC that is higher by ``MATERIAL_AUC`` with
    both intervals apart, though such files answer nearly alike; or more than half of what another one's AUC is above
    chance is lost.
    """
    if row.auc_hi is None:
        return None
    nearest = sorted((one for one in judged if one is not row), key=lambda one: _distance(row, one))
    for one in nearest:
        if one.auc_lo is None:
            continue
        if _is_twin(row, one) and row.auc_hi < one.auc_lo - MATERIAL_AUC:
            return one
        if row.auc_hi - CHANCE < (one.auc_lo - CHANCE) / 2:
            return one
    return None


def _distance(row: Measurement, one: Measurement) -> int:
    """How far another cell is from this one: its reference, its twins, its folder, any other."""
    if f"{one.model} @ {one.runtime}" == row.reference:
        return 0
    if _is_twin(row, one):
        return 1
    return 2 if groups.folder(one) == groups.folder(row) else 3


def _is_twin(row: Measurement, one: Measurement) -> bool:
    """Of one folder and recipe: the same network in another format or on another runtime."""
    return (groups.folder(one), one.recipe) == (groups.folder(row), row.recipe)


def _least(name: str, rows: Sequence[Measurement], figure: Callable[[Measurement], Bounds]) -> Headline | None:
    told = [(value, lo, hi, row) for row in rows for value, lo, hi in [figure(row)] if value is not None]
    if not told:
        return None
    value, lo, hi, row = min(told, key=lambda one: one[0])
    return Headline(name, value, lo, hi, row)


def _highest_auc(judged: Sequence[Measurement]) -> Headline | None:
    told = [(row.auc, row) for row in judged if row.auc is not None]
    if not told:
        return None
    auc, best = max(told, key=lambda one: one[0])
    networks = groups.networks(row for _, row in sorted(told, key=lambda one: -one[0]))
    others = [row for row in networks if not _is_twin(best, row)]
    rivals = [row for row in others if row.auc_hi is None or best.auc_lo is None or row.auc_hi >= best.auc_lo]
    return Headline("auc", auc, best.auc_lo, best.auc_hi, best, rivals=len(rivals), others=len(others))


def _said_wrong(row: Measurement, better: Measurement) -> str:
    other = f"{better.model} @ {better.runtime}"
    against = f"{'reference' if other == row.reference else other} {three(better.auc)}"
    auc = brackets(three(row.auc), three(row.auc_lo), three(row.auc_hi))
    return f"{row.model} @ {row.runtime} answers wrong: AUC {auc}, {against}"


def _said_lost(row: Measurement) -> str:
    change = brackets(signed(row.d_auc), signed(row.d_auc_lo), signed(row.d_auc_hi))
    return f"{row.model} @ {row.runtime} loses AUC: {change} against {row.reference or 'its reference'}"
