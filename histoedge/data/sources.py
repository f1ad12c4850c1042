"""Where DATA is looked up: PatchCamelyon's files, the Kaggle competition's images, synthetic patches."""

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
    """The splits of DATA: a folder in PatchCamelyon's or the Kaggle layout, or the word ``synthetic``.

    The first time, the images of a Kaggle folder are packed into one file below ``DATA/.histoedge``, or below the
    user's cache where DATA cannot be written; so are the digests of PatchCamelyon's patches, when they are asked for.

    Args:
        source: a folder or ``synthetic``.
        splits: which of ``SPLITS``.
        seed: of the split of a Kaggle folder, and of the synthetic patches. The commands never change it: a training
            with another seed must leave the same patches to the test split.
        cache: whether that cache is read and written.
        progress: told of images packed, and of patches hashed, also later on.

    Raises:
        DataError: not a data set, or one with a fault; the message says where.
        WriteError: no room for the pack.
    """
    if source == "synthetic":
        from histoedge.data import synthetic

        return {name: synthetic.generate(name, patches=synthetic.PATCHES[name], seed=seed) for name in splits}
    from histoedge.data import kaggle, pcam

    folder = Path(source)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {found}; give a folder with a data set, or the word synthetic")
    layouts = {
        "PatchCamelyon": any(folder.glob(pcam.FILES)),
        "Kaggle": (folder / kaggle.LABELS).exists() or any((folder / "train").glob("*.tif")),
    }
    if all(layouts.values()):
        raise DataError(f"{folder}: holds both {pcam.FILES} and {kaggle.LABELS}; give each data set its own folder")
    if layouts["PatchCamelyon"]:
        return {name: pcam.load_pcam(folder, name, cached=cache, progress=progress) for name in splits}
    if layouts["Kaggle"]:
        return kaggle.load_kaggle(folder, splits=splits, seed=seed, cached=cache, progress=progress)
    for images in (folder / "test", folder):
        if kaggle.unlabelled(images):
            raise DataError(
                f"{images}: images without labels, from which nothing can be learnt or measured; to predict them: "
                f"histoedge predict MODEL {images} --csv submission.csv"
            )
    raise DataError(f"{folder}: no data set here; expected {pcam.FILES} or {kaggle.LABELS} with train/*.tif")


def has(source: str, split: str) -> bool:
    """Whether DATA can hold that split: in PatchCamelyon's layout each has files of its own, and some may lack."""
    from histoedge.data import pcam

    folder = Path(source)
    return not any(folder.glob(pcam.FILES)) or any(folder.glob(pcam.FILES.replace("*", f"{split}_x*", 1)))
