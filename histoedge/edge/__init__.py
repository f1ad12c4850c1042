"""The deployed part: raw pixels in, one logit out.

It needs the standard library, numpy and one interpreter, which is imported when a model is opened.
The folder can be copied on its own and renamed.

    runner = load("int8.onnx")
    logits = runner.predict(patches)          # uint8 (N, S, S, 3) RGB, S = patch_px -> float32 (N, 1, 1, 1)
    verdicts = runner.decide(patches)         # at the manifest's threshold
    logits = runner.map(field)                # uint8 (H, W, 3) -> float32 (h, w), one for each whole patch
"""

from .manifest import Manifest
from .patches import check_patches
from .runner import ExportedRunner
from .runtimes import RUNTIMES, VARIANTS, Operator, Runner, Runtime, all_runtimes, load, operators

__all__ = [
    "RUNTIMES",
    "VARIANTS",
    "ExportedRunner",
    "Manifest",
    "Operator",
    "Runner",
    "Runtime",
    "all_runtimes",
    "check_patches",
    "load",
    "operators",
]
