"""Synthetic patches that resemble stained lymph node, generated from a seed with PatchCamelyon's labelling rule.

The patches contain eosin stroma and haematoxylin nuclei: small round dark lymphocytes in all, larger irregular tumour
nuclei in some. The label is 1 if the tumour mask has a pixel in the centre 32 x 32 px; tumour only outside it is a hard
negative. Stain and brightness vary by synthetic slide, and no slide is in two splits. Lymphocytes are as dark as tumour
nuclei: colour alone does not separate the classes.
"""

import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from histoedge import files
from histoedge.data import hdf5, pcam
from histoedge.data.split import SPLITS, Split
from histoedge.edge import drift
from histoedge.edge.errors import DataError
from histoedge.edge.patches import LABEL_PX, PATCH_PX
from histoedge.progress import Progress, silent

PATCHES: Mapping[str, int] = {"train": 4000, "valid": 800, "test": 1000}
PATCHES_PER_SLIDE = 50
GOLDEN_SEED = 20181
FEWEST = 16  # patches of a split, enough for both classes
BLOCK = 256


class _Cell(NamedTuple):
    radius: tuple[float, float]  # px
    rough: tuple[float, float]  # amplitude of the outline's waves
    chromatin: float  # contrast
    grain: int  # grain of the chromatin, px
    crowding: float  # squared spread of a nest per nucleus, px^2


