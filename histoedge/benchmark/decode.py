"""How long it takes to turn an image file's bytes into pixels: no part of any model's time, and often longer."""

import io
import time
from typing import Any

import numpy as np
from PIL import Image

from histoedge.benchmark import timing

SAVED = {"png": {}, "tiff": {}, "jpeg": {"quality": 90}}  # TIFF as Pillow saves it: not compressed
PATCHES = 32
ROUNDS = 10


def decode(patches: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Milliseconds to decode one patch with Pillow in this process: p50 with its 95 % interval, bytes, by format.

    Args:
        patches: uint8 (n, 96, 96, 3), real ones: how well they compress decides.
        seed: of the order of the formats within a round, and of the bootstrap.
    """
    encoded = {name: [_encoded(patch, name) for patch in patches[:PATCHES]] for name in SAVED}
    rounds_ms: dict[str, list[np.ndarray]] = {name: [] for name in SAVED}
    random = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        for name in random.permutation(list(SAVED)):
            rounds_ms[name].append(np.array([_timed(content) for content in encoded[name]]))
    found = {}
    for name, rounds in rounds_ms.items():
        (p50,) = timing.quantiles(rounds, [0.5], seed=seed)
        size = float(np.mean([len(content) for content in encoded[name]]))
        found[name] = {"p50_ms": p50.value, "p50_lo": p50.lo, "p50_hi": p50.hi, "mean_bytes": size}
    return found


def _encoded(patch: np.ndarray, format_: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(patch).save(file, format_, **SAVED[format_])
    return file.getvalue()


def _timed(content: bytes) -> float:
    started = time.perf_counter_ns()
    with Image.open(io.BytesIO(content)) as image:
        np.asarray(image.convert("RGB"))
    return (time.perf_counter_ns() - started) / 1e6
