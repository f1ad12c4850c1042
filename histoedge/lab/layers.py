"""Errors of an integer file against its float network, layer by layer, and the layer to keep in float first.

The errors are measured in a real interpreter. The effect of one layer on the logit comes from a simulation of the
integer network, because no file has a single layer in float. ``python -m histoedge.lab.layers`` returns the errors to
``histoedge.benchmark``, which must not load TensorFlow.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cell, edge, files
from histoedge.config import Recipe
from histoedge.data import Split, evenly_spaced
from histoedge.edge import Manifest
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.edge.manifest import FORMATS
from histoedge.lab import backend, checkpoint, graph, layer_codes, quantise
from histoedge.lab.architecture import Network
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.graph import Node

SAMPLE_PATCHES = 256
CHUNK_PATCHES = 16  # about 100 MB for all activations of the widest network


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Errors of one convolution of an integer file.

    Attributes:
        layer: name of the layer.
        channels: number of output channels.
        quantum: step between two codes of the activation; of a layer in float, of the codes that the next layer reads.
        rms_quanta: rms error of the activation against the float network in quanta, errors of earlier layers included.
        largest_quanta: largest such error in quanta.
        relative_rms: rms error over the rms of the float activation; None if all float activations are 0.
        clipped: share of float activations outside the range of the codes.
        twin_largest_quanta: largest difference in codes between the TFLite and the ONNX file; None if the folder has
            no file of the other format from the same weights.
        logit_rms: rms error of the logit of the simulated integer network, the same in all rows.
        logit_rms_if_float: the same error with this layer's kernel and activation in float.
    """

    layer: str
    channels: int
    quantum: float
    rms_quanta: float
    largest_quanta: float
    relative_rms: float | None
    clipped: float
    twin_largest_quanta: int | None
    logit_rms: float
    logit_rms_if_float: float


def errors_and_advice(model: Path, valid: Split | None) -> tuple[tuple[LayerError, ...], str]:
    """Return ``errors_by_layer`` on patches of valid (never test), or the golden patches, and the ``advice``."""
    errors = errors_by_layer(model, None if valid is None else sample(valid))
    return errors, advice(errors)


def errors_by_layer(model: Path, patches: np.ndarray | None = None) -> tuple[LayerError, ...]:
    """Return ``errors_in_order`` sorted by ``rms_quanta``, largest first."""
    return tuple(sorted(errors_in_order(model, patches), key=lambda error: -error.rms_quanta))


def errors_in_order(model: Path, patches: np.ndarray | None = None) -> tuple[LayerError, ...]:
    """Compare the layers of an int8 file with the float network of ``RUN/<recipe>.weights.h5``.

    Args:
        model: ``RUN/models/<recipe>.tflite`` or ``.onnx``.
        patches: raw pixels, uint8 (N, 96, 96, 3); default: the golden patches.

    Returns:
        The errors in the order of the layers.

    Raises:
        ConfigError: not an int8 recipe.
        ModelError: a file is missing or changed, or the model was exported from other weights.
        DataError: patches of the wrong type or shape.
        RuntimeUnavailable: the extra ``lab`` is not installed.
    """
    manifest = manifests.read(model)
    content = manifests.checked_bytes(model, manifest)
    saved = _read_weights(model, manifest)
    checked = edge.check_patches(
        goldens.read_golden(model, manifest).patches if patches is None else patches, patch_px=manifest.patch_px
    )
    tf = backend.tensorflow()
    opened = layer_codes.open_codes(content, manifest.format, saved.network)
    twin = _open_twin(model, manifest, saved.network)
    simulation = _Simulation(tf, saved)
    sums = {name: _Sums(*_quantum(opened, saved, name)) for name in saved.network.convolutions}
    for start in range(0, len(checked), CHUNK_PATCHES):
        chunk = checked[start : start + CHUNK_PATCHES]
        exact = simulation.activations(chunk)
        codes = opened.codes(chunk)
        twin_codes = twin.codes(chunk) if twin is not None else {}
        for name, layer in sums.items():
            layer.add(codes[name], exact[name], twin_codes.get(name), in_float=name not in opened.quanta)
    logit_rms = logit_errors(saved, checked)
    return tuple(
        LayerError(
            layer=name,
            channels=exact[name].shape[-1],
            quantum=layer.quantum,
            rms_quanta=float(np.sqrt(layer.squares / layer.count)),
            largest_quanta=layer.largest,
            relative_rms=float(np.sqrt(layer.squares / layer.exact_squares)) if layer.exact_squares else None,
            clipped=layer.outside / layer.count,
            twin_largest_quanta=layer.twin_largest,
            logit_rms=logit_rms[None],
            logit_rms_if_float=logit_rms[name],
        )
        for name, layer in sums.items()
    )


