"""Input drift: compare statistics of a scanner's patches with those of the training patches.

    watch = drift.Watch(runner.manifest)
    watch.add(patches)                        # call it for each batch; memory use stays constant
    report = watch.report()
    report.drifted, report.sentence

Patches of one slide resemble each other, and no slide matches the average of all slides. Means are therefore not
compared. A statistic is outside when more than half of the patches are below the 1st percentile of the training
patches, or more than half are above their 99th percentile. If the training data are many slides with equally many
patches, then by Markov's inequality at most 2 % of these slides have more than half of their patches there (1 % of all
patches, divided by one half). A slide of the same kind is therefore seldom outside, however similar its patches are.
"""

import threading
from dataclasses import dataclass
from functools import cache

import numpy as np

from .errors import ConfigError, ModelError
from .manifest import Manifest
from .patches import UM_PER_PX, check_patches

HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
"""Optical density of the stain in red, green and blue: Ruifrok and Johnston 2001, Quantification of Histochemical
Staining by Color Deconvolution."""
EOSIN = np.array([0.072, 0.990, 0.105])
"""Optical density of eosin in red, green and blue; same paper."""

NAMES = (
    *("red", "green", "blue", "contrast", "sharpness", "focus", "brightest", "white", "order"),
    *("haematoxylin", "eosin"),
)
"""The statistics of a patch, in the order of ``statistics``."""
QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
LO, HI = "p01", "p99"
LARGEST_SHARE = 0.5
STEP = 64
MIN_PATCHES = 50  # examined; the standard error of a share of one half is then 7 %

ROW_STEP = 4  # vertical neighbours are similar: a quarter of the rows is enough
BRIGHTEST = 0.98  # quantile of a patch's pixels
ORDER = np.array([0.018, 0.13, -16.0])
"""Weights of ``order``, which is positive for RGB: a least-squares fit to +1 for PatchCamelyon's training patches and
-1 for the same patches with red and blue swapped, whose three differences have the opposite sign."""

_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)

CAUSES = {
    ("contrast", "below"): "hardly any contrast: no tissue, no light, or far out of focus",
    ("focus", "below"): "blurred: out of focus, or finer than {um_per_px:g} um per px",
    ("focus", "above"): "sharper than the training patches: noise or sharpening",
    ("white", "below"): "too dark: exposure or white balance",
    ("brightest", "below"): "too dark: exposure or white balance",
    ("brightest", "above"): "too bright: exposure or white balance",
    ("order", "below"): "red and blue look swapped: channel order BGR, or wrong white balance",
    ("order", "above"): "strong colour cast: white balance",
    ("haematoxylin", "below"): "pale haematoxylin: stain, or over-exposure",
    ("haematoxylin", "above"): "strong haematoxylin: stain, section thickness or exposure",
    ("eosin", "below"): "pale eosin: stain, or over-exposure",
    ("eosin", "above"): "strong eosin: stain, section thickness, or blood",
}
"""Likely cause of each statistic outside, the most specific first: the sentence names the first that applies."""


