"""Do 95 % intervals contain the true value 95 times in 100? ``python benchmarks/coverage.py --out F [--seed S]``.

Draws test sets from populations whose true value is known, computes the interval of each and counts how many contain
it. The last rows draw whole slides. A slide contains patches of one class, as a slide without metastases does, and all
its scores have a common random shift.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from record import Row, run_script, write_record
from scipy import stats

from histoedge import metrics
from histoedge.data import synthetic
from histoedge.edge import drift
from histoedge.metrics import Interval, by_slide
from histoedge.progress import on_terminal

DRAWS, DRAWS_OF_SLIDES = 4000, 3000
TEST_PATCHES = 1420  # the size of the test split in the other results
SYNTHETIC_SLIDES = 100

Draw = Callable[[np.random.Generator], Interval]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A population with the true value ``true``; ``draw`` draws a test set from it and returns the interval."""

    interval: str
    of: str
    n_patches: int
    true: float
    draw: Draw
    draws: int = DRAWS


def half(count: int) -> np.ndarray:
    """Return labels, half of each class."""
    return np.repeat([0, 1], count // 2)


def area(shift: float) -> float:
    """Return the AUC of two unit normals whose means differ by ``shift``."""
    return float(stats.norm.cdf(shift / 2**0.5))


def unpaired(random: np.random.Generator, labels: np.ndarray, shift: float, *, digits: int | None = None) -> Interval:
    """Return DeLong's interval of unit normals ``shift`` apart, with scores rounded to ``digits`` where given."""
    scores = random.normal(shift * labels)
    return metrics.delong(labels, scores if digits is None else np.round(scores, digits))


def paired(random: np.random.Generator, labels: np.ndarray, shifts: tuple[float, float], shared: float) -> Interval:
    """Return DeLong's paired interval of two scores with a common part of standard deviation ``shared``."""
    common, rest = random.normal(0, shared, len(labels)), (1 - shared**2) ** 0.5
    first, second = (shift * labels + common + random.normal(0, rest, len(labels)) for shift in shifts)
    return metrics.delong_difference(labels, first, second)


def of_auc() -> Iterator[Truth]:
    """Yield the cases of DeLong's interval, unpaired and paired."""
    for shift, count in ((1.0, 100), (1.0, 200), (2.2, 200), (2.2, TEST_PATCHES)):
        yield Truth(
            interval="DeLong",
            of=f"normals {shift} apart",
            n_patches=count,
            true=area(shift),
            draw=partial(unpaired, labels=half(count), shift=shift),
        )
    edges = np.arange(-8.5, 10.5)
    low, high = (np.diff(stats.norm.cdf(edges, mean)) for mean in (0, 1))
    yield Truth(
        interval="DeLong",
        of="normals 1.0 apart, rounded to whole numbers",
        n_patches=200,
        true=float(high @ (np.cumsum(low) - low / 2)),
        draw=partial(unpaired, labels=half(200), shift=1.0, digits=0),
    )
    for shifts, shared, count in (((1.0, 0.6), 0.8, 200), ((2.2, 2.1), 0.95, TEST_PATCHES), ((2.2, 2.2), 0.95, 200)):
        yield Truth(
            interval="paired DeLong",
            of=f"normals {shifts[0]} and {shifts[1]} apart, correlation {shared**2:.2f}",
            n_patches=count,
            true=area(shifts[0]) - area(shifts[1]),
            draw=partial(paired, labels=half(count), shifts=shifts, shared=shared),
        )


def brier(random: np.random.Generator) -> Interval:
    """Return the interval of the Brier score of calibrated, uniform probabilities."""
    shares = random.random(200)
    return metrics.brier(random.random(200) < shares, shares)


def of_decisions() -> Iterator[Truth]:
    """Yield the cases of operating points and of the Brier score."""
    labels = half(TEST_PATCHES)

    def at_share(random: np.random.Generator, measure: Callable[..., Interval], share: float) -> Interval:
        return measure(labels, random.normal(2.2 * labels), share)

    measures: tuple[tuple[str, Callable[..., Interval]], ...] = (
        ("sensitivity at {} % specificity", metrics.sensitivity_at_specificity),
        ("specificity at {} % sensitivity", metrics.specificity_at_sensitivity),
    )
    for name, measure in measures:
        for percent in (90, 95, 99):
            yield Truth(
                interval=f"bootstrap, {name.format(percent)}",
                of="normals 2.2 apart",
                n_patches=TEST_PATCHES,
                true=float(stats.norm.sf(stats.norm.ppf(percent / 100) - 2.2)),
                draw=partial(at_share, measure=measure, share=percent / 100),
            )
    yield Truth(interval="normal, Brier score", of="uniform probabilities", n_patches=200, true=1 / 6, draw=brier)


@dataclass(frozen=True)
class Slides:
    """Slides with 20 patches of one class each; all scores of a slide have a common random shift."""

    count: int

    @property
    def slide(self) -> np.ndarray:
        """The number of each patch's slide."""
        return np.repeat(np.arange(self.count), 20)

    @property
    def labels(self) -> np.ndarray:
        """Label of each patch: that of its slide."""
        return self.slide % 2

    @property
    def names(self) -> list[str]:
        """Name of each patch's slide."""
        return [f"{number}" for number in self.slide]

    def scores(self, random: np.random.Generator, shift: float) -> np.ndarray:
        """Draw scores whose class means differ by ``shift``."""
        common = random.normal(0, 1, self.count)[self.slide]
        return np.asarray(shift * self.labels + common + random.normal(0, 1, len(self.slide)))

    def over_slides(self, random: np.random.Generator) -> Interval:
        """Return the interval over slides."""
        return by_slide.auc(self.labels, self.scores(random, 1.0), self.names)

    def over_patches(self, random: np.random.Generator) -> Interval:
        """Return DeLong's interval, which assumes independent patches."""
        return metrics.delong(self.labels, self.scores(random, 1.0))

    def difference(self, random: np.random.Generator) -> Interval:
        """Return the paired interval over slides."""
        return by_slide.auc_difference(self.labels, self.scores(random, 1.0), self.scores(random, 0.6), self.names)


def of_slides() -> Iterator[Truth]:
    """Yield the interval over slides, and DeLong's on the same patches, which assumes independent patches."""
    for count in (10, 20, 40, 100):
        slides = Slides(count)
        of = f"{count} slides of 20 patches, shifts of spread 1"
        case = partial(Truth, of=of, n_patches=len(slides.slide), draws=DRAWS_OF_SLIDES)
        yield case(interval="over slides", true=area(2**-0.5), draw=slides.over_slides)
        yield case(interval="DeLong", true=area(2**-0.5), draw=slides.over_patches)
        if count >= 40:
            expected = area(2**-0.5) - area(0.6 * 2**-0.5)
            yield case(interval="paired, over slides", true=expected, draw=slides.difference)


def of_synthetic_slides() -> Iterator[Truth]:
    """Yield slides drawn from the synthetic source; the score is the optical density of the nuclear stain."""
    split = synthetic.generate("test", patches=SYNTHETIC_SLIDES * synthetic.PATCHES_PER_SLIDE, seed=0)
    slide = np.arange(len(split.labels)) // synthetic.PATCHES_PER_SLIDE
    of_one_class = split.labels == slide % 2
    labels, slide = split.labels[of_one_class], slide[of_one_class]
    scores = np.concatenate(
        [drift.stains(split.patches[part])[:, 0] for part in np.array_split(np.arange(len(of_one_class)), 50)]
    )
    scores = scores[of_one_class]
    members = [np.flatnonzero(slide == number) for number in range(SYNTHETIC_SLIDES)]

    def draw_slides(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        chosen = [members[number] for number in random.integers(0, SYNTHETIC_SLIDES, count)]
        patches = np.concatenate(chosen)
        ids = np.repeat(np.arange(count), [len(slide_rows) for slide_rows in chosen])
        return labels[patches], scores[patches], [str(number) for number in ids]

    def over_slides(random: np.random.Generator, count: int) -> Interval:
        return by_slide.auc(*draw_slides(random, count))

    def over_patches(random: np.random.Generator, count: int) -> Interval:
        return metrics.delong(*draw_slides(random, count)[:2])

    for count in (20, 40):
        case = partial(
            Truth,
            of=f"{count} of {SYNTHETIC_SLIDES} synthetic slides",
            n_patches=round(count * len(labels) / SYNTHETIC_SLIDES),
            true=metrics.auc(labels, scores),
            draws=DRAWS_OF_SLIDES,
        )
        yield case(interval="over slides", draw=partial(over_slides, count=count))
        yield case(interval="DeLong", draw=partial(over_patches, count=count))


def coverage_row(case: Truth, seed: int) -> Row:
    """Return the share of intervals that contain the true value, with its Wilson interval, and the misses by side."""
    random = np.random.default_rng(seed)
    intervals = [case.draw(random) for _ in range(case.draws)]
    covered = metrics.proportion(sum(drawn.lo <= case.true <= drawn.hi for drawn in intervals), case.draws)
    return {
        "interval": case.interval,
        "of": case.of,
        "n_patches": case.n_patches,
        "true": case.true,
        "draws": case.draws,
        "coverage": covered.value,
        "coverage_lo": covered.lo,
        "coverage_hi": covered.hi,
        "too_low": sum(drawn.hi < case.true for drawn in intervals) / case.draws,
        "too_high": sum(drawn.lo > case.true for drawn in intervals) / case.draws,
        "mean_width": float(np.mean([drawn.hi - drawn.lo for drawn in intervals])),
    }


def coverage_command() -> None:
    """Write a row for each interval and population."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cases = [*of_auc(), *of_decisions(), *of_slides(), *of_synthetic_slides()]
    rows = []
    with on_terminal() as show:
        for done, case in enumerate(cases, start=1):
            rows.append(coverage_row(case, arguments.seed))
            show("coverage, cases", done, len(cases), f"{case.interval}, {case.of}: {rows[-1]['coverage']:.3f}")
    write_record(
        arguments.out,
        kind="coverage",
        command="python benchmarks/coverage.py --out F",
        about="How often a 95 % interval contains the true value in simulation, with Wilson's 95 % interval of that "
        "share; how often the interval is below (`too_low`) or above (`too_high`) the true value. A slide has one "
        "class and a common shift of its scores; DeLong's interval assumes independent patches.",
        rows=rows,
    )


if __name__ == "__main__":
    run_script(coverage_command)
