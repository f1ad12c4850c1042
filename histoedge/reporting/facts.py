"""Headline figures of results, and warnings about files with wrong answers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from histoedge.benchmark import Measurement, Results
from histoedge.metrics import Interval, value_of
from histoedge.reporting import groups
from histoedge.reporting.short import brackets, signed, three

MATERIAL_AUC = 0.01
"""A material loss of AUC: about three times the loss from quantisation or from pruning half of the released networks.
A file certainly loses this much if the whole 95 % interval of its paired difference is below minus this value."""

CHANCE = 0.5
"""The AUC of random answers."""


@dataclass(frozen=True)
class Headline:
    """A headline figure with its 95 % interval and its cell.

    ``name``: ``fastest`` (milliseconds), ``shortest`` (ratio to fp32) or ``auc``. ``rivals``, of ``others``, is the
    number of other networks whose AUC has an overlapping interval. With rivals the best network is not known.
    """

    name: str
    figure: Interval
    row: Measurement
    rivals: int = 0
    others: int = 0

    @property
    def clearly_best(self) -> bool:
        """Whether no other network's AUC interval overlaps that of this cell."""
        return self.rivals == 0


def headlines(results: Results) -> list[Headline]:
    """Return the fastest file, the file with the largest gain over fp32, and the highest AUC.

    Only files with sound answers count: those that certainly lose more AUC than ``MATERIAL_AUC``, or have wrong
    answers, are excluded. Times are for one patch per call, or for the first shape if that was not measured.
    """
    sound = [row for row in results.measurements if row.measured and _is_sound(row, results)]
    one_patch = [row for row in sound if row.batch == 1 and row.of_patches] or [
        row for row in sound if (row.batch, row.field_px) == (sound[0].batch, sound[0].field_px)
    ]
    figures = [
        _minimum("fastest", one_patch, lambda row: row.p50_ms),
        _minimum("shortest", one_patch, lambda row: row.p50_ratio),
        _highest_auc(groups.files_on_runtimes(sound)),
    ]
    return [headline for headline in figures if headline is not None]


def warnings(results: Results) -> list[str]:
    """Return a line for each file on a runtime with wrong answers or a certain loss of AUC, wrong answers first."""
    files = groups.files_on_runtimes(results.measurements)
    better = {id(row): other for row in files if (other := _proof_of_wrong_answers(row, files)) is not None}
    lines = [_wrong_answers_line(row, better[id(row)]) for row in files if id(row) in better]
    return lines + [_loss_line(row) for row in files if id(row) not in better and _certainly_loses(row)]


def is_synthetic(results: Results) -> bool:
    """Whether the results record synthetic patches; results of earlier versions do not record it."""
    return results.environment.get("data") == "synthetic"


def _is_sound(row: Measurement, results: Results) -> bool:
    """Whether the answers of the file are good enough for a headline; yes if the results contain no AUC at all."""
    files = [other for other in groups.files_on_runtimes(results.measurements) if other.auc is not None]
    first = next((other for other in files if (other.model, other.runtime) == (row.model, row.runtime)), None)
    if first is None:
        return not files
    return _proof_of_wrong_answers(first, files) is None and not _certainly_loses(first)


def _certainly_loses(row: Measurement) -> bool:
    return row.d_auc is not None and row.d_auc.hi < -MATERIAL_AUC


def _proof_of_wrong_answers(row: Measurement, files: Iterable[Measurement]) -> Measurement | None:
    """Return the cell that shows that the answers of this cell are wrong; None if they are not.

    Either the same recipe in another format or on another runtime, which should have nearly the same answers, has an
    AUC that is higher by ``MATERIAL_AUC`` with separate intervals. Or this cell lost more than half of another cell's
    AUC above chance.
    """
    if row.auc is None:
        return None
    nearest = sorted((other for other in files if other is not row), key=lambda other: _distance(row, other))
    for other in nearest:
        if other.auc is None:
            continue
        if _is_twin(row, other) and row.auc.hi < other.auc.lo - MATERIAL_AUC:
            return other
        if row.auc.hi - CHANCE < (other.auc.lo - CHANCE) / 2:
            return other
    return None


def _distance(row: Measurement, other: Measurement) -> int:
    """Return 0 for the reference, 1 for twins, 2 for the same folder, 3 for all others."""
    if f"{other.model} @ {other.runtime}" == row.reference:
        return 0
    if _is_twin(row, other):
        return 1
    return 2 if groups.folder(other) == groups.folder(row) else 3


def _is_twin(row: Measurement, other: Measurement) -> bool:
    """Whether folder and recipe are the same: the same network in another format or on another runtime."""
    return (groups.folder(other), other.recipe) == (groups.folder(row), row.recipe)


def _minimum(
    name: str, rows: Sequence[Measurement], figure_of: Callable[[Measurement], Interval | None]
) -> Headline | None:
    figures = [(figure, row) for row in rows if (figure := figure_of(row)) is not None]
    if not figures:
        return None
    figure, row = min(figures, key=lambda pair: pair[0].value)
    return Headline(name, figure, row)


def _highest_auc(files: Sequence[Measurement]) -> Headline | None:
    aucs = sorted(((row.auc, row) for row in files if row.auc is not None), key=lambda pair: -pair[0].value)
    if not aucs:
        return None
    auc, best = aucs[0]
    others = [row for row in groups.networks(row for _, row in aucs) if not _is_twin(best, row)]
    rivals = [row for row in others if row.auc is not None and row.auc.hi >= auc.lo]
    return Headline("auc", auc, best, rivals=len(rivals), others=len(others))


def _wrong_answers_line(row: Measurement, better: Measurement) -> str:
    name = f"{better.model} @ {better.runtime}"
    comparison = f"{'reference' if name == row.reference else name} {three(value_of(better.auc))}"
    return f"{row.model} @ {row.runtime}: wrong answers: AUC {brackets(row.auc, three)}, {comparison}"


def _loss_line(row: Measurement) -> str:
    reference = row.reference or "its reference"
    return f"{row.model} @ {row.runtime}: loss of AUC: {brackets(row.d_auc, signed)} against {reference}"
