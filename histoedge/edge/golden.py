"""The golden patches next to a model: raw pixels, and the logits that every runtime must return for them."""

import hashlib
import io
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ModelError
from .manifest import Manifest, bounded_bytes

LARGEST_GOLDEN_BYTES = 1 << 24
LARGEST_GOLDEN_ARRAY_BYTES = 1 << 26
GOLDEN_ARRAYS = {"patches": np.uint8, "labels": np.uint8, "logits": np.float32}
SATURATED = {"saturated": np.float32}
NPZ_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([|<]\w\d)', 'fortran_order': False, "
    rb"'shape': \((\d{1,9}(?:, \d{1,9}){0,3}),?\), \} *\n",
    re.DOTALL,
)
"""The header that NumPy writes before an array. NumPy's own reader evaluates this text as Python, which is not safe for
forged files."""


@dataclass(frozen=True)
class Golden:
    """Synthetic patches, uint8 (N, S, S, 3), with labels, uint8 (N,), and expected logits, float32 (N,).

    ``saturated`` are the logits, float32 (N,), that ONNX Runtime returns on x86 CPUs without VNNI when exact sums are
    off; None where the manifest's ``may_saturate`` is empty or the file was exported without them.
    """

    patches: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    saturated: np.ndarray | None = None


def golden_path(model: Path) -> Path:
    """``int8.onnx`` -> ``int8.onnx.golden.npz``."""
    return model.with_name(f"{model.name}.golden.npz")


def checked_golden_bytes(model: Path, manifest: Manifest) -> bytes:
    """Return the bytes of the golden file next to ``model``, after checking their SHA-256.

    Raises:
        ModelError: missing, too large, or with another SHA-256 than the manifest states.
    """
    path = golden_path(model)
    if not path.is_file():
        raise ModelError(f"{path}: the golden patches are missing; copy them together with the model")
    content = bounded_bytes(path, LARGEST_GOLDEN_BYTES)
    if hashlib.sha256(content).hexdigest() != manifest.golden_sha256:
        raise ModelError(f"{path}: changed after the manifest was written; copy or export the model again")
    return content


def read_golden(model: Path, manifest: Manifest) -> Golden:
    """Return the golden patches next to ``model``, after checking hash and shapes.

    Raises:
        ModelError: missing, altered, or not arrays of the expected shapes.
    """
    path, content = golden_path(model), checked_golden_bytes(model, manifest)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as arrays:
            dtypes = {**GOLDEN_ARRAYS, **(SATURATED if "saturated.npy" in arrays.namelist() else {})}
            golden = Golden(**{name: _array(arrays, name, dtype) for name, dtype in dtypes.items()})
    except (KeyError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path}: not a golden file ({error}); export the model again") from error
    count, side = golden.logits.size, manifest.patch_px
    shapes = golden.patches.shape, golden.labels.shape, golden.logits.shape
    if not count or shapes != ((count, side, side, 3), (count,), (count,)):
        raise ModelError(
            f"{path}: patches, labels and logits of shapes {', '.join(map(str, shapes))}, "
            f"expected (N, {side}, {side}, 3), (N,) and (N,); export the model again"
        )
    if golden.saturated is not None and golden.saturated.shape != (count,):
        raise ModelError(
            f"{path}: saturated logits of shape {golden.saturated.shape}, expected ({count},); export the model again"
        )
    if not np.isfinite(golden.logits).all():
        raise ModelError(f"{path}: golden logits contain NaN or infinity; export the model again")
    return golden


def _array(arrays: zipfile.ZipFile, name: str, kind: type) -> np.ndarray:
    """Return one array of an ``.npz`` file; its size is checked before memory for it is allocated."""
    entry = arrays.getinfo(f"{name}.npy")
    if entry.file_size > LARGEST_GOLDEN_ARRAY_BYTES:
        raise ValueError(f"{name} has {entry.file_size} bytes, expected at most {LARGEST_GOLDEN_ARRAY_BYTES}")
    if entry.compress_type not in NPZ_COMPRESSIONS:
        raise ValueError(f"{name} has compression type {entry.compress_type}, expected stored or deflated")
    content = arrays.read(entry)
    header = NPY_HEADER.match(content)
    if header is None or int.from_bytes(content[8:10], "little") != header.end() - 10:
        raise ValueError(f"{name} is not an array in NumPy's format")
    dtype, shape = header[1].decode(), tuple(int(side) for side in header[2].split(b", "))
    expected, size = np.dtype(kind).newbyteorder("<"), len(content) - header.end()
    if dtype != expected.str or math.prod(shape) * expected.itemsize != size:
        raise ValueError(f"{name} is {dtype} {shape} in {size} bytes, expected {expected.str}")
    return np.frombuffer(content, expected, offset=header.end()).reshape(shape)
