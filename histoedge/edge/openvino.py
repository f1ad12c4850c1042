"""OpenVINO: opens ``.onnx`` files on the CPU (it reads TFLite from a path alone, never from checked bytes)."""

from typing import Any

import numpy as np

from . import check_patches
from .errors import ModelError


def open_model(content: bytes, *, threads: int = 1) -> "OpenVINORunner":
    """A runner for the bytes of an ``.onnx`` file, on OpenVINO's CPU plug-in, computing in float32.

    Raises:
        ModelError: not a file that OpenVINO can run.
    """
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(content)
        shape = model.input(0).partial_shape
        if shape.is_static:
            shape[0] = -1
            model.reshape(shape)
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot open this file: {str(error).strip().splitlines()[-1]}") from error
    return OpenVINORunner(compiled, openvino.__version__.split("-")[0])


class OpenVINORunner:
    """A ``Runner`` over one compiled OpenVINO model."""

    runtime = "openvino"
    kernels = "cpu plug-in"

    def __init__(self, compiled: Any, version: str) -> None:
        self.version = version
        self._request = compiled.create_infer_request()

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        results = self._request.infer([check_patches(patches)], share_inputs=True)
        return np.array(results[0])
