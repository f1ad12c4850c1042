"""What patches look like, in a few numbers: do those of a scanner look like those of the training data?

    watch = drift.Watch(runner.manifest)
    watch.add(patches)                        # as often as there are some; memory stays the same
    report = watch.report()
    report.drifted, report.sentence

Patches of one slide are alike, and no slide is like the average of all. So nothing here compares means: a statistic is
outside when more than half of the patches lie below what 1 % of training patches lie below, or above what 1 % lie
above. If the training data are many slides of equally many patches, then by Markov's inequality at most 2 % of these
slides have more than half of their patches there: 1 % of all patches, over a half. One slide of the same kind is
therefore seldom outside, however much its patches are alike.
"""

import threading
from dataclasses import dataclass
from functools import cache

import numpy as np

from .errors import ConfigError, ModelError
from .manifest import Manifest
from .patches import PATCH_PX, check_patches

HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
"""Optical density of the stain in red, green and blue: Ruifrok and Johnston 2001, Quantification of Histochemical
Staining by Color Deconvolution."""
EOSIN = np.array([0.072, 0.990, 0.105])
"""The same of the other stain, from the same paper."""

NAMES = (
    *("red", "green", "blue", "contrast", "sharpness", "focus", "brightest", "white", "order"),
    *("haematoxylin", "eosin"),
)
"""What ``statistics`` tells of a patch, in its order."""
QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
LO, HI = "p01", "p99"
LARGEST_SHARE = 0.5
EVERY = 64
FEWEST = 50  # patches looked at: the standard error of a share of a half is then 7 %

ROW_STEP = 4  # neighbours down a column are alike: a quarter of the rows tells as much
BRIGHTEST = 0.98  # of a patch's pixels are as dark or darker
ORDER = np.array([0.018, 0.13, -16.0])
"""Weights of ``order``, positive for RGB: least squares of +1 for PatchCamelyon's training patches and -1 for the same
with red and blue exchanged, whose three differences have the other sign."""

_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)

