"""The runtimes that open exported files: their table, and ``load``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import golden as goldens
from . import manifest as manifests
from .errors import ConfigError, RuntimeUnavailable
from .manifest import Manifest
from .runner import ExportedRunner
from .strided import strided


class Runner(Protocol):
    """A loaded model; the same interface on every runtime.

    ``runtime`` is the name of the runtime, ``version`` its release, ``kernels`` its implementation of the operators
    (``xnnpack``, ``mlas`` ...), which is reported with every measurement.
    """

    runtime: str
    version: str
    kernels: str

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return logits float32 (N, h, w, 1) of raw RGB pixels uint8 (N, H, W, 3); h = w = 1 for patches.

        For a larger field: one logit for each whole patch, ``stride_px`` apart, h = (H - patch_px) // stride_px + 1.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, or smaller than a patch.
            ModelError: the file cannot compute an array of this shape.
        """
        ...


@dataclass(frozen=True)
class Operator:
    """One operator of the graph that a runtime computes, with the runtime's names."""

    name: str
    kind: str
    integer: bool
    """Whether its inputs and outputs are integers."""
    delegated: bool = True
    """Whether the runner's ``kernels`` compute it."""

    def __str__(self) -> str:
        return self.name if self.name.startswith(self.kind) else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Runtime:
    """One row of ``RUNTIMES``: a runtime and the formats it opens."""

    name: str
    formats: tuple[str, ...]
    module: str
    """Name of the module to import."""
    install: str
    """Command that installs it."""
    opener: str
    """The submodule of this package, such as ``ort``. Its ``open_ort(content, threads=, may_saturate=, stride_px=,
    patch_px=)`` returns a ``Runner``, its ``ort_operators(content, may_saturate=, patch_px=)`` the operators that it
    computes."""
    packages: tuple[str, ...]
    """Distributions that provide the module."""
    kernels: str | None = None
    """The choice of kernels, passed to the opening function as ``kernels=``; None for a runtime without a choice."""

    def installed(self) -> bool:
        """Whether its module is installed; does not import it."""
        return find_spec(self.module) is not None

    def installed_version(self) -> str | None:
        """Return the installed release, without importing the module; None when it is not installed."""
        from importlib.metadata import PackageNotFoundError, version  # a third of the whole package's import time

        for package in self.packages if self.installed() else ():
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return None


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("litert", ("tflite",), "ai_edge_litert", "pip install ai-edge-litert", "litert", ("ai-edge-litert",)),
        Runtime(
            "onnxruntime",
            ("onnx",),
            "onnxruntime",
            "pip install onnxruntime",
            "ort",
            ("onnxruntime", "onnxruntime-gpu"),
        ),
        Runtime("openvino", ("onnx",), "openvino", "pip install openvino", "openvino", ("openvino",)),
    )
}
"""The runtimes that ``load`` tries by default, in this order."""

_ONNX_GPU = "pip install 'onnxruntime-gpu[cuda,cudnn]'"

VARIANTS = {
    row.name: row
    for row in (
        replace(RUNTIMES["litert"], name="litert-builtin", kernels="builtin"),
        replace(
            RUNTIMES["onnxruntime"],
            name="onnxruntime-cuda",
            kernels="cuda",
            install=_ONNX_GPU,
            packages=("onnxruntime-gpu",),
        ),
        replace(
            RUNTIMES["onnxruntime"],
            name="onnxruntime-tensorrt",
            kernels="tensorrt",
            install=f"{_ONNX_GPU} tensorrt",
            packages=("onnxruntime-gpu",),
        ),
    )
}
"""Other kernels of the same runtimes, used only when requested by name."""


def all_runtimes() -> dict[str, Runtime]:
    """Return all runtimes that can be requested by name: ``RUNTIMES``, then ``VARIANTS``."""
    return {**RUNTIMES, **VARIANTS}


