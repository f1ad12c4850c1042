"""Time to decode an image file into pixels: not part of a model's time, and often longer."""

import io
import time
from typing import Any

import numpy as np
from PIL import Image

from histoedge.benchmark import timing

FORMATS = {"png": {}, "tiff": {}, "jpeg": {"quality": 90}}  # Pillow writes TIFF without compression
PATCHES = 32
ROUNDS = 10


def decode(patches: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Measure the decoding of one patch with Pillow in this process.

    Args:
        patches: uint8 (n, S, S, 3); real patches, because the time depends on how well they compress.
        seed: of the order of the formats in a round, and of the bootstrap.

    Returns:
        By format: ``p50_ms`` with its 95 % interval ``p50_lo`` and ``p50_hi``, and ``mean_bytes`` of the files.
    """
    encoded = {name: [_encoded(patch, name) for patch in patches[:PATCHES]] for name in FORMATS}
    rounds_ms: dict[str, list[np.ndarray]] = {name: [] for name in FORMATS}
    random = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        for name in random.permutation(list(FORMATS)):
            rounds_ms[name].append(np.array([_decode_ms(content) for content in encoded[name]]))
    figures = {}
    for name, rounds in rounds_ms.items():
        (p50,) = timing.quantiles(rounds, [0.5], seed=seed)
        size = float(np.mean([len(content) for content in encoded[name]]))
        figures[name] = {"p50_ms": p50.value, "p50_lo": p50.lo, "p50_hi": p50.hi, "mean_bytes": size}
    return figures


def _encoded(patch: np.ndarray, format_: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(patch).save(file, format_, **FORMATS[format_])
    return file.getvalue()


def _decode_ms(content: bytes) -> float:
    started = time.perf_counter_ns()
    with Image.open(io.BytesIO(content)) as image:
        np.asarray(image.convert("RGB"))
    return (time.perf_counter_ns() - started) / 1e6