CAUSES = {
    ("contrast", "below"): "hardly any contrast: no tissue, no light, or far out of focus",
    ("focus", "below"): "blurred: out of focus, or magnified more than 10x (0.972 um per px)",
    ("focus", "above"): "sharper than trained on: noise or sharpening",
    ("white", "below"): "too dark: exposure or white balance",
    ("brightest", "below"): "too dark: exposure or white balance",
    ("brightest", "above"): "too bright: exposure or white balance",
    ("order", "below"): "red and blue look exchanged: channels in the order BGR, or a white balance far off",
    ("order", "above"): "colours far from grey: white balance",
    ("haematoxylin", "below"): "pale haematoxylin: stain, or over-exposure",
    ("haematoxylin", "above"): "strong haematoxylin: stain, section thickness or exposure",
    ("eosin", "below"): "pale eosin: stain, or over-exposure",
    ("eosin", "above"): "strong eosin: stain, section thickness, or blood",
}
"""What a statistic outside means, the most telling first: the sentence names the first that holds."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One statistic of the patches looked at, beside that of the training patches."""

    name: str
    mean: float
    trained_mean: float
    trained_p01: float
    trained_p99: float
    share_below: float
    """Of the patches looked at, below ``trained_p01``; 0.01 for training patches."""
    share_above: float
    """Of the patches looked at, above ``trained_p99``."""

    @property
    def side(self) -> str | None:
        """``below`` or ``above`` where more than ``LARGEST_SHARE`` of the patches lie, else None."""
        if self.share_below > LARGEST_SHARE:
            return "below"
        return "above" if self.share_above > LARGEST_SHARE else None

    @property
    def outside(self) -> bool:
        """Whether this does not look like the training data."""
        return self.side is not None


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What a ``Watch`` has seen of ``n_patches``: ``n_looked`` are told of, ``n_glass`` were set aside."""

    n_patches: int
    n_looked: int
    n_glass: int
    statistics: tuple[Seen, ...]

    @property
    def enough(self) -> bool:
        """Whether enough patches were looked at to say anything."""
        return self.n_looked >= FEWEST

    @property
    def drifted(self) -> bool:
        """Whether the patches do not look like the training data; False while there are too few to say."""
        return self.enough and any(one.outside for one in self.statistics)

    @property
    def sentence(self) -> str:
        """One line: what is off and the likely cause."""
        if not self.enough:
            told = f"{self.n_looked} looked at and {self.n_glass} of glass"
            return f"too few patches yet to say: {told}, {FEWEST} are needed"
        outside = {(one.name, one.side): one for one in self.statistics if one.side is not None}
        if not outside:
            return f"these look like the training data, by {self.n_looked} patches looked at"
        first = next((key for key in CAUSES if key in outside), next(iter(outside)))
        one = outside[first]
        share, bound = max(
            (one.share_below, f"below {one.trained_p01:.4g}"), (one.share_above, f"above {one.trained_p99:.4g}")
        )
        others = [f"{name} {side}" for name, side in outside if (name, side) != first]
        return (
            f"these do not look like the training data: {CAUSES.get(first, ' '.join(first))} "
            f"({one.name} {bound} in {share:.0%} of {self.n_looked} patches, 1% in training)"
            + (f"; also outside: {', '.join(others)}" if others else "")
        )


class Watch:
    """Compares a stream of patches with the training data of a model. Any number of threads may share it.

    It looks at one patch in ``every``, so that it costs a small part of the model's own time. Glass is set aside: less
    contrast than 99 % of the training patches have, and more green than half of them.

    Raises:
        ConfigError: ``every`` is below 1.
        ModelError: the manifest does not tell all statistics of the training patches.
    """

    def __init__(self, manifest: Manifest, *, every: int = EVERY) -> None:
        if every < 1:
            raise ConfigError(f"every is {every}; expected at least 1, which looks at every patch")
        known = manifest.input_statistics
        if missing := [name for name in NAMES if not {"mean", LO, "p50", HI} <= known.get(name, {}).keys()]:
            raise ModelError(
                f"the manifest does not tell {', '.join(missing)} of the training patches; export the model again"
            )
        self._trained = {key: np.array([known[name][key] for name in NAMES]) for key in ("mean", LO, HI)}
        self._glass = known["contrast"][LO], known["green"]["p50"]
        self._every, self._turn = every, threading.Lock()
        self._n_patches = self._n_looked = self._n_glass = 0
        self._sums, self._below, self._above = np.zeros((3, len(NAMES)))

    def add(self, patches: np.ndarray) -> None:
        """Look at some of these: uint8 (N, H, W, 3) RGB raw pixels; larger fields are cut into whole patches.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, or smaller than 96 x 96.
        """
        patches = check_patches(patches, stride_px=PATCH_PX)
        count, height, width = (
            side // size for side, size in zip(patches.shape, (1, PATCH_PX, PATCH_PX), strict=False)
        )
        whole = count * height * width
        with self._turn:
            skipped = -self._n_patches % self._every
            self._n_patches += whole
        chosen = np.arange(skipped, whole, self._every)
        if not chosen.size:
            return
        cut = patches.reshape(count, height, PATCH_PX, width, PATCH_PX, 3)
        image, row, column = np.unravel_index(chosen, (count, height, width))
        found = statistics(cut[image, row, :, column])
        least_contrast, bright = self._glass
        kept = (found["contrast"] >= least_contrast) | (found["green"] <= bright)  # tissue takes green
        values = np.stack([found[name][kept] for name in NAMES], axis=1)
        with self._turn:
            self._n_glass += len(kept) - len(values)
            self._n_looked += len(values)
            self._sums += values.sum(axis=0)
            self._below += (values < self._trained[LO]).sum(axis=0)
            self._above += (values > self._trained[HI]).sum(axis=0)

    def report(self) -> DriftReport:
        """What was seen up to now, and whether it looks like the training data."""
        with self._turn:
            n_patches, looked, n_glass = self._n_patches, self._n_looked, self._n_glass
            means, below, above = (total / max(looked, 1) for total in (self._sums, self._below, self._above))
        seen = tuple(
            Seen(
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
        return DriftReport(n_patches=n_patches, n_looked=looked, n_glass=n_glass, statistics=seen)


def statistics(patches: np.ndarray) -> dict[str, np.ndarray]:
    """One number per patch and statistic, float64 (N,), of every fourth row of uint8 (N, H, W, 3) RGB pixels.

    ``red``, ``green``, ``blue``: mean of the channel, 0..255. ``contrast``: standard deviation of the grey value.
    ``sharpness``: mean absolute difference between the grey values of neighbours in a row. ``focus``: the same over
    that of pixels two apart; 0.5 where everything is smooth, 1 where neighbours are as different as any.
    ``brightest``, ``white``: 98 % of the pixels have this grey value, and this in their largest channel, or less.
    ``order``: above 0 where red and blue differ as in RGB (``ORDER``): in their mean, in their standard deviation, and
    in their correlation with green. ``haematoxylin``, ``eosin``: mean optical density of the stain (``stains``).
    """
    rows = np.ascontiguousarray(patches[:, ::ROW_STEP])
    pixels = rows.reshape(len(rows), -1, 3)
    values = pixels.astype(np.float32)
    means = _mean(values)
    values -= means[:, None]
    covariance = np.matmul(values.transpose(0, 2, 1), values) / values.shape[1]
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    with_green = covariance[:, :, 1] / (spread * spread[:, 1:2] + 1)  # one grey value squared: 0 on plain patches
    differences = [values[:, 0] - values[:, 2] for values in (means, spread, with_green)]
    red, green, blue = (rows[..., channel] for channel in range(3))
    three_grey = red.astype(np.int16) + green + blue
    largest = np.maximum(np.maximum(red, green), blue)
    fine, coarse = (np.abs(three_grey[:, :, step:] - three_grey[:, :, :-step]).mean(axis=(1, 2)) / 3 for step in (1, 2))
    at = int(BRIGHTEST * (pixels.shape[1] - 1))
    densities = stains(rows)
    found = {
        **dict(zip(("red", "green", "blue"), means.T, strict=True)),
        "contrast": np.sqrt(covariance.sum(axis=(1, 2))) / 3,
        "sharpness": fine,
        "focus": fine / (coarse + 0.1),
        "brightest": np.partition(three_grey.reshape(len(rows), -1), at, axis=1)[:, at] / 3,
        "white": np.partition(largest.reshape(len(rows), -1), at, axis=1)[:, at],
        "order": np.stack(differences, axis=1) @ ORDER,
        **dict(zip(("haematoxylin", "eosin"), densities.T, strict=True)),
    }
    return {name: values.astype(np.float64) for name, values in found.items()}


def stains(patches: np.ndarray) -> np.ndarray:
    """Mean haematoxylin and eosin density, float (N, 2), of uint8 (N, H, W, 3) RGB pixels.

    Colour deconvolution of Ruifrok and Johnston 2001, their third vector the cross product of the two stains.
    """
    return np.asarray((_mean(_DENSITY[patches.reshape(len(patches), -1, 3)]) @ _unmixing())[:, :2])


@cache
def _unmixing() -> np.ndarray:
    two = np.stack([HAEMATOXYLIN, EOSIN])
    two = two / np.linalg.norm(two, axis=1, keepdims=True)
    third = np.cross(two[0], two[1])
    return np.linalg.inv(np.vstack([two, third / np.linalg.norm(third)]))


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean (N, 3) of float32 (N, pixels, 3): a product with ones is several times faster than ``mean``."""
    return np.asarray(np.ones(values.shape[1], np.float32) @ values / values.shape[1])


def describe(patches: np.ndarray) -> dict[str, dict[str, float]]:
    """By the name of a statistic its ``mean`` and ``QUANTILES`` over the patches, in five digits."""
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
