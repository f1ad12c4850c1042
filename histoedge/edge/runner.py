"""A loaded model with its manifest: logits, probabilities, verdicts and maps."""

from typing import TYPE_CHECKING

import numpy as np

from .errors import ModelError
from .manifest import Manifest
from .patches import check_field, check_single, cut

if TYPE_CHECKING:
    from .runtimes import Runner

BATCH, BATCH_BYTES = 64, 1 << 24  # patches of a map that are computed at once; at most 16 MB of pixels


class ExportedRunner:
    """The result of ``load``. Any number of threads may share it.

    ONNX Runtime computes their calls concurrently; LiteRT and OpenVINO, whose interpreters store the values of one
    call, compute them one after the other. A contiguous array is passed to ONNX Runtime and OpenVINO without a copy;
    LiteRT copies it. ``manifest`` is the manifest of the file; ``runtime``, ``version`` and ``kernels`` are those of
    ``Runner``. ``step`` keeps only every ``step``-th logit of ``runner`` along each side; the logits of a map are
    ``step_px`` apart.
    """

    def __init__(self, runner: "Runner", manifest: Manifest, *, step: int = 1, step_px: int | None = None) -> None:
        self.manifest = manifest
        self.step_px = manifest.stride_px * step if step_px is None else step_px
        self._step = step
        self._is_dense = manifest.is_dense
        self.runtime, self.version, self.kernels = runner.runtime, runner.version, runner.kernels
        self.interpreter = runner

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return logits of the positive class, float32 (N, h, w, 1), of raw RGB pixels, uint8 (N, H, W, 3).

        h = w = 1 for patches of the manifest's ``patch_px``. Larger fields are accepted in the ``edge_mode`` ``valid``.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, smaller than a patch, or larger than a patch
                that only has a meaning alone.
        """
        if not self._is_dense:
            patches = check_single(patches, patch_px=self.manifest.patch_px)
        logits = self.interpreter.predict(patches)
        return logits if self._step == 1 else logits[:, :: self._step, :: self._step]

    def probability(self, patches: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities of the positive class, float64 (N, h, w, 1); same input as ``predict``.

        Raises:
            DataError: see ``predict``.
        """
        return self.manifest.probability(self.predict(patches))

    def decide(self, patches: np.ndarray, *, at: str | None = None) -> np.ndarray:
        """Return verdicts, bool (N, h, w, 1): whether the probability reaches the manifest's threshold.

        ``at`` names another operating point, such as ``specificity 0.95``.

        Raises:
            ConfigError: the manifest has no operating point of that name.
            DataError: see ``predict``.
        """
        threshold = self.manifest.threshold if at is None else self.manifest.operating_point(at).threshold
        return np.asarray(self.probability(patches) >= threshold)

    def map(self, field: np.ndarray) -> np.ndarray:
        """Return logits, float32 (h, w), of a field of raw RGB pixels, uint8 (H, W, 3): one for each whole patch.

        Row i, column j is the logit of the patch with its corner at (i, j) x ``manifest.stride_px``, the same as for
        the patch cut out: h = (H - patch_px) // stride_px + 1. A ``step_px`` of ``load`` replaces ``stride_px``.
        In the ``edge_mode`` ``patch`` the patches are cut and computed in batches, which is slower.
        ``manifest.probability`` converts the logits to probabilities.

        Raises:
            DataError: the array is not uint8, not (H, W, 3), or smaller than a patch.
            ModelError: the file does not return one logit for each patch of a field, as its manifest states.
        """
        patch_px = self.manifest.patch_px
        batch = check_field(field, patch_px=patch_px)
        if not self._is_dense:
            return self._map_of_patches(field)
        logits = self.predict(batch)
        expected = (1, *((side - patch_px) // self.step_px + 1 for side in field.shape[:2]), 1)
        if logits.shape != expected:
            raise ModelError(
                f"a field of {field.shape[0]} x {field.shape[1]} px gave logits of shape {logits.shape}, expected "
                f"{expected}: the geometry in the manifest is not that of the file; run histoedge verify"
            )
        return np.asarray(logits[0, :, :, 0])

    def _map_of_patches(self, field: np.ndarray) -> np.ndarray:
        patch_px = self.manifest.patch_px
        patches = cut(field, patch_px=patch_px, step_px=self.step_px)
        logits = np.empty(patches.shape[:2], np.float32)
        at_once = min(BATCH, max(1, BATCH_BYTES // (3 * patch_px**2)))
        for start in range(0, logits.size, at_once):
            places = np.unravel_index(np.arange(start, min(start + at_once, logits.size)), logits.shape)
            logits[places] = self.interpreter.predict(patches[places]).reshape(-1)
        return logits
