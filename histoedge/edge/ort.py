"""ONNX Runtime: opens ``.onnx`` files on the CPU."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import Operator, check_patches
from .errors import ModelError

EXACT_SUMS = "session.x64quantprecision"  # ONNX Runtime's onnxruntime_session_options_config_keys.h


def open_model(
    content: bytes, *, threads: int = 1, may_saturate: bool = False, stride_px: int = 1
) -> "OnnxRuntimeRunner":
    """A runner for the bytes of an ``.onnx`` file, on ONNX Runtime's CPU kernels.

    ``may_saturate`` asks for exact sums on x86 CPUs without VNNI, where uint8 x int8 kernels would overflow 16 bits:
    slower there, no difference elsewhere.

    Raises:
        ModelError: not an ONNX file that this runtime can run.
    """
    import onnxruntime

    session = _session(content, threads=threads, may_saturate=may_saturate)
    return OnnxRuntimeRunner(session, stride_px=stride_px, version=onnxruntime.__version__)


def operators(content: bytes) -> tuple[Operator, ...]:
    """The operators of the optimised graph, in the order in which they ran on one black patch.

    The profile names each with the types and shapes of its inputs and outputs, parameters included. An operator is
    integer when no output is a float and no input of two or more dimensions is: floats that are scalars or vectors
    beside integer activations are scales (``QLinearConv`` takes three), parameters of the integer arithmetic.

    Raises:
        ModelError: see ``open_model``.
    """
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        session = _session(content, threads=1, profile=Path(folder) / "profile")
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, 96, 96, 3), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    ending = "_kernel_time"
    ran = [event for event in events if event["cat"] == "Node" and event["name"].endswith(ending)]
    return tuple(
        Operator(event["name"].removesuffix(ending), event["args"]["op_name"], _is_integer(event["args"]))
        for event in ran
    )


def _is_integer(profiled: dict[str, Any]) -> bool:
    outputs = [type_ for output in profiled["output_type_shape"] for type_ in output]
    activations = [
        type_ for input_ in profiled["input_type_shape"] for type_, shape in input_.items() if len(shape) >= 2
    ]
    return not any("float" in type_ or type_ == "double" for type_ in outputs + activations)


def _session(content: bytes, *, threads: int, may_saturate: bool = False, profile: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if may_saturate:
        options.add_session_config_entry(EXACT_SUMS, "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # every release of the library raises pybind classes of its own, all of them Exception
        raise ModelError(f"ONNX Runtime cannot open this file: {str(error).splitlines()[0]}") from error


class OnnxRuntimeRunner:
    """A ``Runner`` over one ONNX Runtime session."""

    runtime = "onnxruntime"
    kernels = "mlas"

    def __init__(self, session: Any, *, stride_px: int, version: str) -> None:
        self.version = version
        self._session = session
        self._stride_px = stride_px
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels."""
        patches = check_patches(patches, stride_px=self._stride_px)
        return np.asarray(self._session.run([self._output], {self._input: patches})[0])