@dataclass(frozen=True, kw_only=True)
class StatisticDrift:
    """One statistic of the examined patches, compared with the training patches."""

    name: str
    mean: float
    trained_mean: float
    trained_p01: float
    trained_p99: float
    share_below: float
    """Share of the examined patches below ``trained_p01``; 0.01 for training patches."""
    share_above: float
    """Share of the examined patches above ``trained_p99``."""

    @property
    def side(self) -> str | None:
        """The side with more than ``LARGEST_SHARE`` of the patches, ``below`` or ``above``; None when neither has."""
        if self.share_below > LARGEST_SHARE:
            return "below"
        return "above" if self.share_above > LARGEST_SHARE else None

    @property
    def outside(self) -> bool:
        """Whether the patches differ from the training data in this statistic."""
        return self.side is not None


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """Result of a ``Watch``: of ``n_patches``, ``n_looked`` were examined and ``n_glass`` excluded as glass.

    ``um_per_px`` is the resolution of the training patches.
    """

    n_patches: int
    n_looked: int
    n_glass: int
    statistics: tuple[StatisticDrift, ...]
    um_per_px: float = UM_PER_PX

    @property
    def enough(self) -> bool:
        """Whether at least ``MIN_PATCHES`` patches were examined."""
        return self.n_looked >= MIN_PATCHES

    @property
    def drifted(self) -> bool:
        """Whether the patches differ from the training data; False with fewer than ``MIN_PATCHES``."""
        return self.enough and any(statistic.outside for statistic in self.statistics)

    @property
    def sentence(self) -> str:
        """One line: what is outside, and the likely cause."""
        if not self.enough:
            counts = f"{self.n_looked} examined, {self.n_glass} excluded as glass"
            return f"too few patches: {counts}; at least {MIN_PATCHES} examined patches are needed"
        outside = {(row.name, row.side): row for row in self.statistics if row.side is not None}
        if not outside:
            return f"these patches look like the training data ({self.n_looked} examined)"
        first = next((key for key in CAUSES if key in outside), next(iter(outside)))
        row = outside[first]
        share, bound = max(
            (row.share_below, f"below {row.trained_p01:.4g}"), (row.share_above, f"above {row.trained_p99:.4g}")
        )
        cause = CAUSES.get(first, " ".join(first)).format(um_per_px=self.um_per_px)
        others = [f"{name} {side}" for name, side in outside if (name, side) != first]
        return (
            f"these patches do not look like the training data: {cause} "
            f"({row.name} {bound} in {share:.0%} of {self.n_looked} patches, 1% in training)"
            + (f"; also outside: {', '.join(others)}" if others else "")
        )


class Watch:
    """Compares a stream of patches with the training data of a model. Any number of threads may share it.

    It examines one patch in ``step``, to add little to the model's own time. Glass is excluded: patches with less
    contrast than 99 % of the training patches, and more green than half of them.

    Raises:
        ConfigError: ``step`` is below 1.
        ModelError: the manifest lacks statistics of the training patches.
    """

    def __init__(self, manifest: Manifest, *, step: int = STEP) -> None:
        if step < 1:
            raise ConfigError(f"step is {step}; expected at least 1, which examines all patches")
        trained = manifest.input_statistics
        if missing := [name for name in NAMES if not {"mean", LO, "p50", HI} <= trained.get(name, {}).keys()]:
            raise ModelError(f"the manifest's input_statistics lack {', '.join(missing)}; export the model again")
        self._patch_px, self._um_per_px = manifest.patch_px, manifest.um_per_px
        self._trained = {key: np.array([trained[name][key] for name in NAMES]) for key in ("mean", LO, HI)}
        self._glass = trained["contrast"][LO], trained["green"]["p50"]
        self._step, self._lock = step, threading.Lock()
        self._n_patches = self._n_looked = self._n_glass = 0
        self._sums, self._below, self._above = np.zeros((3, len(NAMES)))

    def add(self, patches: np.ndarray) -> None:
        """Examine one patch in ``step`` of raw RGB pixels, uint8 (N, H, W, 3); fields are cut into whole patches.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, or smaller than a patch.
        """
        side = self._patch_px
        patches = check_patches(patches, patch_px=side, stride_px=side)
        count, height, width = len(patches), patches.shape[1] // side, patches.shape[2] // side
        whole = count * height * width
        with self._lock:
            skipped = -self._n_patches % self._step
            self._n_patches += whole
        chosen = np.arange(skipped, whole, self._step)
        if not chosen.size:
            return
        cut = patches.reshape(count, height, side, width, side, 3)
        image, row, column = np.unravel_index(chosen, (count, height, width))
        columns = statistics(cut[image, row, :, column])
        least_contrast, bright = self._glass
        tissue = (columns["contrast"] >= least_contrast) | (columns["green"] <= bright)  # tissue absorbs green
        values = np.stack([columns[name][tissue] for name in NAMES], axis=1)
        with self._lock:
            self._n_glass += len(tissue) - len(values)
            self._n_looked += len(values)
            self._sums += values.sum(axis=0)
            self._below += (values < self._trained[LO]).sum(axis=0)
            self._above += (values > self._trained[HI]).sum(axis=0)

    def report(self) -> DriftReport:
        """Return the report on all patches added before."""
        with self._lock:
            n_patches, n_looked, n_glass = self._n_patches, self._n_looked, self._n_glass
            means, below, above = (total / max(n_looked, 1) for total in (self._sums, self._below, self._above))
        rows = tuple(
            StatisticDrift(
                name=name,
                mean=float(means[at]),
                trained_mean=float(self._trained["mean"][at]),
                trained_p01=float(self._trained[LO][at]),
                trained_p99=float(self._trained[HI][at]),
                share_below=float(below[at]),
                share_above=float(above[at]),
            )
            for at, name in enumerate(NAMES)
        )
        counts = {"n_patches": n_patches, "n_looked": n_looked, "n_glass": n_glass}
        return DriftReport(**counts, statistics=rows, um_per_px=self._um_per_px)


