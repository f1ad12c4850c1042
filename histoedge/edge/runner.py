"""A loaded model with its manifest: logits, probabilities, verdicts and maps."""

from typing import TYPE_CHECKING

import numpy as np

from .manifest import Manifest
from .patches import check_field

if TYPE_CHECKING:
    from .runtimes import Runner


class ExportedRunner:
    """The result of ``load``. Any number of threads may share it.

    ONNX Runtime computes their calls concurrently; LiteRT and OpenVINO, whose interpreters store the values of one
    call, compute them one after the other. A contiguous array is passed to ONNX Runtime and OpenVINO without a copy;
    LiteRT copies it. ``manifest`` is the manifest of the file; ``runtime``, ``version`` and ``kernels`` are those of
    ``Runner``. ``step`` keeps only every ``step``-th logit of ``runner`` along each side.
    """

    def __init__(self, runner: "Runner", manifest: Manifest, *, step: int = 1) -> None:
        self.manifest = manifest
        self._step = step
        self.runtime, self.version, self.kernels = runner.runtime, runner.version, runner.kernels
        self.interpreter = runner

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return tumour logits, float32 (N, h, w, 1), of raw RGB pixels, uint8 (N, H, W, 3); h = w = 1 for 96 x 96.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, or smaller than 96 x 96.
        """
        logits = self.interpreter.predict(patches)
        return logits if self._step == 1 else logits[:, :: self._step, :: self._step]

    def probability(self, patches: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities of tumour, float64 (N, h, w, 1); same input as ``predict``.

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

        Row i, column j is the logit of the 96 x 96 patch with its corner at (i, j) x ``manifest.stride_px``, the same
        as for the patch cut out: h = (H - 96) // stride_px + 1. A ``step_px`` of ``load`` replaces ``stride_px``.
        ``manifest.probability`` converts the logits to probabilities.

        Raises:
            DataError: the array is not uint8, not (H, W, 3), or smaller than 96 x 96.
        """
        return np.asarray(self.predict(check_field(field, patch_px=self.manifest.patch_px))[0, :, :, 0])
