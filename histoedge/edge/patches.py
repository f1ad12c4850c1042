"""Check the pixels that a host passes in: uint8 RGB, patches or fields."""

import numpy as np

from .errors import DataError

PATCH_PX = 96  # PatchCamelyon's, the default
SMALLEST_PATCH_PX, LARGEST_PATCH_PX = 32, 512
LABEL_PX = 32  # the labelled square in the middle of a patch
UM_PER_PX = 0.972  # PatchCamelyon: 10x, from slides scanned at 0.243 um/px
_UINT8 = np.dtype(np.uint8)


def check_patches(patches: np.ndarray, *, patch_px: int = PATCH_PX, stride_px: int = 1) -> np.ndarray:
    """Return the patches as a contiguous array; no copy if they are contiguous already.

    A field's sides are cut to ``patch_px`` plus whole strides; the rest belongs to no whole patch.

    Raises:
        DataError: not uint8, not (N, H, W, 3), empty, or smaller than a patch.
    """
    if type(patches) is not np.ndarray or patches.dtype != _UINT8 or patches.ndim != 4 or patches.shape[3] != 3:
        raise DataError(_message(patches, f"(N, {patch_px}, {patch_px}, 3)", 4))
    count, height, width, _ = patches.shape
    if not count or height < patch_px or width < patch_px:
        raise DataError(
            f"patches have shape {patches.shape}; expected at least one patch, of {patch_px} x {patch_px} px or more"
        )
    beyond = (height - patch_px) % stride_px, (width - patch_px) % stride_px
    if beyond != (0, 0):
        patches = patches[:, : height - beyond[0], : width - beyond[1]]
    return np.ascontiguousarray(patches)


def check_single(patches: np.ndarray, *, patch_px: int) -> np.ndarray:
    """Return the patches as ``check_patches``, for a model to which a larger field has no meaning.

    Raises:
        DataError: not uint8, not (N, ``patch_px``, ``patch_px``, 3), or empty.
    """
    patches = check_patches(patches, patch_px=patch_px)
    if patches.shape[1:3] != (patch_px, patch_px):
        raise DataError(
            f"patches have shape {patches.shape}; this model computes single patches (edge_mode patch), expected "
            f"(N, {patch_px}, {patch_px}, 3); map(field) cuts a field into its patches"
        )
    return patches


def cut(field: np.ndarray, *, patch_px: int, step_px: int) -> np.ndarray:
    """Return the patches of a field, (h, w, ``patch_px``, ``patch_px``, 3), ``step_px`` apart: a view of the field."""
    windows = np.lib.stride_tricks.sliding_window_view(field, (patch_px, patch_px), axis=(0, 1))
    return windows[::step_px, ::step_px].transpose(0, 1, 3, 4, 2)


def check_field(field: np.ndarray, *, patch_px: int = PATCH_PX) -> np.ndarray:
    """Return the field, (H, W, 3), as a batch of one, (1, H, W, 3).

    Raises:
        DataError: not uint8, not (H, W, 3), or smaller than a patch.
    """
    if type(field) is not np.ndarray or field.dtype != _UINT8 or field.ndim != 3 or field.shape[2] != 3:
        raise DataError(_message(field, "(H, W, 3)", 3).replace("patches are", "the field is", 1))
    if min(field.shape[:2]) < patch_px:
        raise DataError(
            f"the field is {field.shape[0]} x {field.shape[1]} px; expected {patch_px} x {patch_px} px or more"
        )
    return field[None]


def _message(patches: np.ndarray, shape: str, dimensions: int) -> str:
    expected = f"expected uint8 {shape}, raw RGB pixels"
    if not isinstance(patches, np.ndarray):
        return f"patches are {type(patches).__name__}; {expected}"
    if type(patches) is not np.ndarray:
        return f"patches are {type(patches).__name__}; {expected} in a plain array; convert it with numpy.asarray"
    if patches.dtype != np.uint8:
        nan = " with NaN in it" if patches.dtype.kind == "f" and np.isnan(patches).any() else ""
        return f"patches are {patches.dtype}{nan}; {expected}; do not divide, normalise or convert the pixels"
    message = f"patches are of shape {patches.shape}; {expected}"
    channels_first = dimensions - 3
    if patches.ndim == dimensions and patches.shape[channels_first] == 3:
        axes = ", ".join(map(str, (*range(channels_first), *(channels_first + at for at in (1, 2, 0)))))
        return f"{message}; this looks like channels first, use numpy.transpose(patches, ({axes}))"
    if patches.ndim == dimensions - 1 and patches.shape[-1] == 3:
        return f"{message}; pass one patch as a batch, patches[None]"
    if patches.ndim == dimensions + 1 and patches.shape[-1] == 3:
        return f"{message}; pass one field at a time, without the batch axis"
    return message
