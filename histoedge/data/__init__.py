"""Patches and labels from PatchCamelyon's files, the Kaggle competition's folder, or a generator.

Patches stay where they are until they are asked for, so that a data set larger than memory can be used.
"""

from histoedge.data.sources import has, load
from histoedge.data.split import CHUNK_PATCHES, SPLITS, Split, evenly_spaced

__all__ = ["CHUNK_PATCHES", "SPLITS", "Split", "evenly_spaced", "has", "load"]