def logit_errors(saved: Checkpoint, patches: np.ndarray) -> dict[str | None, float]:
    """Return the rms error of the logit of the simulated integer network (None), and with each layer in float.

    Args:
        saved: weights of an int8 recipe.
        patches: raw pixels, uint8 (N, side, side, 3).
    """
    simulation = _Simulation(backend.tensorflow(), saved)
    squares: dict[str | None, list[float]] = {}
    for start in range(0, len(patches), CHUNK_PATCHES):
        chunk = patches[start : start + CHUNK_PATCHES]
        exact = simulation.activations(chunk)[saved.network.nodes[-1].name]
        for float_layer, logits in simulation.logits(chunk).items():
            squares.setdefault(float_layer, []).append(float(np.mean(np.square(logits - exact))) * len(chunk))
    return {float_layer: float(np.sqrt(sum(parts) / len(patches))) for float_layer, parts in squares.items()}


def advice(errors: Sequence[LayerError]) -> str:
    """Return one line: the layer to keep in float first, and the logit's error with it in float."""
    best = min(errors, key=lambda error: error.logit_rms_if_float)
    before, after = best.logit_rms, best.logit_rms_if_float
    if after >= before:
        return f"no single layer in float reduces the logit's rms error of {before:.4g}"
    return f"keep {best.layer} in float first: it reduces the logit's rms error from {before:.4g} to {after:.4g}"


def sample(split: Split) -> np.ndarray:
    """Return at most 256 evenly spaced patches of a split, uint8 (N, 96, 96, 3)."""
    return split.patches[evenly_spaced(len(split.labels), SAMPLE_PATCHES)]


def _open_twin(model: Path, manifest: Manifest, network: Network) -> layer_codes.Opened | None:
    (other_format,) = set(FORMATS) - {manifest.format}
    path = model.with_suffix(f".{other_format}")
    if not path.is_file():
        return None
    twin_manifest = manifests.read(path)
    if twin_manifest.parents["weights"] != manifest.parents["weights"]:
        return None
    return layer_codes.open_codes(manifests.checked_bytes(path, twin_manifest), other_format, network)


def _read_weights(model: Path, manifest: Manifest) -> Checkpoint:
    if Recipe.parse(manifest.recipe).precision != "int8":
        raise ConfigError(f"{model}: recipe {manifest.recipe}, expected an int8 recipe to compare layers")
    path = checkpoint.path_of(model.absolute().parent.parent, manifest.recipe)
    if not path.is_file():
        raise ModelError(f"{path}: missing; comparing layers requires these weights, use a model inside its run")
    sha256 = files.sha256(path)
    if sha256 != manifest.parents["weights"]:
        raise ModelError(
            f"{path}: SHA-256 {sha256[:12]}, but {model.name} was exported from {manifest.parents['weights'][:12]}; "
            "export the model again"
        )
    return checkpoint.read(path)


def _quantum(opened: layer_codes.Opened, saved: Checkpoint, layer: str) -> tuple[float, float]:
    """Return quantum and zero point of a layer, in float those of its range."""
    if layer in opened.quanta:
        return opened.quanta[layer]
    low, high = (float(bound) for bound in saved.arrays[quantise.float_key(layer)])
    return (high - low) / 255, -low * 255 / (high - low)