_CELLS = {
    "lymphocyte": _Cell((2.1, 3.3), (0.04, 0.10), 0.3, 1, 7),
    "histiocyte": _Cell((3.6, 5.6), (0.02, 0.08), 0.1, 1, 20),
    "tumour": _Cell((4.6, 7.2), (0.08, 0.24), 0.5, 2, 24),
}
_REACH = 10
_STAMP = 2 * _REACH + 1
_FIELD = 512
_MARGIN = 16
_CANVAS = PATCH_PX + 2 * _MARGIN
_CENTRE = slice((PATCH_PX - LABEL_PX) // 2, (PATCH_PX + LABEL_PX) // 2)


def generate(split: str, *, patches: int, seed: int) -> Split:
    """Return a split of ``patches`` patches, uint8 RGB in memory, with labels, ids and slides.

    Patch i depends only on (seed, split, i): it is reproducible, and a shorter split is a prefix of a longer one.

    Raises:
        DataError: too few patches for both classes.
    """
    pixels = np.empty((patches, PATCH_PX, PATCH_PX, 3), np.uint8)
    labels = np.empty(patches, np.uint8)
    for index in range(patches):
        pixels[index], labels[index] = _patch(split, index, seed)
    ids = [f"{split}-{index:06d}" for index in range(patches)]
    return Split(split, pixels, labels, ids, [_slide(split, index) for index in range(patches)], pixels.nbytes)


def golden(count: int = 16, *, seed: int = GOLDEN_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Return ``count`` patches, uint8 (count, 96, 96, 3), half of each class, and their labels, uint8 (count,).

    Every patch is from a different slide; patches without tumour are first.
    """
    per_class = (count - count // 2, count // 2)
    chosen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for index in itertools.count(step=PATCHES_PER_SLIDE):
        pixels, label = _patch("golden", index, seed)
        if len(chosen[label]) < per_class[label]:
            chosen[label].append(pixels)
        if len(chosen[0]) + len(chosen[1]) == count:
            break
    return np.stack(chosen[0] + chosen[1]), np.repeat(np.array([0, 1], np.uint8), per_class)


def synth(out: Path, *, patches: int, seed: int, progress: Progress = silent) -> dict[str, Split]:
    """Write three splits to ``out`` in PatchCamelyon's layout, with slide ids, and open them.

    The train split has ``patches`` patches, valid a fifth and test a quarter of that. A few hundred patches are in
    memory at a time.

    Raises:
        DataError: one of the files exists already; nothing is written.
        WriteError: a full disk, or no permission to write.
    """
    counts = {"train": patches, "valid": max(patches // 5, FEWEST), "test": max(patches // 4, FEWEST)}
    stems = {split: f"camelyonpatch_level_2_split_{split}" for split in SPLITS}
    for stem in stems.values():
        for name in (f"{stem}_x.h5", f"{stem}_y.h5", f"{stem}_meta.csv"):
            if (out / name).exists():
                raise DataError(f"{out / name}: exists already; choose another folder, or remove the file")
    for split, count in counts.items():
        labels = np.empty(count, np.uint8)
        blocks = _blocks(split, seed=seed, labels=labels, progress=progress)
        hdf5.write_rows(out / f"{stems[split]}_x.h5", "x", blocks, shape=(count, PATCH_PX, PATCH_PX, 3))
        hdf5.write_rows(out / f"{stems[split]}_y.h5", "y", [labels.reshape(-1, 1, 1, 1)], shape=(count, 1, 1, 1))
        rows = "".join(f"{index},{_slide(split, index)}\n" for index in range(count))
        files.write_text(out / f"{stems[split]}_meta.csv", ",wsi\n" + rows)
    return {split: pcam.load_pcam(out, split) for split in SPLITS}


def _blocks(split: str, *, seed: int, labels: np.ndarray, progress: Progress) -> Iterator[np.ndarray]:
    """Yield the pixels of a split, a few hundred patches at a time, and store their labels in ``labels``."""
    count = len(labels)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        pixels = np.empty((stop - start, PATCH_PX, PATCH_PX, 3), np.uint8)
        for index in range(start, stop):
            pixels[index - start], labels[index] = _patch(split, index, seed)
        progress(f"synthesise {split}, patches", stop, count)
        yield pixels


def _slide(split: str, index: int) -> str:
    return f"{split}-slide-{index // PATCHES_PER_SLIDE:04d}"


def _random(*keys: int | str) -> np.random.Generator:
    return np.random.default_rng([key if isinstance(key, int) else int.from_bytes(key.encode(), "big") for key in keys])


def _patch(split: str, index: int, seed: int) -> tuple[np.ndarray, int]:
    slide = _random(seed, split, "slide", index // PATCHES_PER_SLIDE)
    haematoxylin = (_stain(drift.HAEMATOXYLIN, slide) * slide.uniform(0.8, 1.25)).astype(np.float32)
    eosin = (_stain(drift.EOSIN, slide) * slide.uniform(0.7, 1.3)).astype(np.float32)
    light = slide.uniform(0.9, 1.0, 3)
    random = _random(seed, split, "patch", index)
    nuclei, tissue, tumour = _tissue(random)
    label = int(tumour[_CENTRE, _CENTRE].any())
    focus = random.uniform(0.3, 0.75)
    nuclei, tissue = (ndimage.gaussian_filter(stain, focus, truncate=2.5) for stain in (nuclei, tissue))
    density = nuclei[..., None] * haematoxylin + tissue[..., None] * eosin
    grain = random.standard_normal(density.shape, np.float32)
    pixels = (255 * light).astype(np.float32) * np.exp(-density) + 3 * grain
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), label


def _stain(vector: np.ndarray, random: np.random.Generator) -> np.ndarray:
    tilted = np.clip(vector + random.normal(0, 0.05, 3), 0.02, None)
    return np.asarray(tilted / np.linalg.norm(tilted))


def _tissue(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the densities of nuclei and of eosin, float32 (96, 96), and the tumour mask, bool (96, 96)."""
    kind = random.random()
    nuclei = np.zeros((_CANVAS, _CANVAS), np.float32)
    tumour = np.zeros((_CANVAS, _CANVAS), bool)
    texture = _noise(random, 6) * 0.12 + _noise(random, 2) * 0.06
    tissue = np.clip(random.uniform(0.25, 0.5) + texture, 0.02, None)
    if kind < 0.04:  # glass
        return _cropped(nuclei, np.clip(0.02 + 0.02 * texture, 0, None), tumour)
    if kind < 0.10:  # fat: empty vacuoles between thin walls
        tissue = np.where(np.abs(_noise(random, 10)) < 0.25, tissue, 0.03)
        _scatter(random, nuclei, "lymphocyte", random.uniform(0, _CANVAS, (random.integers(0, 8), 2)), (0.7, 1.1))
        return _cropped(nuclei, tissue, tumour)
    loose = random.uniform(0, _CANVAS, (int(random.uniform(5, 60)), 2))
    _scatter(random, nuclei, "lymphocyte", loose, (0.6, 1.2))
    for _ in range(random.integers(0, 3)):  # nests of lymphocytes, as dark and as dense as tumour
        centre, spread = _CANVAS / 2 + random.uniform(-18, 18, 2), random.uniform(5, 26)
        _nest(random, nuclei, tumour, "lymphocyte", centre=centre, spread=spread)
    if random.random() < 0.4:  # histiocytes: as large as tumour cells, but smooth, pale and oval
        at = random.uniform(0, _CANVAS, (random.integers(3, 16), 2))
        _scatter(random, nuclei, "histiocyte", at, (0.4, 0.8))
    centre, spread = _CANVAS / 2 + random.uniform(-13, 13, 2), random.uniform(6, 26)
    if kind < 0.61:
        _nest(random, nuclei, tumour, "tumour", centre=centre, spread=spread)
    else:  # a nest of lymphocytes instead, as large, dark and dense
        _nest(random, nuclei, tumour, "lymphocyte", centre=centre, spread=spread)
    if kind > 0.80:  # hard negative: a tumour nest outside the centre square
        angle = random.uniform(0, 2 * np.pi)
        centre = _CANVAS / 2 + 44 * np.array([np.sin(angle), np.cos(angle)])
        _nest(random, nuclei, tumour, "tumour", centre=centre, spread=random.uniform(6, 20), keep_out=True)
    return _cropped(nuclei, tissue, tumour)


def _nest(
    random: np.random.Generator,
    nuclei: np.ndarray,
    tumour: np.ndarray,
    cell: str,
    *,
    centre: np.ndarray,
    spread: float,
    keep_out: bool = False,
) -> None:
    """Draw cells of one kind around a centre and mark tumour cells; with ``keep_out`` none is in the centre square."""
    count = max(2, int(spread**2 / _CELLS[cell].crowding))
    at = centre + random.normal(0, spread / 2, (count, 2))
    if keep_out:
        at = at[np.abs(at - _CANVAS / 2).max(axis=1) > LABEL_PX / 2 + _REACH]
    depths = random.uniform(0.5, 1.15, len(at)).astype(np.float32)
    for (place, inside), depth in zip(_stamps(random, cell, at), depths, strict=True):
        nuclei[place] = np.where(inside > 0.2, inside * depth, nuclei[place])
        if cell == "tumour":
            tumour[place] |= inside > 0.5


def _scatter(
    random: np.random.Generator, nuclei: np.ndarray, cell: str, at: np.ndarray, depth: tuple[float, float]
) -> None:
    """Draw nuclei of one kind at ``at`` (n, 2), each with a random depth of stain."""
    depths = random.uniform(*depth, len(at)).astype(np.float32)
    for (place, inside), depth_of_one in zip(_stamps(random, cell, at), depths, strict=True):
        np.maximum(nuclei[place], inside * depth_of_one, out=nuclei[place])


def _stamps(random: np.random.Generator, cell: str, at: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yield a random nucleus of the kind per position: its place on the canvas and its stain, cropped to the canvas."""
    bank = _bank(cell)
    chosen = random.integers(0, len(bank), len(at))
    corners = np.clip(np.rint(at).astype(int), 0, _CANVAS - 1) - _REACH
    for (top, left), number in zip(corners.tolist(), chosen.tolist(), strict=True):
        above, before = max(-top, 0), max(-left, 0)
        below, after = min(_CANVAS - top, _STAMP), min(_CANVAS - left, _STAMP)
        place = slice(top + above, top + below), slice(left + before, left + after)
        yield place, bank[number][above:below, before:after]


@cache
def _bank(cell: str) -> np.ndarray:
    """Return 400 nuclei of a kind, float32 (400, stamp, stamp): ovals with wavy outlines and grainy chromatin."""
    kind = _CELLS[cell]
    random = _random("bank", cell)
    y, x = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1]
    nuclei = []
    for _ in range(400):
        row, column = random.uniform(-0.5, 0.5, 2)
        tilt, flat = random.uniform(0, np.pi), random.uniform(0.75, 1.0)
        u = (x - column) * np.cos(tilt) + (y - row) * np.sin(tilt)
        v = ((y - row) * np.cos(tilt) - (x - column) * np.sin(tilt)) / flat
        angle, phases = np.arctan2(v, u), random.uniform(0, 2 * np.pi, 2)
        waves = np.sin(2 * angle + phases[0]) + 0.6 * np.sin(3 * angle + phases[1])
        outline = random.uniform(*kind.radius) * (1 + random.uniform(*kind.rough) * waves)
        chromatin = 1 + kind.chromatin * ndimage.uniform_filter(random.standard_normal(u.shape), kind.grain)
        nuclei.append(np.clip(outline - np.hypot(u, v) + 0.5, 0, 1) * np.clip(chromatin, 0.1, None))
    return np.stack(nuclei).astype(np.float32)


def _noise(random: np.random.Generator, scale: int) -> np.ndarray:
    """Return smooth noise of unit standard deviation, float32 (canvas, canvas), with grains of about ``scale`` px."""
    top, left = random.integers(0, _FIELD - _CANVAS, 2)
    window = _noise_field(scale)[top : top + _CANVAS, left : left + _CANVAS]
    return window.T if random.random() < 0.5 else window


@cache
def _noise_field(scale: int) -> np.ndarray:
    smooth = ndimage.gaussian_filter(_random("noise", scale).standard_normal((_FIELD, _FIELD)), scale / 2, mode="wrap")
    return np.asarray(smooth / smooth.std(), np.float32)


def _cropped(nuclei: np.ndarray, tissue: np.ndarray, tumour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inner = slice(_MARGIN, _MARGIN + PATCH_PX)
    return nuclei[inner, inner], tissue[inner, inner], tumour[inner, inner]
