"""The runtimes that open exported files: the table, and opening a file on one of them."""

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
from .patches import check_patches
from .runner import ExportedRunner
from .strided import strided

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


class Runner(Protocol):
    """A loaded model, the same on every runtime.

    ``runtime`` is the runtime's name, ``version`` its release, ``kernels`` the path that computes
    (``xnnpack``, ``mlas`` ...), named with every number.
    """

    runtime: str
    version: str
    kernels: str

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Tumour logits of uint8 (N, H, W, 3) RGB raw pixels, as float32 (N, h, w, 1); h = w = 1 for 96 x 96.

        A larger field gives one logit for each whole patch, ``stride_px`` apart: h = (H - 96) // stride_px + 1.

        Raises:
            DataError: the array is not uint8, not (N, H, W, 3), empty, or smaller than 96 x 96.
        """
        ...


@dataclass(frozen=True)
class Operator:
    """One operator of the graph that a runtime computes, with the names that the runtime gives it."""

    name: str
    kind: str
    integer: bool
    """Whether it takes integers and gives integers."""
    delegated: bool = True
    """Whether the kernels that the runner names compute it."""

    def __str__(self) -> str:
        return self.name if self.name.startswith(self.kind) else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Runtime:
    """One row of ``RUNTIMES``: a runtime and what it opens."""

    name: str
    formats: tuple[str, ...]
    module: str
    """The module that must be importable."""
    install: str
    """What to tell someone who lacks it."""
    opener: str
    """The submodule of this package, such as ``ort``. Its ``open_ort(content, threads=, may_saturate=, stride_px=)``
    returns a ``Runner``, its ``ort_operators(content, may_saturate=)`` the operators that it computes."""
    packages: tuple[str, ...]
    """The distributions that may provide the module."""
    kernels: str | None = None
    """Which of its kernels, where it has several: the opening function gets it as ``kernels=``."""

    def installed(self) -> bool:
        """Whether its module can be found (it is not imported)."""
        return find_spec(self.module) is not None

    def installed_version(self) -> str | None:
        """The release that is installed, without importing it; None when it is not."""
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
"""What opens a file unasked, in this order."""

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
"""Other kernels of the same runtimes, used only where they are asked for by name."""


def known() -> dict[str, Runtime]:
    """Every runtime that can be asked for by name: ``RUNTIMES``, then ``VARIANTS``."""
    return {**RUNTIMES, **VARIANTS}


def load(
    model: str | Path,
    *,
    runtime: str | None = None,
    threads: int = 1,
    warm_up: bool = True,
    step_px: int | None = None,
) -> ExportedRunner:
    """Open an exported file after checking it, its golden patches and its manifest against each other.

    Args:
        model: path of a ``.tflite`` or ``.onnx`` file with its ``.json`` manifest and golden patches beside it.
        runtime: a name of ``known()``; without it the first installed of ``RUNTIMES`` that opens the format.
        threads: how many threads the interpreter may use.
        warm_up: predict a black patch first, so that the first call of the host is as fast as the rest.
        step_px: pixels between neighbours of a map, a multiple of the manifest's ``stride_px`` (without it that
            itself). ONNX Runtime then computes no others, the other runtimes do and drop them.

    Raises:
        ConfigError: ``step_px`` is no multiple of the model's stride.
        ModelError: file, golden patches or manifest missing, unreadable, or not matching each other.
        RuntimeUnavailable: the runtime is unknown, not installed, does not open this format, or finds no device.
    """
    row, content, manifest = _checked(model, runtime)
    every = _every(manifest, step_px)
    thinned = strided(content, every) if every > 1 and row.opener == "ort" else None
    told: dict[str, Any] = {"may_saturate": bool(manifest.may_saturate), "stride_px": manifest.stride_px}
    if row.kernels is not None:
        told["kernels"] = row.kernels
    opened: Runner = _opener(row)(thinned or content, threads=threads, **told)
    if warm_up:
        opened.predict(np.zeros((1, manifest.patch_px, manifest.patch_px, 3), np.uint8))
    return ExportedRunner(opened, manifest, every=1 if thinned else every)


def _every(manifest: Manifest, step_px: int | None) -> int:
    step = manifest.stride_px if step_px is None else step_px
    if step < 1 or step % manifest.stride_px:
        raise ConfigError(f"step_px is {step}; expected a multiple of the model's stride, {manifest.stride_px} px")
    return step // manifest.stride_px


def operators(model: str | Path, *, runtime: str | None = None) -> tuple[Operator, ...]:
    """What a runtime makes of an exported file, after the same checks as ``load``: its operators in their order.

    Raises:
        ModelError: see ``load``.
        RuntimeUnavailable: see ``load``.
    """
    row, content, manifest = _checked(model, runtime)
    if row.kernels is not None:
        raise RuntimeUnavailable(f"{row.name} does not tell its operators; {', '.join(RUNTIMES)} do")
    return _operators_of(row)(content, may_saturate=bool(manifest.may_saturate))


def _checked(model: str | Path, runtime: str | None) -> tuple[Runtime, bytes, Manifest]:
    path = Path(model)
    checked = manifests.read(path)
    content = manifests.checked_bytes(path, checked)
    goldens.checked_golden_bytes(path, checked)
    return _choose(path.name, checked.format, runtime), content, checked


def _choose(name: str, format_: str, runtime: str | None) -> Runtime:
    fitting = [row for row in RUNTIMES.values() if format_ in row.formats]
    if runtime is not None:
        if runtime not in known():
            raise RuntimeUnavailable(f"no runtime is called {runtime!r}; known: {', '.join(known())}")
        asked = known()[runtime]
        if format_ not in asked.formats:
            names = ", ".join(row.name for row in fitting)
            raise RuntimeUnavailable(f"{name}: {runtime} does not open {format_} files; {names} can")
        fitting = [asked]
    for row in fitting:
        if row.installed():
            return row
    hints = " or ".join(row.install for row in fitting)
    raise RuntimeUnavailable(f"{name}: {' and '.join(row.name for row in fitting)} not installed; {hints}")


def _opener(row: Runtime) -> Callable[..., Runner]:
    return getattr(import_module(f".{row.opener}", __package__), f"open_{row.opener}")  # type: ignore[no-any-return]


def _operators_of(row: Runtime) -> Callable[..., tuple[Operator, ...]]:
    return getattr(import_module(f".{row.opener}", __package__), f"{row.opener}_operators")  # type: ignore[no-any-return]
