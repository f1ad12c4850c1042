"""The part that ships: raw pixels in, one tumour logit out.

Needs the standard library, numpy and one interpreter, which is imported when a model is opened.
This folder can be copied by itself under any name.

    runner = load("int8.onnx")
    logits = runner.predict(patches)          # uint8 (N, 96, 96, 3) RGB -> float32 (N, 1, 1, 1)
    verdicts = runner.decide(patches)         # at the manifest's threshold
    logits = runner.map(field)                # uint8 (H, W, 3) -> float32 (h, w), one for each whole patch
"""

from .manifest import Manifest
from .patches import check_patches
from .runner import ExportedRunner
from .runtimes import RUNTIMES, VARIANTS, Operator, Runner, Runtime, known, load, operators

__all__ = [
    "RUNTIMES",
    "VARIANTS",
    "ExportedRunner",
    "Manifest",
    "Operator",
    "Runner",
    "Runtime",
    "check_patches",
    "known",
    "load",
    "operators",
]
