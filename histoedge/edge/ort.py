"""ONNX Runtime: opens ``.onnx`` files on the CPU."""

from typing import Any

import numpy as np

from . import check_patches
from .errors import ModelError


def open_model(content: bytes, *, threads: int = 1) -> "OnnxRuntimeRunner":
    """A runner for the bytes of an ``.onnx`` file, on ONNX Runtime's CPU kernels.

    Raises:
        ModelError: not an ONNX file that this runtime can run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # every release of the library raises pybind classes of its own, all of them Exception
        raise ModelError(f"ONNX Runtime cannot open this file: {str(error).splitlines()[0]}") from error
    return OnnxRuntimeRunner(session, onnxruntime.__version__)


class OnnxRuntimeRunner:
    """A ``Runner`` over one ONNX Runtime session."""

    runtime = "onnxruntime"
    kernels = "mlas"

    def __init__(self, session: Any, version: str) -> None:
        self.version = version
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        return np.asarray(self._session.run([self._output], {self._input: check_patches(patches)})[0])
