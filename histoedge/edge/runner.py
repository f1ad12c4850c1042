"""A loaded model with its manifest: logits, and what the manifest makes of them."""

from typing import TYPE_CHECKING

import numpy as np

from .manifest import Manifest
from .patches import check_field

if TYPE_CHECKING:
    from .runtimes import Runner


class ExportedRunner:
    """What ``load`` gives. Any number of threads may share it.

    ONNX Runtime computes their calls at once; on LiteRT and OpenVINO, whose interpreters hold one call's values, they
    take turns. A contiguous array goes to ONNX Runtime and OpenVINO without a copy; LiteRT copies it.
    ``manifest`` is the file's own; ``runtime``, ``version`` and ``kernels`` are those of ``Runner``. Of the answers of
    ``runner`` along each side, only each ``every``-th is given.
    """

    def __init__(self, runner: "Runner", manifest: Manifest, *, every: int = 1) -> None:
        self.manifest = manifest
        self._every = every
        self.runtime, self.version, self.kernels = runner.runtime, runner.version, runner.kernels
        self.interpreter = runner

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Tumour logits, float32 (N, h, w, 1), of raw RGB pixels, uint8 (N, H, W, 3); h = w = 1 for 96 x 96.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, or smaller than 96 x 96.
        """
        logits = self.interpreter.predict(patches)
        return logits if self._every == 1 else logits[:, :: self._every, :: self._every]

    def probability(self, patches: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of tumour, float64 (N, h, w, 1), of the same patches as ``predict``.

        Raises:
            DataError: see ``predict``.
        """
        return self.manifest.probability(self.predict(patches))

    def decide(self, patches: np.ndarray, *, at: str | None = None) -> np.ndarray:
        """Verdicts, bool (N, h, w, 1): whether the probability reaches the manifest's threshold.

        ``at`` names another operating point, such as ``specificity 0.95``.

        Raises:
            ConfigError: the manifest has no operating point of that name.
            DataError: see ``predict``.
        """
        threshold = self.manifest.threshold if at is None else self.manifest.operating_point(at).threshold
        return np.asarray(self.probability(patches) >= threshold)

    def map(self, field: np.ndarray) -> np.ndarray:
        """Logits, float32 (h, w), of a field of raw RGB pixels, uint8 (H, W, 3): one for each whole patch in it.

        Row i, column j is the logit of the 96 x 96 patch whose corner is at (i, j) x ``manifest.stride_px``, exactly as
        if it had been cut out: h = (H - 96) // stride_px + 1; where ``load`` was given a ``step_px``, it stands for
        ``stride_px``. ``manifest.probability`` makes probabilities of them.

        Raises:
            DataError: the array is not uint8, not (H, W, 3), or smaller than 96 x 96.
        """
        return np.asarray(self.predict(check_field(field, patch_px=self.manifest.patch_px))[0, :, :, 0])
