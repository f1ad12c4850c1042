"""Attribution maps of one model: occlusion, Grad-CAM if its weights are available, and their share in the centre.

The label of a patch applies to its centre, 32 x 32 of 96 px in PatchCamelyon. The share of the positive evidence in
that square measures whether the model looks there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from histoedge import edge
from histoedge.data import Split, image
from histoedge.data.geometry import Geometry
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError
from histoedge.edge.patches import LABEL_PX, PATCH_PX
from histoedge.explanation import occlusion
from histoedge.explanation.centre import centre_share
from histoedge.progress import Progress, silent

WEIGHTS_SUFFIX = ".weights.h5"
WEIGHTS_THRESHOLD = 0.5  # the threshold that export writes into every manifest
SAMPLE_PATCHES = 256  # the standard error of a class mean is then about 0.02
SAMPLE_SEED = 0
SHEET_PATCHES = 8  # of each kind
CHUNK_PATCHES = 64
NORMAL_95 = 1.96

Maps = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """A method that needs the network itself: ``maps`` returns float (N, S, S) of uint8 (N, S, S, 3) patches.

    ``uniform_share`` is the centre's share of a constant map, which need not reach the border.
    """

    name: str
    maps: Maps
    uniform_share: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model to explain.

    ``predict`` returns logits float32 (N, 1, 1, 1) of uint8 (N, S, S, 3) patches, S = ``patch_px``, whose label applies
    to the central ``label_px``. Probabilities are those of the logits at ``temperature``; a patch is positive, of the
    second of ``classes``, at ``threshold`` or above.
    """

    name: str
    predict: Maps
    temperature: float
    threshold: float
    gradients: Gradients | None = None
    patch_px: int = PATCH_PX
    label_px: int = LABEL_PX
    classes: tuple[str, str] = manifests.CLASSES

    @property
    def per_side(self) -> int:
        """Squares of an occlusion map along a side."""
        return occlusion.squares_per_side(self.patch_px, self.label_px)

    def centre_share(self, maps: np.ndarray) -> np.ndarray:
        """Return ``centre_share`` of maps of this model's patches."""
        return centre_share(maps, patch_px=self.patch_px, label_px=self.label_px)

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities of logits, float64, as ``Manifest.probability``."""
        return manifests.probability(logits, self.temperature)

    @property
    def uniform_shares(self) -> dict[str, float]:
        """The centre's share of a constant map by method: the value to compare a share with."""
        others = {} if self.gradients is None else {self.gradients.name: self.gradients.uniform_share}
        return {"occlusion": (self.label_px / self.patch_px) ** 2, **others}


class GradientNetwork(Protocol):
    """A network opened from a weights file, see ``lab.gradcam.GradCam``; ``temperature`` as export writes it."""

    @property
    def temperature(self) -> float:
        """The temperature fitted on valid."""
        ...

    @property
    def geometry(self) -> Geometry:
        """Sizes and classes of the training data."""
        ...

    @property
    def uniform_share(self) -> float:
        """See ``Gradients``."""
        ...

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """See ``Model``."""
        ...

    def maps(self, patches: np.ndarray) -> np.ndarray:
        """See ``Gradients``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One explained patch, uint8 (S, S, 3), with its ``verdict``, a class name, and the side of its labelled square.

    By method: its map, float (S, S), its share in the centre (see ``centre_share``; None for nan) and the share of a
    constant map.
    """

    id: str
    patch: np.ndarray
    logit: float
    probability: float
    positive: bool
    verdict: str
    label_px: int
    maps: Mapping[str, np.ndarray]
    shares: Mapping[str, float | None]
    uniform_shares: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, one row of a table."""
        shares = {f"{method}_share": share for method, share in self.shares.items()}
        return {"id": self.id, "verdict": self.verdict, "logit": self.logit, "probability": self.probability, **shares}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The mean centre share of some patches by one method, with its normal 95 % interval.

    ``n_patches`` have a share; ``n_without`` have none, because no region of them raises the logit. ``uniform_share``
    is the share of a constant map. ``share`` and its bounds are None with too few patches.
    """

    patches: str
    method: str
    n_patches: int
    n_without: int
    share: float | None
    share_lo: float | None
    share_hi: float | None
    uniform_share: float


