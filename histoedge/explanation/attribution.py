"""Where the model looked, and whether it looked where the label speaks of: the centre 32 x 32 px.

A model is asked through functions alone, so that exported files need no TensorFlow here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge
from histoedge.data import Split, image
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError
from histoedge.edge.patches import LABEL_PX, PATCH_PX
from histoedge.explanation import occlusion
from histoedge.progress import Progress, silent

UNIFORM_SHARE = (LABEL_PX / PATCH_PX) ** 2  # 1/9: what a map that knows nothing has in the centre
SAMPLE_PATCHES = 256  # the mean of a class is then known to about 0.02
SAMPLE_SEED = 0
SHEET_PATCHES = 8  # of each kind
CHUNK_PATCHES = 64
NORMAL_95 = 1.96

Maps = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """A map that needs the network itself. ``maps`` gives float (N, 96, 96) of uint8 (N, 96, 96, 3) patches;
    ``uniform_share`` is the centre's share of an even map, which need not reach the border.
    """

    name: str
    maps: Maps
    uniform_share: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is explained: ``predict`` gives logits float32 (N, 1, 1, 1) of uint8 (N, 96, 96, 3) patches,
    ``probability`` the probabilities of logits; the verdict is positive at ``threshold`` or above.
    """

    name: str
    predict: Maps
    probability: Maps
    threshold: float
    gradients: Gradients | None = None

    @property
    def uniform_shares(self) -> dict[str, float]:
        """The centre's share of an even map, by method: what a share is to be compared with."""
        others = {} if self.gradients is None else {self.gradients.name: self.gradients.uniform_share}
        return {"occlusion": UNIFORM_SHARE, **others}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One patch, uint8 (96, 96, 3), explained: by method its map, float (96, 96), its share (see ``centre_share``,
    None for nan) and the share of an even map.
    """

    id: str
    patch: np.ndarray
    logit: float
    probability: float
    positive: bool
    maps: Mapping[str, np.ndarray]
    shares: Mapping[str, float | None]
    uniform_shares: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """The numbers, one row of a table."""
        shares = {f"{method}_share": share for method, share in self.shares.items()}
        verdict = "tumour" if self.positive else "normal"
        return {"id": self.id, "verdict": verdict, "logit": self.logit, "probability": self.probability, **shares}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The mean centre share of some patches by one method, with its normal 95 % interval.

    ``n_patches`` have a share, ``n_without`` none because nothing in them held the logit up. ``uniform_share`` is
    what an even map would have. None where there are too few patches to tell.
    """

    patches: str
    method: str
    n_patches: int
    n_without: int
    share: float | None
    share_lo: float | None
    share_hi: float | None
    uniform_share: float


def exported(path: Path, *, runtime: str | None = None) -> Model:
    """The exported file at ``path``, answered by the runtime of that name or the first installed.

    Raises:
        ModelError, RuntimeUnavailable: as ``edge.load``.
    """
    manifest = manifests.read(path)
    runner = edge.load(path, runtime=runtime)
    return Model(name=path.name, predict=runner.predict, probability=manifest.probability, threshold=manifest.threshold)


def from_weights(path: Path, *, predict: Maps, gradients: Gradients) -> Model:
    """The network of a run's weights file, read as its exported files are: temperature 1, threshold 0.5."""

    def probability(logits: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))

    return Model(name=path.name, predict=predict, probability=probability, threshold=0.5, gradients=gradients)


def centre_share(maps: np.ndarray) -> np.ndarray:
    """The share of the positive evidence that lies in the centre 32 x 32 px.

    With m+ = max(m, 0) it is the sum of m+ over the middle third of the rows and columns, divided by the sum of m+
    over the whole map. Negative values (squares whose cover raises the logit: evidence against tumour) count nowhere.
    On occlusion ``tiles`` and on Grad-CAM maps no value belongs to the centre in part, so a model that sees the
    centre alone has an occlusion share of exactly 1 and an even map one of exactly 1/9.

    Args:
        maps: float (N, side, side) covering the 96 x 96 px evenly, side a multiple of 3.

    Returns:
        float64 (N,), nan for a map without positive values.
    """
    positive = np.maximum(maps.astype(np.float64), 0)
    third = maps.shape[1] // 3
    centre = positive[:, third : 2 * third, third : 2 * third].sum(axis=(1, 2))
    total = positive.sum(axis=(1, 2))
    shares = np.full(len(maps), np.nan)
    np.divide(centre, total, out=shares, where=total > 0)
    return shares


