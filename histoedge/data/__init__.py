"""Patches and labels from a folder in one of several layouts, or from a generator.

Patches are read when they are indexed; a data set may be larger than memory.
"""

from histoedge.data.geometry import Geometry
from histoedge.data.sources import has, load
from histoedge.data.split import CHUNK_PATCHES, SPLITS, Split, chunk_patches, evenly_spaced

__all__ = ["CHUNK_PATCHES", "SPLITS", "Geometry", "Split", "chunk_patches", "evenly_spaced", "has", "load"]
