"""LiteRT, once TensorFlow Lite: opens ``.tflite`` files, with XNNPACK's kernels or its own."""

from importlib.metadata import version
from typing import Any

import numpy as np

from . import check_patches
from .errors import ModelError


def open_model(content: bytes, *, threads: int = 1) -> "LiteRTRunner":
    """A runner for the bytes of a ``.tflite`` file, with XNNPACK kernels.

    Raises:
        ModelError: not a TFLite file that this interpreter can run.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"LiteRT cannot open this file: {str(error).splitlines()[0]}") from error
    return LiteRTRunner(interpreter)


class LiteRTRunner:
    """A ``Runner`` over one LiteRT interpreter. The file holds one patch; other batches and fields resize it."""

    runtime = "litert"
    kernels = "xnnpack"

    def __init__(self, interpreter: Any) -> None:
        self.version = version("ai-edge-litert")
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]
        self._shape = tuple(interpreter.get_input_details()[0]["shape"])

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels, one patch or field at a time."""
        patches = check_patches(patches)
        shape = (1, *patches.shape[1:])
        if shape != self._shape:
            self._interpreter.resize_tensor_input(self._input, shape)
            self._interpreter.allocate_tensors()
            self._shape = shape
        return np.concatenate([self._one(patch[None]) for patch in patches]) if len(patches) else _nothing()

    def _one(self, patch: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input, patch)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output))


def _nothing() -> np.ndarray:
    return np.zeros((0, 1, 1, 1), np.float32)