def open_model(path: Path, *, runtime: str | None, open_weights: Callable[[Path], GradientNetwork]) -> Model:
    """Open an exported file, or a run's weights file with ``open_weights``.

    Raises:
        ConfigError: a runtime for a weights file.
        ModelError, RuntimeUnavailable: the file cannot be opened.
    """
    if not path.name.endswith(WEIGHTS_SUFFIX):
        return exported(path, runtime=runtime)
    if runtime is not None:
        raise ConfigError(f"--runtime {runtime}: {path.name} contains weights, which Keras runs; omit --runtime")
    return from_weights(path, open_weights(path))


def exported(path: Path, *, runtime: str | None = None) -> Model:
    """Open an exported file on the runtime of that name, or the first installed.

    Raises:
        ModelError, RuntimeUnavailable: see ``edge.load``.
    """
    manifest = manifests.read(path)
    return Model(
        name=path.name,
        predict=edge.load(path, runtime=runtime).predict,
        temperature=manifest.temperature,
        threshold=manifest.threshold,
        patch_px=manifest.patch_px,
        label_px=manifest.label_px,
        classes=manifest.classes,
    )


def from_weights(path: Path, network: GradientNetwork) -> Model:
    """Return the model of a run's weights file, with the temperature and the threshold of its exported files."""
    return Model(
        name=path.name,
        predict=network.predict,
        temperature=network.temperature,
        threshold=WEIGHTS_THRESHOLD,
        patch_px=network.geometry.patch_px,
        label_px=network.geometry.label_px,
        classes=network.geometry.classes,
        gradients=Gradients(name="gradcam", maps=network.maps, uniform_share=network.uniform_share),
    )


def images(model: Model, paths: Sequence[Path], *, progress: Progress = silent) -> Iterator[Explanation]:
    """Explain each image, in the order of ``paths``, one in memory at a time.

    Raises:
        ConfigError: two images of the same name, whose pictures would overwrite each other; raised before any work.
        DataError: an image that is not an RGB patch of the model's size; the message names it.
    """
    by_id: dict[str, Path] = {}
    for path in paths:
        if by_id.setdefault(path.stem, path) != path:
            raise ConfigError(f"{path} and {by_id[path.stem]} have the same id; explain them in separate commands")
    for number, path in enumerate(paths, start=1):
        yield _explain_patch(model, path.stem, image.read_patch(path, patch_px=model.patch_px))
        progress("explain", number, len(paths))


def _explain_patch(model: Model, id_: str, patch: np.ndarray) -> Explanation:
    logits = model.predict(patch[None]).reshape(-1)
    probability = float(model.probability(logits)[0])
    drops = occlusion.drops(model.predict, patch[None], per_side=model.per_side, fine=True)
    maps = {"occlusion": occlusion.spread(drops[0], model.patch_px)}
    shares = {"occlusion": model.centre_share(occlusion.tiles(drops))}
    if model.gradients is not None:
        gradient_maps = model.gradients.maps(patch[None])
        maps[model.gradients.name], shares[model.gradients.name] = gradient_maps[0], model.centre_share(gradient_maps)
    return Explanation(
        id=id_,
        patch=patch,
        logit=float(logits[0]),
        probability=probability,
        positive=probability >= model.threshold,
        verdict=model.classes[probability >= model.threshold],
        label_px=model.label_px,
        maps=maps,
        shares={method: None if np.isnan(share[0]) else float(share[0]) for method, share in shares.items()},
        uniform_shares=model.uniform_shares,
    )


