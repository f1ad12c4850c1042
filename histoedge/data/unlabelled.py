"""Patches without labels: a folder of images, or the training patches of a data set."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from histoedge.data import pack, sources
from histoedge.data.image import Form
from histoedge.data.image_files import ImagePatches, listed
from histoedge.data.split import Patches
from histoedge.edge.errors import DataError
from histoedge.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Patches uint8 (N, patch_px, patch_px, 3), read when indexed, and the SHA-256 of their pixels in order."""

    patches: Patches
    content_hash: str


def load_unlabelled(source: str, *, patch_px: int, cache: bool = True, progress: Progress = silent) -> Unlabelled:
    """Load the train split of a data set, or all images of a folder that is none.

    Args:
        source: a folder or ``synthetic``.
        patch_px: side of the patches.
        cache: see ``sources.load``.
        progress: see ``sources.load``.

    Raises:
        DataError: neither a data set nor images, a faulty image, or patches of another size.
    """
    folder = Path(source)
    is_data_set = (
        source == "synthetic"
        or not folder.is_dir()
        or any(layout.found(folder) for layout in sources.layouts().values())
    )
    if not is_data_set and len(images := listed(folder)):
        images = images.as_form(Form(patch_px))
        digests = pack.hash_images(images, progress=progress)
        return Unlabelled(ImagePatches(images), _hash(digests))
    split = sources.load(source, splits=("train",), cache=cache, progress=progress)["train"]
    if split.patch_px != patch_px:
        raise DataError(
            f"{source}: patches of {split.patch_px} px, the network has {patch_px} px; cut them to this size"
        )
    return Unlabelled(split.patches, _hash(split.digests))


def _hash(digests: tuple[bytes, ...]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()
