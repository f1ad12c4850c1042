"""Errors of an integer file against its float network, layer by layer, and the layer to keep in float first.

The errors are measured in a real interpreter. The effect of one layer on the logit comes from a simulation of the
integer network, because no file has a single layer in float. ``python -m histoedge.lab.layers`` returns the errors to
``histoedge.benchmark``, which must not load TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from histoedge.edge.errors import ConfigError, ModelError, RuntimeUnavailable
from histoedge.edge.manifest import FORMATS
from histoedge.lab import backend, checkpoint, quantise
from histoedge.lab.architecture import Network, Row
from histoedge.lab.checkpoint import Checkpoint

SAMPLE_PATCHES = 256
CHUNK_PATCHES = 16  # about 100 MB for all activations of the widest network


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Errors of one convolution of an integer file.

    Attributes:
        layer: name of the layer.
        channels: number of output channels.
        quantum: step between two codes of the activation.
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
    checked = edge.check_patches(goldens.read_golden(model, manifest).patches if patches is None else patches)
    tf = backend.tensorflow()
    opened = _open(content, manifest.format, saved.network)
    twin = _open_twin(model, manifest, saved.network)
    simulation = _Simulation(tf, saved)
    sums = {name: _Sums(*quantum) for name, quantum in opened.quanta.items()}
    squares: dict[str | None, list[float]] = {}
    for start in range(0, len(checked), CHUNK_PATCHES):
        chunk = checked[start : start + CHUNK_PATCHES]
        exact = simulation.activations(chunk)
        codes = opened.codes(chunk)
        twin_codes = twin.codes(chunk) if twin is not None else {}
        for name, layer in sums.items():
            layer.add(codes[name], exact[name], twin_codes.get(name))
        for float_layer, logits in simulation.logits(chunk).items():
            squares.setdefault(float_layer, []).append(float(np.mean(np.square(logits - exact["head"]))) * len(chunk))
    logit_rms = {float_layer: float(np.sqrt(sum(parts) / len(checked))) for float_layer, parts in squares.items()}
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


class _Sums:
    """Sums over one layer's activations in quanta."""

    def __init__(self, quantum: float, zero: int) -> None:
        self.quantum, self.zero = quantum, zero
        self.squares = self.exact_squares = self.largest = 0.0
        self.outside = self.count = 0
        self.twin_largest: int | None = None

    def add(self, codes: np.ndarray, exact: np.ndarray, twin_codes: np.ndarray | None) -> None:
        in_quanta = exact.astype(np.float64) / self.quantum
        exact_codes = in_quanta + self.zero
        error = np.abs(codes - exact_codes)
        self.squares += float(np.square(error).sum())
        self.exact_squares += float(np.square(in_quanta).sum())
        self.largest = max(self.largest, float(error.max()))
        self.outside += int(np.count_nonzero((exact_codes < 0) | (exact_codes > 255)))
        self.count += error.size
        if twin_codes is not None:
            self.twin_largest = max(self.twin_largest or 0, int(np.abs(codes - twin_codes).max()))


# ---- the float network, and the integer network as quantisation-aware training simulates it ----------------------


class _Simulation:
    def __init__(self, tf: Any, saved: Checkpoint) -> None:
        self.tf, self.network, self.arrays = tf, saved.network, saved.folded
        largest_code = int(self.arrays[quantise.KERNEL_CODES][1])
        self.rounded = {
            name: quantise.rounded(self.arrays[f"{name}/kernel"], largest_code=largest_code)
            for name in self.network.convolutions
        }

    def activations(self, patches: np.ndarray) -> dict[str, np.ndarray]:
        """Return the float32 (N, h, w, channels) outputs of all convolutions after ReLU, not rounded or clipped."""
        outputs = {}
        with self.tf.device("CPU:0"):  # a GPU may compute convolutions in TF32
            tensor = self._pixels(patches)
            for name, row in self.network.layers:
                tensor = self._float(name, row, tensor)
                if row.kind != "maxpool":
                    outputs[name] = tensor.numpy()
        return outputs

    def logits(self, patches: np.ndarray) -> dict[str | None, np.ndarray]:
        """Return logits float32 (N, h, w, 1): of the integer network (None), and with one layer in float (its name)."""
        with self.tf.device("CPU:0"):
            # the input needs no rounding: its codes are the raw pixels
            tensors: dict[str | None, Any] = {None: self._pixels(patches)}
            for name, row in self.network.layers:
                if row.kind == "maxpool":
                    tensors = {key: self._float(name, row, tensor) for key, tensor in tensors.items()}
                    continue
                in_float = self._float(name, row, tensors[None])
                tensors = {key: self._integer(name, row, tensor) for key, tensor in tensors.items()}
                tensors[name] = in_float
            return {key: tensor.numpy() for key, tensor in tensors.items()}

    def _pixels(self, patches: np.ndarray) -> Any:
        return self.tf.constant(patches.astype(np.float32) / np.float32(255))

    def _float(self, name: str, row: Row, tensor: Any) -> Any:
        if row.kind == "maxpool":
            return self.tf.nn.max_pool2d(tensor, row.kernel, row.stride, "VALID")
        return self._convolve(name, row, tensor, self.arrays[f"{name}/kernel"])

    def _integer(self, name: str, row: Row, tensor: Any) -> Any:
        low, high = self.arrays[f"{name}/range"]
        activation = self._convolve(name, row, tensor, self.rounded[name])
        return self.tf.quantization.fake_quant_with_min_max_vars(activation, low, high)

    def _convolve(self, name: str, row: Row, tensor: Any, kernel: Any) -> Any:
        sums = self.tf.nn.conv2d(tensor, kernel, row.stride, "VALID") + self.arrays[f"{name}/bias"]
        return sums if row.kind == "head" else self.tf.nn.relu(sums)