def load(
    model: str | Path,
    *,
    runtime: str | None = None,
    threads: int = 1,
    warm_up: bool = True,
    step_px: int | None = None,
) -> ExportedRunner:
    """Open an exported file, after checking the file and its golden patches against the manifest.

    Args:
        model: path of a ``.tflite`` or ``.onnx`` file with its ``.json`` manifest and golden patches next to it.
        runtime: a name in ``all_runtimes()``; by default the first installed of ``RUNTIMES`` that opens the format.
        threads: number of threads of the interpreter.
        warm_up: predict one black patch now; otherwise the first call of the host is slower than the others.
        step_px: pixels between neighbours of a map; by default the manifest's ``stride_px``. In the ``edge_mode``
            ``valid`` a multiple of it: ONNX Runtime then computes only these, the other runtimes compute all and drop
            the rest. In the ``edge_mode`` ``patch`` any number: only these patches are cut.

    Raises:
        ConfigError: ``step_px`` is below 1, or not a multiple of the model's stride.
        ModelError: file, golden patches or manifest are missing, unreadable, or do not match.
        RuntimeUnavailable: the runtime is unknown, not installed, does not open this format, or finds no device.
    """
    row, content, manifest = _checked(model, runtime)
    step = _step(manifest, step_px)
    larger_stride = strided(content, step) if step > 1 and row.opener == "ort" else None
    options: dict[str, Any] = {"may_saturate": bool(manifest.may_saturate)}
    options |= {"stride_px": manifest.stride_px, "patch_px": manifest.patch_px}
    if row.kernels is not None:
        options["kernels"] = row.kernels
    runner: Runner = _opener(row)(larger_stride or content, threads=threads, **options)
    if warm_up:
        runner.predict(np.zeros((1, manifest.patch_px, manifest.patch_px, 3), np.uint8))
    return ExportedRunner(runner, manifest, step=1 if larger_stride else step, step_px=step_px)


def _step(manifest: Manifest, step_px: int | None) -> int:
    """Return ``step_px`` in strides of the model; 1 where single patches are cut."""
    if step_px is None or (step_px >= 1 and not manifest.is_dense):
        return 1
    if step_px < 1 or step_px % manifest.stride_px:
        raise ConfigError(f"step_px is {step_px}; expected a multiple of the model's stride, {manifest.stride_px} px")
    return step_px // manifest.stride_px


def operators(model: str | Path, *, runtime: str | None = None) -> tuple[Operator, ...]:
    """Return the operators that a runtime computes for an exported file, in their order, after the checks of ``load``.

    Raises:
        ModelError: see ``load``.
        RuntimeUnavailable: see ``load``.
    """
    row, content, manifest = _checked(model, runtime)
    if row.kernels is not None:
        raise RuntimeUnavailable(f"{row.name} cannot list its operators; {', '.join(RUNTIMES)} can")
    return _operators_of(row)(content, may_saturate=bool(manifest.may_saturate), patch_px=manifest.patch_px)


def _checked(model: str | Path, runtime: str | None) -> tuple[Runtime, bytes, Manifest]:
    path = Path(model)
    manifest = manifests.read(path)
    content = manifests.checked_bytes(path, manifest)
    goldens.checked_golden_bytes(path, manifest)
    return _choose(path.name, manifest.format, runtime), content, manifest


def _choose(name: str, format_: str, runtime: str | None) -> Runtime:
    candidates = [row for row in RUNTIMES.values() if format_ in row.formats]
    if runtime is not None:
        if runtime not in all_runtimes():
            raise RuntimeUnavailable(f"unknown runtime {runtime!r}; expected one of {', '.join(all_runtimes())}")
        requested = all_runtimes()[runtime]
        if format_ not in requested.formats:
            names = " or ".join(row.name for row in candidates)
            raise RuntimeUnavailable(f"{name}: {runtime} does not open {format_} files; use {names}")
        candidates = [requested]
    for row in candidates:
        if row.installed():
            return row
    hints = " or ".join(row.install for row in candidates)
    raise RuntimeUnavailable(f"{name}: {' and '.join(row.name for row in candidates)} not installed; {hints}")


def _opener(row: Runtime) -> Callable[..., Runner]:
    return getattr(import_module(f".{row.opener}", __package__), f"open_{row.opener}")  # type: ignore[no-any-return]


def _operators_of(row: Runtime) -> Callable[..., tuple[Operator, ...]]:
    return getattr(import_module(f".{row.opener}", __package__), f"{row.opener}_operators")  # type: ignore[no-any-return]