class _Sums:
    """Sums over one layer's activations in quanta."""

    def __init__(self, quantum: float, zero: float) -> None:
        self.quantum, self.zero = quantum, zero
        self.squares = self.exact_squares = self.largest = 0.0
        self.outside = self.count = 0
        self.twin_largest: int | None = None

    def add(self, codes: np.ndarray, exact: np.ndarray, twin_codes: np.ndarray | None, *, in_float: bool) -> None:
        """Add the codes of a file and of its twin, or with ``in_float`` the activations, against the exact ones."""
        if in_float:
            codes = codes / self.quantum + self.zero
            twin_codes = None if twin_codes is None else twin_codes / self.quantum + self.zero
        in_quanta = exact.astype(np.float64) / self.quantum
        exact_codes = in_quanta + self.zero
        error = np.abs(codes - exact_codes)
        self.squares += float(np.square(error).sum())
        self.exact_squares += float(np.square(in_quanta).sum())
        self.largest = max(self.largest, float(error.max()))
        self.outside += int(np.count_nonzero((exact_codes < 0) | (exact_codes > 255)))
        self.count += error.size
        if twin_codes is not None:
            self.twin_largest = max(self.twin_largest or 0, round(np.abs(codes - twin_codes).max()))


# ---- the float network, and the integer network as quantisation-aware training simulates it ----------------------


class _Simulation:
    def __init__(self, tf: Any, saved: Checkpoint) -> None:
        self.tf, self.network, self.arrays = tf, saved.network, saved.folded

    def activations(self, patches: np.ndarray) -> dict[str, np.ndarray]:
        """Return the float32 (N, h, w, channels) outputs of all convolutions, activated, not rounded or clipped."""
        outputs = {}
        with self.tf.device("CPU:0"):  # a GPU may compute convolutions in TF32
            tensors = {graph.PIXELS: self._pixels(patches)}
            for node in self.network.nodes:
                tensors[node.name] = self._float(node, tensors)
                if node.row.kind in graph.KERNELS:
                    outputs[node.name] = tensors[node.name].numpy()
        return outputs

    def logits(self, patches: np.ndarray) -> dict[str | None, np.ndarray]:
        """Return logits float32 (N, h, w, 1): of the integer network (None), and with one layer in float (its name)."""
        last_reader = {name: node.name for node in self.network.nodes for name in node.inputs}
        with self.tf.device("CPU:0"):
            # the input needs no rounding: its codes are the raw pixels
            variants: dict[str | None, dict[str, Any]] = {None: {graph.PIXELS: self._pixels(patches)}}
            for node in self.network.nodes:
                in_float = self._float(node, variants[None]) if node.row.kind in graph.KERNELS else None
                for tensors in variants.values():
                    tensors[node.name] = quantise.simulate_node(node, self.arrays, tensors)
                if in_float is not None:
                    variants[node.name] = {**variants[None], node.name: in_float}
                for name in [name for name, reader in last_reader.items() if reader == node.name]:
                    for tensors in variants.values():
                        del tensors[name]
            return {key: tensors[node.name].numpy() for key, tensors in variants.items()}

    def _pixels(self, patches: np.ndarray) -> Any:
        return self.tf.constant(patches.astype(np.float32) / np.float32(255))

    def _float(self, node: Node, tensors: Mapping[str, Any]) -> Any:
        return quantise.compute_in_float(node, self.arrays, [tensors[name] for name in node.inputs])


def _answer(request: cell.Request) -> dict[str, Any]:
    """Answer ``layers`` {model, patches_npy} with the runtime of the activations and the layers in order."""
    if request["op"] == "close":
        return {}
    model = Path(request["model"])
    errors = errors_in_order(model, np.load(request["patches_npy"], allow_pickle=False))
    runtime, _ = layer_codes.OPENERS[model.suffix.removeprefix(".")]
    return {"runtime": runtime, "layers": [dataclasses.asdict(error) for error in errors]}


if __name__ == "__main__":
    cell.listen(_answer)