def evidence_of_images(model: Model, rows: Sequence[Mapping[str, Any]]) -> list[Evidence]:
    """Return the evidence over rows of ``Explanation.as_json``."""
    shares = {method: [row[f"{method}_share"] for row in rows] for method in model.uniform_shares}
    return evidence("images", {method: np.array(values, np.float64) for method, values in shares.items()}, model)


def evidence_of_split(model: Model, split: Split, *, progress: Progress = silent) -> list[Evidence]:
    """Return the evidence over at most 256 patches of a split, drawn with seed 0: the positive class first.

    Raises:
        DataError: the split has patches of another size than the model.
    """
    check_size(model, split)
    chosen = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(len(split.labels))[:SAMPLE_PATCHES])
    parts: dict[str, list[np.ndarray]] = {method: [] for method in model.uniform_shares}
    for start in range(0, len(chosen), CHUNK_PATCHES):
        patches = split.patches[chosen[start : start + CHUNK_PATCHES]]
        parts["occlusion"].append(
            model.centre_share(occlusion.drops(model.predict, patches, per_side=model.per_side, fine=False))
        )
        if model.gradients is not None:
            parts[model.gradients.name].append(model.centre_share(model.gradients.maps(patches)))
        progress("evidence", start + len(patches), len(chosen))
    labels = split.labels[chosen]
    shares = {method: np.concatenate(chunks) for method, chunks in parts.items()}
    return [
        row
        for name, label in ((model.classes[1], 1), (model.classes[0], 0))
        for row in evidence(name, {method: values[labels == label] for method, values in shares.items()}, model)
    ]


def evidence(name: str, shares: Mapping[str, np.ndarray], model: Model) -> list[Evidence]:
    """Return one row per method of ``shares``, float (N,), nan for a patch without a share."""
    rows = []
    for method, uniform in model.uniform_shares.items():
        values = shares[method][~np.isnan(shares[method])]
        mean = float(values.mean()) if len(values) else None
        half = NORMAL_95 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
        rows.append(
            Evidence(
                patches=name,
                method=method,
                n_patches=len(values),
                n_without=len(shares[method]) - len(values),
                share=mean,
                share_lo=None if mean is None or half is None else mean - half,
                share_hi=None if mean is None or half is None else mean + half,
                uniform_share=uniform,
            )
        )
    return rows


def check_size(model: Model, split: Split) -> None:
    """Raise DataError if the patches of a split have another size than the model's."""
    if split.patches.shape[1] != model.patch_px:
        raise DataError(
            f"{split.name}: patches of {split.patches.shape[1]} px, {model.name} expects {model.patch_px} px; "
            "use the data that the model was trained on"
        )


def probabilities(model: Model, split: Split, *, progress: Progress = silent) -> np.ndarray:
    """Return the model's probabilities of a whole split, float64 (N,); one chunk of patches is in memory at a time.

    Raises:
        DataError: the split has patches of another size than the model.
    """
    check_size(model, split)
    parts = []
    for start in range(0, len(split.labels), CHUNK_PATCHES):
        patches = split.patches[start : start + CHUNK_PATCHES]
        parts.append(model.probability(model.predict(patches).reshape(-1)))
        progress("predict", start + len(patches), len(split.labels))
    return np.concatenate(parts)


def most_confident(labels: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Return the most confident true and false positives and negatives.

    Args:
        labels: 0 and 1, (N,).
        probability: of the positive class, (N,).
        threshold: positive at this probability or above.

    Returns:
        Indices, at most 8 of each kind, the most confident first; ties in index order.
    """
    positive = probability >= threshold
    kinds = {
        "true positive": (labels == 1) & positive,
        "false negative": (labels == 1) & ~positive,
        "false positive": (labels == 0) & positive,
        "true negative": (labels == 0) & ~positive,
    }
    order = np.argsort(np.where(positive, -probability, probability), kind="stable")
    return {kind: order[members[order]][:SHEET_PATCHES] for kind, members in kinds.items()}