# ---- activations from the files, as codes 0 .. 255 with channels last for both formats ---------------------------


@dataclass(frozen=True)
class _Opened:
    """An opened integer file: (quantum, zero point) by layer, and a function from patches to codes by layer."""

    quanta: Mapping[str, tuple[float, int]]
    codes: Callable[[np.ndarray], dict[str, np.ndarray]]


def _open(content: bytes, format_: str, network: Network) -> _Opened:
    runtime, opener = _OPENERS[format_]
    if not edge.RUNTIMES[runtime].installed():
        raise RuntimeUnavailable(
            f"{format_} files require {runtime}, which is not installed: pip install 'histoedge[lab]'"
        )
    return opener(content, network.convolutions)


def _open_twin(model: Path, manifest: Manifest, network: Network) -> _Opened | None:
    (other_format,) = set(FORMATS) - {manifest.format}
    path = model.with_suffix(f".{other_format}")
    if not path.is_file():
        return None
    twin_manifest = manifests.read(path)
    if twin_manifest.parents["weights"] != manifest.parents["weights"]:
        return None
    return _open(manifests.checked_bytes(path, twin_manifest), other_format, network)


def _open_tflite(content: bytes, names: Sequence[str]) -> _Opened:
    """Open with LiteRT and XNNPACK, as ``edge`` does: LiteRT's own kernels round differently, by up to 3 codes."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    outputs = [
        operator.Outputs(0)
        for operator in operators
        if model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() == schema.BuiltinOperator.CONV_2D
    ]
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    layers = dict(zip(names, outputs, strict=True))
    input_index = interpreter.get_input_details()[0]["index"]

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(input_index, patches.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(input_index, patches)
        interpreter.invoke()
        return {name: _shift_to_zero(interpreter.get_tensor(index)) for name, index in layers.items()}

    quanta = {}
    for name, index in layers.items():
        quantum, zero = tensors[index]["quantization"]
        quanta[name] = (float(quantum), int(_shift_to_zero(np.asarray(zero, tensors[index]["dtype"]))))
    return _Opened(quanta, codes)


def _open_onnx(content: bytes, names: Sequence[str]) -> _Opened:
    """Open with ONNX Runtime, which fuses each Conv with its QuantizeLinear although this is now a graph output."""
    import onnx

    from histoedge.edge import ort  # before onnxruntime, to switch its telemetry off

    import onnxruntime  # isort: skip

    model = onnx.load_from_string(content)
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    quantisers = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    layers = {name: quantisers[output] for name, output in zip(names, outputs, strict=True)}
    types = {np.dtype(np.uint8): onnx.TensorProto.UINT8, np.dtype(np.int8): onnx.TensorProto.INT8}
    quanta = {}
    for name, node in layers.items():
        quantum, zero = (constants[value] for value in node.input[1:])
        quanta[name] = (float(quantum), int(_shift_to_zero(zero)))
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], types[zero.dtype], None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ort.EXACT_SUMS, "1")  # to measure rounding, not the saturation of this CPU
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    patches_name = model.graph.input[0].name

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        values = session.run([node.output[0] for node in layers.values()], {patches_name: patches})
        return {name: _shift_to_zero(np.moveaxis(value, 1, -1)) for name, value in zip(layers, values, strict=True)}

    return _Opened(quanta, codes)


def _shift_to_zero(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.int16) - np.iinfo(codes.dtype).min


_OPENERS: dict[str, tuple[str, Callable[[bytes, Sequence[str]], _Opened]]] = {
    "tflite": ("litert", _open_tflite),
    "onnx": ("onnxruntime", _open_onnx),
}


def _answer(request: cell.Request) -> dict[str, Any]:
    """Answer ``layers`` {model, patches_npy} with the runtime of the activations and the layers in order."""
    if request["op"] == "close":
        return {}
    model = Path(request["model"])
    errors = errors_in_order(model, np.load(request["patches_npy"], allow_pickle=False))
    runtime, _ = _OPENERS[model.suffix.removeprefix(".")]
    return {"runtime": runtime, "layers": [dataclasses.asdict(error) for error in errors]}


if __name__ == "__main__":
    cell.listen(_answer)
