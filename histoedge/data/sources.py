"""Load the splits of DATA: PatchCamelyon's files, the Kaggle competition's images, or synthetic patches."""

from collections.abc import Sequence
from pathlib import Path

from histoedge.data.split import SPLITS, Split
from histoedge.edge.errors import DataError
from histoedge.progress import Progress, silent


def load(
    source: str,
    *,
    splits: Sequence[str] = SPLITS,
    seed: int = 0,
    cache: bool = True,
    progress: Progress = silent,
) -> dict[str, Split]:
    """Load the splits of DATA: a folder in PatchCamelyon's or the Kaggle layout, or the word ``synthetic``.

    On first use, the images of a Kaggle folder are packed into one file in ``DATA/.histoedge``, or in the user's cache
    if DATA is read-only. The digests of PatchCamelyon's patches are cached there too, on first use.

    Args:
        source: a folder or ``synthetic``.
        splits: names out of ``SPLITS``.
        seed: seed of the split of a Kaggle folder and of the synthetic patches. No command changes it: the test split
            must contain the same patches for every training seed.
        cache: whether the cache is read and written.
        progress: called with the images packed and, also later, with the patches hashed.

    Raises:
        DataError: not a data set, or a faulty one; the message names the place.
        WriteError: not enough disk space for the pack.
    """
    if source == "synthetic":
        from histoedge.data import synthetic

        return {name: synthetic.generate(name, patches=synthetic.PATCHES[name], seed=seed) for name in splits}
    from histoedge.data import kaggle, pcam

    folder = Path(source)
    if not folder.is_dir():
        fault = "a file, expected a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {fault}; give a folder with a data set, or the word synthetic")
    layouts = {
        "PatchCamelyon": any(folder.glob(pcam.FILES)),
        "Kaggle": (folder / kaggle.LABELS).exists() or any((folder / "train").glob("*.tif")),
    }
    if all(layouts.values()):
        raise DataError(
            f"{folder}: contains both {pcam.FILES} and {kaggle.LABELS}; move each data set to its own folder"
        )
    if layouts["PatchCamelyon"]:
        return {name: pcam.load_pcam(folder, name, cached=cache, progress=progress) for name in splits}
    if layouts["Kaggle"]:
        return kaggle.load_kaggle(folder, splits=splits, seed=seed, cached=cache, progress=progress)
    for images in (folder / "test", folder):
        if kaggle.unlabelled(images):
            raise DataError(
                f"{images}: images without labels, which cannot be used for training or evaluation; to predict them: "
                f"histoedge predict MODEL {images} --csv submission.csv"
            )
    raise DataError(f"{folder}: no data set in this folder; expected {pcam.FILES}, or {kaggle.LABELS} with train/*.tif")


def has(source: str, split: str) -> bool:
    """Return whether DATA has that split; in PatchCamelyon's layout the files of a split may be missing."""
    from histoedge.data import pcam

    folder = Path(source)
    return not any(folder.glob(pcam.FILES)) or any(folder.glob(pcam.FILES.replace("*", f"{split}_x*", 1)))