def statistics(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Return each statistic of each patch, float64 (N,), from every fourth row of uint8 (N, H, W, 3) RGB pixels.

    ``red``, ``green``, ``blue``: mean of the channel, 0..255. ``contrast``: standard deviation of the grey value.
    ``sharpness``: mean absolute difference between the grey values of horizontal neighbours. ``focus``: ``sharpness``
    divided by the same for pixels two apart; 0.5 for a smooth patch, 1 when neighbours are uncorrelated.
    ``brightest``, ``white``: 98th percentile of the grey value, and of the largest channel.
    ``order``: above 0 where red and blue differ as in RGB (``ORDER``): in their mean, their standard deviation, and
    their correlation with green. ``haematoxylin``, ``eosin``: mean optical density of the stain (``stains``).
    """
    rows = np.ascontiguousarray(patches[:, ::ROW_STEP])
    pixels = rows.reshape(len(rows), -1, 3)
    values = pixels.astype(np.float32)
    means = _mean(values)
    values -= means[:, None]
    covariance = np.matmul(values.transpose(0, 2, 1), values) / values.shape[1]
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    with_green = covariance[:, :, 1] / (spread * spread[:, 1:2] + 1)  # + one grey value squared: 0 on plain patches
    differences = [values[:, 0] - values[:, 2] for values in (means, spread, with_green)]
    red, green, blue = (rows[..., channel] for channel in range(3))
    three_grey = red.astype(np.int16) + green + blue
    largest = np.maximum(np.maximum(red, green), blue)
    fine, coarse = (np.abs(three_grey[:, :, step:] - three_grey[:, :, :-step]).mean(axis=(1, 2)) / 3 for step in (1, 2))
    at = int(BRIGHTEST * (pixels.shape[1] - 1))
    densities = stains(rows)
    columns = {
        **dict(zip(("red", "green", "blue"), means.T, strict=True)),
        "contrast": np.sqrt(covariance.sum(axis=(1, 2))) / 3,
        "sharpness": fine,
        "focus": fine / (coarse + 0.1),
        "brightest": np.partition(three_grey.reshape(len(rows), -1), at, axis=1)[:, at] / 3,
        "white": np.partition(largest.reshape(len(rows), -1), at, axis=1)[:, at],
        "order": np.stack(differences, axis=1) @ ORDER,
        **dict(zip(("haematoxylin", "eosin"), densities.T, strict=True)),
    }
    return {name: values.astype(np.float64) for name, values in columns.items()}


def stains(patches: np.ndarray) -> np.ndarray:
    """Return the mean haematoxylin and eosin densities, float (N, 2), of uint8 (N, H, W, 3) RGB pixels.

    Colour deconvolution of Ruifrok and Johnston 2001; the third vector is the cross product of the two stains.
    """
    return np.asarray((_mean(_DENSITY[patches.reshape(len(patches), -1, 3)]) @ _unmixing())[:, :2])


@cache
def _unmixing() -> np.ndarray:
    two = np.stack([HAEMATOXYLIN, EOSIN])
    two = two / np.linalg.norm(two, axis=1, keepdims=True)
    third = np.cross(two[0], two[1])
    return np.linalg.inv(np.vstack([two, third / np.linalg.norm(third)]))


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean (N, 3) of float32 (N, pixels, 3); a product with ones is several times faster than ``mean``."""
    return np.asarray(np.ones(values.shape[1], np.float32) @ values / values.shape[1])


def describe(patches: np.ndarray) -> dict[str, dict[str, float]]:
    """Return for each statistic its ``mean`` and ``QUANTILES`` over the patches, in five digits."""
    return {
        name: {
            key: float(f"{value:.5g}")
            for key, value in {
                "mean": values.mean(),
                **dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True)),
            }.items()
        }
        for name, values in statistics(patches).items()
    }
