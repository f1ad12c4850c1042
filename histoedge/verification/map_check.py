"""Check the geometry that a manifest states against its file: the map of a field must equal the logits of its patches.

The field is tiled from the golden patches, with noise on it, so that neighbouring patches have different logits. Its
side is a patch and ``STRIDES`` strides.
"""

from dataclasses import dataclass

import numpy as np

from histoedge.edge import ExportedRunner, Manifest
from histoedge.edge.errors import ModelError
from histoedge.edge.golden import Golden
from histoedge.edge.patches import cut

STRIDES = 3
NOISE = 24  # grey levels: golden patches of one colour alone would hide a shift
SINGLE_REMEDY = "if the network pads its input or pools all of it, write edge_mode: patch into its manifest"


@dataclass(frozen=True, kw_only=True)
class MapCheck:
    """A field of ``field_px`` against its patches: the largest difference in logits, and the reasons of a failure.

    ``largest`` is None if the file could not compute the field, or a logit is not finite.
    """

    field_px: int
    largest: float | None
    reasons: tuple[str, ...]


def check_map(runner: ExportedRunner, golden: Golden) -> MapCheck:
    """Compute one field as the manifest's ``edge_mode`` states, and its patches one by one or in one batch.

    ``valid``: the field in one call against its patches in one batch; each patch must have exactly one logit, which
    does not depend on pixels beyond ``receptive_field_px``. ``patch``: the map, which computes batches, against single
    patches.
    """
    manifest = runner.manifest
    field = field_of(golden.patches, manifest)
    patches = np.ascontiguousarray(cut(field, patch_px=manifest.patch_px, step_px=manifest.stride_px))
    side = len(patches)
    patches = patches.reshape(-1, *patches.shape[2:])
    largest: float | None = None
    try:
        logits = runner.predict(patches)
        if logits.shape != (len(patches), 1, 1, 1):
            reasons = [
                f"{len(patches)} patches of {manifest.patch_px} x {manifest.patch_px} px gave logits of shape "
                f"{logits.shape}, expected {(len(patches), 1, 1, 1)}: patch_px or stride_px is not that of the file"
            ]
        elif manifest.is_dense:
            largest, reasons = _dense(runner, field, logits.reshape(side, side))
            reasons += _receptive_field(runner, patches, logits)
        else:
            largest, reasons = _single(runner, field, patches)
    except ModelError as error:
        remedy = _not_dense(manifest) if manifest.is_dense else "the file must accept a batch of any size"
        reasons = [f"a map of {field.shape[0]} x {field.shape[1]} px cannot be computed ({error}): {remedy}"]
    finite = largest is not None and np.isfinite(largest)
    return MapCheck(field_px=field.shape[0], largest=largest if finite else None, reasons=tuple(reasons))


def field_of(patches: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Return a square field, uint8 (H, H, 3), of these patches with noise on them, the same for the same patches."""
    field_px = manifest.patch_px + STRIDES * manifest.stride_px
    across = -(-field_px // manifest.patch_px)
    chosen = patches[np.arange(across**2) % len(patches)].reshape(across, across, *patches.shape[1:])
    tiled = chosen.swapaxes(1, 2).reshape(across * manifest.patch_px, across * manifest.patch_px, 3)
    noise = np.random.default_rng(0).integers(-NOISE, NOISE + 1, (field_px, field_px, 3))
    return np.asarray(np.clip(tiled[:field_px, :field_px] + noise, 0, 255).astype(np.uint8))


def _dense(runner: ExportedRunner, field: np.ndarray, expected: np.ndarray) -> tuple[float | None, list[str]]:
    """Return the largest difference of the field's logits from those of its patches, (h, w), and reasons."""
    manifest = runner.manifest
    logits = runner.interpreter.predict(field[None])
    shape = (1, *expected.shape, 1)
    if logits.shape == (1, 1, 1, 1):
        largest = float(np.abs(expected - logits.item()).max())
    elif logits.ndim == len(shape):
        rows, columns = (min(pair) for pair in zip(expected.shape, logits.shape[1:3], strict=True))
        largest = float(np.abs(expected[:rows, :columns] - logits[0, :rows, :columns, 0]).max(initial=0.0))
    else:
        largest = np.nan
    if logits.shape == shape and largest <= manifest.tolerance:
        return largest, []
    lengths = f"; it gave logits of shape {logits.shape}, expected {shape}" if logits.shape != shape else ""
    return largest, [
        f"the logits of a field of {field.shape[0]} x {field.shape[1]} px differ from those of its {expected.size} "
        f"patches by up to {largest:.4g}, at most {manifest.tolerance:.4g} allowed{lengths}: "
        f"{_not_dense(manifest)}"
    ]


def _not_dense(manifest: Manifest) -> str:
    return (
        "not fully convolutional with valid padding, or not with the manifest's stride_px "
        f"{manifest.stride_px}; {SINGLE_REMEDY}"
    )


def _receptive_field(runner: ExportedRunner, patches: np.ndarray, logits: np.ndarray) -> list[str]:
    """Return reasons why ``receptive_field_px`` is not that of the file: a logit sees the first pixels of its patch."""
    manifest = runner.manifest
    sees, patch_px = manifest.receptive_field_px, manifest.patch_px
    if not patch_px - manifest.stride_px < sees <= patch_px:
        return [
            f"receptive_field_px is {sees}, expected {patch_px - manifest.stride_px + 1} to {patch_px}, from which a "
            f"patch of {patch_px} px has one logit at a stride of {manifest.stride_px} px"
        ]
    if sees == patch_px:
        return []
    changed = 255 - patches
    changed[:, :sees, :sees] = patches[:, :sees, :sees]
    largest = float(np.abs(runner.predict(changed) - logits).max())
    if largest <= manifest.tolerance:
        return []
    return [
        f"pixels beyond the receptive_field_px of {sees} change the logit of a patch by up to {largest:.4g}, at most "
        f"{manifest.tolerance:.4g} allowed; write the receptive field of the network into the manifest"
    ]


def _single(runner: ExportedRunner, field: np.ndarray, patches: np.ndarray) -> tuple[float | None, list[str]]:
    """Return the largest difference of the map's logits from those of single patches, and reasons."""
    tolerance = runner.manifest.tolerance
    alone = np.concatenate([runner.predict(patch[None]) for patch in patches]).reshape(-1)
    largest = float(np.abs(runner.map(field).reshape(-1) - alone).max())
    if largest <= tolerance:
        return largest, []
    return largest, [
        f"the logits of {len(patches)} patches in one batch differ from those of single patches by up to "
        f"{largest:.4g}, at most {tolerance:.4g} allowed: the patches of a batch must not change each other's logits"
    ]
