"""Load the splits of DATA: a folder in one of the layouts, or synthetic patches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoedge.data.description import FILE, Description, read_description
from histoedge.data.geometry import PATCHCAMELYON, Geometry
from histoedge.data.listing import Listing
from histoedge.data.split import SPLITS, Split
from histoedge.edge.errors import DataError
from histoedge.progress import Progress, silent


@dataclass(frozen=True)
class Layout:
    """How a data set is stored.

    ``files`` names what shows the layout, ``content`` says more in words. ``found`` says whether a folder has them,
    ``read`` lists the patches; None for PatchCamelyon, whose splits are opened one by one. ``centred`` says whether the
    labels describe the centre of a patch of 96 px; ``official`` whether it may have splits of its own, ``columns``
    whether columns can be named.
    """

    files: str
    content: str
    found: Callable[[Path], bool]
    read: Callable[[Path, Description], Listing] | None
    centred: bool = False
    official: bool = True
    columns: bool = False


@dataclass(frozen=True)
class DataSet:
    """The splits of a data set, the name of its layout, and notes for people who check it."""

    layout: str
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()


def layouts() -> Mapping[str, Layout]:
    """Return all layouts by name, the more specific ones first."""
    from histoedge.data import pcam
    from histoedge.data.layouts import class_folders, kaggle, label_table, npz, parquet, wilds

    return {
        "patchcamelyon": Layout(pcam.FILES, "x and y per split, also as .h5.gz", pcam.found, None, centred=True),
        "kaggle": Layout(
            f"{kaggle.LABELS} with train/*.tif",
            "columns id and label, maybe wsi; also PNG and JPEG",
            kaggle.found,
            kaggle.read,
            centred=True,
            official=False,
        ),
        "wilds": Layout(
            f"{wilds.FILE} with {wilds.PATCHES}/*/*.png", "Camelyon17 of WILDS", wilds.found, wilds.read, centred=True
        ),
        "parquet": Layout(
            "train-*.parquet",
            "columns image (bytes) and label, maybe slide; validation-* and test-* too, here or in data/",
            parquet.found,
            parquet.read,
            columns=True,
        ),
        "npz": Layout(
            "*.npz",
            "x_train, y_train and so on, or patches and labels in train.npz, valid.npz and test.npz",
            npz.found,
            npz.read,
        ),
        "csv": Layout(
            label_table.FILE,
            "or one other CSV file: columns path and label, maybe split and slide",
            label_table.found,
            label_table.read,
            columns=True,
        ),
        "folders": Layout(
            "<class>/*.png",
            "or train/<class>/*.png with valid and test; also JPEG and TIFF",
            class_folders.found,
            class_folders.read,
        ),
    }


def load(
    source: str,
    *,
    splits: Sequence[str] = SPLITS,
    seed: int = 0,
    cache: bool = True,
    progress: Progress = silent,
) -> dict[str, Split]:
    """Load the splits of DATA: a folder in one of the ``layouts``, or the word ``synthetic``.

    On first use, images are packed into one file in ``DATA/.histoedge``, or in the user's cache if DATA is read-only.
    The digests of PatchCamelyon's patches are cached there too, on first use. ``DATA/data.toml`` says what the files do
    not say themselves.

    Args:
        source: a folder or ``synthetic``.
        splits: names out of ``SPLITS``.
        seed: seed of the splits that are drawn and of the synthetic patches. No command changes it: the test split
            must contain the same patches for every training seed.
        cache: whether the cache is read and written.
        progress: called with the images packed and, also later, with the patches hashed.

    Raises:
        DataError: not a data set, or a faulty one; the message names the place.
        WriteError: not enough disk space for the pack.
    """
    return open_data_set(source, splits=splits, seed=seed, cache=cache, progress=progress).splits


def open_data_set(
    source: str, *, splits: Sequence[str] = SPLITS, seed: int = 0, cache: bool = True, progress: Progress = silent
) -> DataSet:
    """Load the splits as ``load`` does, with the layout that was recognised and notes."""
    if source == "synthetic":
        from histoedge.data import synthetic

        generated = {name: synthetic.generate(name, patches=synthetic.PATCHES[name], seed=seed) for name in splits}
        return DataSet("synthetic", generated)
    folder = Path(source)
    if not folder.is_dir():
        fault = "a file, expected a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {fault}; give a folder with a data set, or the word synthetic")
    description = read_description(folder)
    name, layout = _recognised(folder, description)
    if not layout.columns:
        description.refuse(name, ("columns",))
    if layout.read is None:
        return _patchcamelyon(folder, name, description, splits, cache=cache, progress=progress)
    listing = layout.read(folder, description)
    return _opened(folder, name, layout, description, listing, splits, seed=seed, cache=cache, progress=progress)


def _recognised(folder: Path, description: Description) -> tuple[str, Layout]:
    """Return name and layout of a folder: the one in ``data.toml``, else the only one whose files are there."""
    from histoedge.data.layouts import kaggle

    known = layouts()
    if description.layout is not None:
        if description.layout not in known:
            raise DataError(f"{description.file}: no layout {description.layout!r}; choose from: {', '.join(known)}")
        layout = known[description.layout]
        if not layout.found(folder):
            raise DataError(f"{folder}: {description.file.name} says {description.layout}; expected {layout.files}")
        return description.layout, layout
    found = {name: layout for name, layout in known.items() if layout.found(folder)}
    found = {name: layout for name, layout in found.items() if layout.centred} or found  # their names are unmistakable
    if len(found) > 1:
        first, second = list(found)[:2]
        raise DataError(
            f"{folder}: contains both {found[first].files} and {found[second].files}; move each data set to its "
            f'own folder, or choose one in {description.file}: layout = "{first}"'
        )
    if found:
        return next(iter(found.items()))
    for images in (folder / "test", folder):
        if kaggle.unlabelled(images):
            raise DataError(
                f"{images}: images without labels, which cannot be used for training or evaluation; to predict them: "
                f"histoedge predict MODEL {images} --csv submission.csv"
            )
    expected = ", ".join(layout.files for layout in known.values())
    raise DataError(f"{folder}: no data set in this folder; expected one of: {expected}")


def _patchcamelyon(
    folder: Path, name: str, description: Description, splits: Sequence[str], *, cache: bool, progress: Progress
) -> DataSet:
    from histoedge.data import classes, pcam

    description.refuse(name, ("positive", "resample"))
    names = classes.names(["0"], ["1"], description)

    def geometry(side_px: int) -> Geometry:
        if description.patch_px not in (None, side_px):
            raise DataError(f"{folder}: patches of {side_px} px, {FILE} says {description.patch_px}; correct patch_px")
        return description.geometry(side_px, names, centred=True)

    loaded = {
        split: pcam.load_pcam(folder, split, geometry=geometry, cached=cache, progress=progress) for split in splits
    }
    if len({split.geometry for split in loaded.values()}) > 1:
        sides = ", ".join(f"{split.name} {split.patch_px} px" for split in loaded.values())
        raise DataError(f"{folder}: the splits have patches of different size ({sides}); expected one size")
    return DataSet(name, loaded, _assumed(description, layouts()[name], {split.patch_px for split in loaded.values()}))


def _opened(
    folder: Path,
    name: str,
    layout: Layout,
    description: Description,
    listing: Listing,
    splits: Sequence[str],
    *,
    seed: int,
    cache: bool,
    progress: Progress,
) -> DataSet:
    """Open the patches of a listing, from the cache if possible, and divide them into splits."""
    from histoedge.data import cache_folder, classes, containers, pack, partition
    from histoedge.data.image_files import ImagePatches, Images
    from histoedge.data.rows import PatchView

    form = description.form(listing.side_px())
    labels, names = classes.binary(listing.labels, description, where=listing.where)
    geometry = description.geometry(form.patch_px, names, centred=layout.centred)
    places = cache_folder.cache_folders(folder) if cache else ()
    if isinstance(listing.pixels, Images):
        images = listing.pixels.as_form(form)
        packed = pack.open_pack(images, places, progress=progress) if cache else None
        if packed is None:
            packed = pack.Pack(ImagePatches(images), pack.hash_images(images, progress=progress))
        sizes = np.array(images.sizes, np.int64)
    else:
        packed = containers.open_containers(listing.pixels, form, places, progress=progress)
        sizes = np.full(len(labels), form.patch_bytes, np.int64)
    parts, drawn = partition.divide(labels, listing.splits, listing.slides, packed.digests, seed=seed, where=folder)
    loaded = {}
    for split in splits:
        rows = np.flatnonzero(parts == SPLITS.index(split))
        if not len(rows):
            raise DataError(f"{folder}: no {split} split, and no train split to draw it from; add one")
        indices = rows.tolist()
        loaded[split] = Split(
            split,
            PatchView(packed.patches, rows),
            labels[rows],
            [listing.ids[row] for row in indices],
            None if listing.slides is None else [listing.slides[row] for row in indices],
            int(sizes[rows].sum()),
            tuple(packed.digests[row] for row in indices),
            geometry=geometry,
        )
    notes = list(listing.notes)
    if listing.splits is not None and drawn:
        notes.append(f"{folder}: no {' and no '.join(drawn)} split; drawn from train with seed {seed}")
    return DataSet(name, loaded, (*notes, *_assumed(description, layout, {form.patch_px})))


def _assumed(description: Description, layout: Layout, sides_px: set[int]) -> tuple[str, ...]:
    """Return a note if nothing says how large a pixel is."""
    if description.um_per_px is not None or (layout.centred and sides_px <= {PATCHCAMELYON.patch_px}):
        return ()
    scale = PATCHCAMELYON.um_per_px
    return (f"um_per_px: assumed {scale}, PatchCamelyon's; say in {description.file} what it is: um_per_px = {scale}",)


def has(source: str, split: str) -> bool:
    """Return whether DATA has that split: it is there, or can be drawn from train."""
    from histoedge.data import pcam

    folder = Path(source)
    if source == "synthetic" or not folder.is_dir():
        return True
    description = read_description(folder)
    _, layout = _recognised(folder, description)
    if layout.read is None:
        return any(folder.glob(pcam.FILES.replace("*", f"{split}_x*", 1)))
    if not layout.official:
        return True
    official = layout.read(folder, description).splits
    return official is None or split in official or "train" in official