def images(model: Model, paths: Sequence[Path], *, progress: Progress = silent) -> Iterator[Explanation]:
    """The explanation of each image, in the order of ``paths``, one in memory at a time.

    Raises:
        ConfigError: two images of one name, before any work: their pictures would have one name too.
        DataError: an image that is not a 96 x 96 RGB patch; the message names it.
    """
    by_id: dict[str, Path] = {}
    for path in paths:
        if by_id.setdefault(path.stem, path) != path:
            raise ConfigError(f"{path} and {by_id[path.stem]} have one id; explain them one after the other")
    for number, path in enumerate(paths, start=1):
        yield _explained(model, path.stem, image.read_patch(path))
        progress("explain", number, len(paths))


def _explained(model: Model, id_: str, patch: np.ndarray) -> Explanation:
    logits = model.predict(patch[None]).reshape(-1)
    probability = float(model.probability(logits)[0])
    fine = occlusion.drops(model.predict, patch[None], stride_px=occlusion.STRIDE_PX)
    maps, shares = {"occlusion": occlusion.spread(fine[0])}, {"occlusion": centre_share(occlusion.tiles(fine))}
    if model.gradients is not None:
        mass = model.gradients.maps(patch[None])
        maps[model.gradients.name], shares[model.gradients.name] = mass[0], centre_share(mass)
    return Explanation(
        id=id_,
        patch=patch,
        logit=float(logits[0]),
        probability=probability,
        positive=probability >= model.threshold,
        maps=maps,
        shares={method: None if np.isnan(share[0]) else float(share[0]) for method, share in shares.items()},
        uniform_shares=model.uniform_shares,
    )


def evidence(name: str, shares: Mapping[str, np.ndarray], model: Model) -> list[Evidence]:
    """A row per method over shares, float (N,), nan where a patch has none."""
    rows = []
    for method, uniform in model.uniform_shares.items():
        known = shares[method][~np.isnan(shares[method])]
        mean = float(known.mean()) if len(known) else None
        half = NORMAL_95 * float(known.std(ddof=1)) / len(known) ** 0.5 if len(known) > 1 else None
        rows.append(
            Evidence(
                patches=name,
                method=method,
                n_patches=len(known),
                n_without=len(shares[method]) - len(known),
                share=mean,
                share_lo=None if mean is None or half is None else mean - half,
                share_hi=None if mean is None or half is None else mean + half,
                uniform_share=uniform,
            )
        )
    return rows


def of_images(model: Model, explained: Sequence[Mapping[str, Any]]) -> list[Evidence]:
    """The evidence over rows of ``Explanation.as_json``."""
    shares = {method: [row[f"{method}_share"] for row in explained] for method in model.uniform_shares}
    return evidence("images", {method: np.array(found, np.float64) for method, found in shares.items()}, model)


def of_split(model: Model, split: Split, *, progress: Progress = silent) -> list[Evidence]:
    """The evidence over at most 256 patches of a split, drawn with seed 0, tumour and normal ones apart."""
    chosen = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(len(split.labels))[:SAMPLE_PATCHES])
    shares: dict[str, list[np.ndarray]] = {method: [] for method in model.uniform_shares}
    for start in range(0, len(chosen), CHUNK_PATCHES):
        patches = split.patches[chosen[start : start + CHUNK_PATCHES]]
        shares["occlusion"].append(centre_share(occlusion.drops(model.predict, patches)))
        if model.gradients is not None:
            shares[model.gradients.name].append(centre_share(model.gradients.maps(patches)))
        progress("evidence", start + len(patches), len(chosen))
    labels = split.labels[chosen]
    every = {method: np.concatenate(parts) for method, parts in shares.items()}
    return [
        row
        for name, label in (("tumour", 1), ("normal", 0))
        for row in evidence(name, {method: found[labels == label] for method, found in every.items()}, model)
    ]


def probabilities(model: Model, split: Split, *, progress: Progress = silent) -> np.ndarray:
    """The model's probabilities, float64 (N,), of a whole split, read a chunk at a time."""
    parts = []
    for start in range(0, len(split.labels), CHUNK_PATCHES):
        patches = split.patches[start : start + CHUNK_PATCHES]
        parts.append(model.probability(model.predict(patches).reshape(-1)))
        progress("predict", start + len(patches), len(split.labels))
    return np.concatenate(parts)


def most_confident(labels: np.ndarray, found: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """The patches that the model is surest of, right and wrong.

    Args:
        labels: 0 and 1, (N,).
        found: probabilities (N,).
        threshold: positive at this probability or above.

    Returns:
        Indices, at most 8 of each kind, the surest first; patches of one probability in their own order.
    """
    positive = found >= threshold
    kinds = {
        "true positive": (labels == 1) & positive,
        "false negative": (labels == 1) & ~positive,
        "false positive": (labels == 0) & positive,
        "true negative": (labels == 0) & ~positive,
    }
    order = np.argsort(np.where(positive, -found, found), kind="stable")
    return {kind: order[members[order]][:SHEET_PATCHES] for kind, members in kinds.items()}
