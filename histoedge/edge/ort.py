"""ONNX Runtime: opens ``.onnx`` files on the CPU, or on an NVIDIA GPU when requested.

From release 1.29 its builds for Linux and macOS record usage in the user's cache folder and send it to Microsoft
(microsoft/onnxruntime, pull request 27379). This module turns that off, unless onnxruntime was imported before; set
``ORT_DISABLE_TELEMETRY=0`` to allow it.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelError, RuntimeUnavailable
from .patches import PATCH_PX, check_patches
from .runtimes import Operator

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before the library is loaded

EXACT_SUMS = "session.x64quantprecision"  # ONNX Runtime's onnxruntime_session_options_config_keys.h
NO_CPU = "session.disable_cpu_ep_fallback"  # same file
_SOURCE_LOCATION = re.compile(
    r"/\S+\.(?:cc|h):\d+ (?:[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? )?"
)  # file:line void f(a, b)
PROVIDERS = {"mlas": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def open_ort(
    content: bytes,
    *,
    threads: int = 1,
    may_saturate: bool = False,
    stride_px: int = 1,
    patch_px: int = PATCH_PX,
    kernels: str = "mlas",
) -> "OnnxRuntimeRunner":
    """Return a runner for the bytes of an ``.onnx`` file.

    ``kernels`` are ``mlas``, ONNX Runtime's own on the CPU, or ``cuda`` or ``tensorrt`` on a GPU; the runner's
    ``kernels`` then state whether the GPU computes all operators. ``may_saturate`` requests exact sums on x86 CPUs
    without VNNI, whose uint8 x int8 kernels would overflow 16 bits: slower there, no difference on other CPUs.

    Raises:
        ModelError: ONNX Runtime cannot run this file.
        RuntimeUnavailable: this build of the runtime lacks the provider, or the provider finds no GPU.
    """
    import onnxruntime

    if kernels == "mlas":
        session = _session(content, threads=threads, may_saturate=may_saturate)
    else:
        session, kernels = _on_gpu(content, kernels, threads=threads)
    geometry = {"stride_px": stride_px, "patch_px": patch_px}
    return OnnxRuntimeRunner(session, **geometry, version=onnxruntime.__version__, kernels=kernels)


def _on_gpu(content: bytes, kernels: str, *, threads: int) -> tuple[Any, str]:
    """Return a session with this provider, all operators on the GPU if possible, and the description of its kernels."""
    import onnxruntime

    provider = PROVIDERS[kernels]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeUnavailable(
            f"onnxruntime {onnxruntime.__version__} has no {provider}; uninstall it and pip install onnxruntime-gpu"
        )
    if hasattr(onnxruntime, "preload_dlls"):  # NVIDIA's libraries from their Python packages, since 1.21
        onnxruntime.preload_dlls()
    try:
        session, description = _session(content, threads=threads, provider=provider, gpu_only=True), kernels
    except ModelError:  # some operator has no GPU kernel: int8 convolutions have none in CUDA's provider
        session = _session(content, threads=threads, provider=provider)
        description = f"{kernels}, some operators on the cpu"
    if provider not in session.get_providers():
        raise RuntimeUnavailable(f"{provider} did not start: no NVIDIA GPU, or its driver or libraries are missing")
    return session, description


def ort_operators(content: bytes, *, may_saturate: bool = False, patch_px: int = PATCH_PX) -> tuple[Operator, ...]:
    """Return the operators of the optimised graph, in the order in which they ran on one black patch.

    The profile lists each with the types and shapes of its inputs and outputs, including parameters. An operator is
    integer when no output is a float and no input with two or more dimensions is: float scalars and vectors next to
    integer activations are scales (``QLinearConv`` has three), parameters of the integer arithmetic.

    Raises:
        ModelError: see ``open_ort``.
    """
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        session = _session(content, threads=1, may_saturate=may_saturate, profile=Path(folder) / "profile")
        _run(session, None, {session.get_inputs()[0].name: np.zeros((1, patch_px, patch_px, 3), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    ending = "_kernel_time"
    kernel_events = [event for event in events if event["cat"] == "Node" and event["name"].endswith(ending)]
    return tuple(
        Operator(event["name"].removesuffix(ending), event["args"]["op_name"], _is_integer(event["args"]))
        for event in kernel_events
    )


def _is_integer(profiled: dict[str, Any]) -> bool:
    outputs = [type_ for output in profiled["output_type_shape"] for type_ in output]
    activations = [
        type_ for input_ in profiled["input_type_shape"] for type_, shape in input_.items() if len(shape) >= 2
    ]
    return not any("float" in type_ or type_ == "double" for type_ in outputs + activations)


def _session(
    content: bytes,
    *,
    threads: int,
    may_saturate: bool = False,
    profile: Path | None = None,
    provider: str = PROVIDERS["mlas"],
    gpu_only: bool = False,
) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if may_saturate:
        options.add_session_config_entry(EXACT_SUMS, "1")
    if gpu_only:
        options.add_session_config_entry(NO_CPU, "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # the library raises its own pybind classes, which differ between releases
        raise ModelError(f"ONNX Runtime cannot open this file: {_short_message(str(error))}") from error


def _run(session: Any, outputs: list[str] | None, inputs: dict[str, np.ndarray]) -> list[Any]:
    try:
        return session.run(outputs, inputs)  # type: ignore[no-any-return]
    except Exception as error:  # as above
        (patches,) = inputs.values()
        raise ModelError(
            f"ONNX Runtime cannot run this file on pixels of shape {patches.shape}: {_short_message(str(error))}"
        ) from error


def _short_message(message: str) -> str:
    """Return the first line of an error without its location in the library's sources, a long C++ signature."""
    return _SOURCE_LOCATION.sub("", message.splitlines()[0]) if message else "no reason given"


class OnnxRuntimeRunner:
    """A ``Runner`` over one ONNX Runtime session."""

    runtime = "onnxruntime"

    def __init__(self, session: Any, *, stride_px: int, patch_px: int, version: str, kernels: str) -> None:
        self.version, self.kernels = version, kernels
        self._session = session
        self._stride_px, self._patch_px = stride_px, patch_px
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return the logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels.

        Raises:
            ModelError: the file cannot compute an array of this shape.
        """
        patches = check_patches(patches, patch_px=self._patch_px, stride_px=self._stride_px)
        return np.asarray(_run(self._session, [self._output], {self._input: patches})[0])
