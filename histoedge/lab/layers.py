"""An integer file layer by layer against its float network: where it errs, and which layer to keep in float first.

The errors are the file's own, read out of a real interpreter. What a layer costs the logit comes from a simulation
of the integer network, because no file has that one layer in float. ``python -m histoedge.lab.layers`` tells the errors
to who must not load TensorFlow: ``histoedge.benchmark``.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cell, edge, files
from histoedge.config import FORMATS, Recipe
from histoedge.data import Split
from histoedge.edge import Manifest
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError, RuntimeUnavailable
from histoedge.lab import backend, checkpoint, quantise
from histoedge.lab.architecture import Network, Row
from histoedge.lab.checkpoint import Checkpoint

SAMPLE_PATCHES = 256
CHUNK_PATCHES = 16  # all activations of the widest network at once: some 100 MB


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """One convolution of an integer file: its activation, and what its rounding costs the logit.

    ``quantum`` is the step between two codes of the activation. ``rms_quanta`` and ``largest_quanta`` are its error
    against the float network in such steps, what the layers before it pass on included; ``relative_rms`` is the rms
    error over the rms of the float activation, None where that is 0 throughout. ``clipped`` is the share of float
    activations outside the range that codes reach. ``twin_largest_quanta`` is the largest difference in codes
    between the TFLite and the ONNX file; None without the other file from the same weights beside this one.
    ``logit_rms`` is the rms error of the simulated integer network's logit (the same in every row) and
    ``logit_rms_if_float`` what is left of it when this layer's kernel and activation stay in float.
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


def errors_by_layer(model: Path, patches: np.ndarray | None = None) -> tuple[LayerError, ...]:
    """As ``in_order``, worst ``rms_quanta`` first."""
    return tuple(sorted(in_order(model, patches), key=lambda error: -error.rms_quanta))


def in_order(model: Path, patches: np.ndarray | None = None) -> tuple[LayerError, ...]:
    """The layers of an int8 file against the float network of ``RUN/<recipe>.weights.h5``, in the network's order.

    Args:
        model: ``RUN/models/<recipe>.tflite`` or ``.onnx``.
        patches: uint8 (N, 96, 96, 3) raw pixels; the golden patches without it.

    Raises:
        ConfigError: not an int8 recipe.
        ModelError: a file is missing or altered, or the weights are not those that the model was made from.
        DataError: patches of another type or shape.
        RuntimeUnavailable: the lab is not installed.
    """
    manifest = manifests.read(model)
    content = manifests.checked_bytes(model, manifest)
    saved = _weights_of(model, manifest)
    chosen = edge.check_patches(goldens.read_golden(model, manifest).patches if patches is None else patches)
    tf = backend.tensorflow()
    ours = _open(content, manifest.format, saved.network)
    theirs = _twin(model, manifest, saved.network)
    simulation = _Simulation(tf, saved)
    sums = {name: _Sums(*quantum) for name, quantum in ours.quanta.items()}
    squares: dict[str | None, list[float]] = {}
    for start in range(0, len(chosen), CHUNK_PATCHES):
        chunk = chosen[start : start + CHUNK_PATCHES]
        exact = simulation.activations(chunk)
        codes = ours.codes(chunk)
        others = theirs.codes(chunk) if theirs is not None else {}
        for name, layer in sums.items():
            layer.add(codes[name], exact[name], others.get(name))
        for kept, logits in simulation.logits(chunk).items():
            squares.setdefault(kept, []).append(float(np.mean(np.square(logits - exact["head"]))) * len(chunk))
    logit_rms = {kept: float(np.sqrt(sum(parts) / len(chosen))) for kept, parts in squares.items()}
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
    """One line: the layer to keep in float first, and what that gives."""
    best = min(errors, key=lambda error: error.logit_rms_if_float)
    before, after = best.logit_rms, best.logit_rms_if_float
    if after >= before:
        return f"no single layer in float helps: the logit's rms error stays at {before:.4g} or grows"
    return f"keep {best.layer} in float first: the logit's rms error falls from {before:.4g} to {after:.4g}"


def sample(split: Split) -> np.ndarray:
    """At most 256 patches of a split, uint8 (N, 96, 96, 3), evenly spaced."""
    count = len(split.labels)
    return split.patches[np.unique(np.linspace(0, count - 1, min(count, SAMPLE_PATCHES)).astype(int))]


def _weights_of(model: Path, manifest: Manifest) -> Checkpoint:
    if Recipe.parse(manifest.recipe).precision != "int8":
        raise ConfigError(f"{model}: layers are compared in int8 files, this one is {manifest.recipe}")
    path = checkpoint.path_of(model.absolute().parent.parent, manifest.recipe)
    if not path.is_file():
        raise ModelError(f"{path}: missing; layers are compared with these weights, so give a model inside its run")
    found = files.sha256(path)
    if found != manifest.parents["weights"]:
        raise ModelError(
            f"{path}: not the weights that {model.name} was made from (SHA-256 {found[:12]}, "
            f"the manifest says {manifest.parents['weights'][:12]}); export the model again"
        )
    return checkpoint.read(path)


class _Sums:
    """What is known of one layer's activation so far, in quanta."""

    def __init__(self, quantum: float, zero: int) -> None:
        self.quantum, self.zero = quantum, zero
        self.squares = self.exact_squares = self.largest = 0.0
        self.outside = self.count = 0
        self.twin_largest: int | None = None

    def add(self, codes: np.ndarray, exact: np.ndarray, others: np.ndarray | None) -> None:
        in_quanta = exact.astype(np.float64) / self.quantum
        wanted = in_quanta + self.zero
        error = np.abs(codes - wanted)
        self.squares += float(np.square(error).sum())
        self.exact_squares += float(np.square(in_quanta).sum())
        self.largest = max(self.largest, float(error.max()))
        self.outside += int(np.count_nonzero((wanted < 0) | (wanted > 255)))
        self.count += error.size
        if others is not None:
            self.twin_largest = max(self.twin_largest or 0, int(np.abs(codes - others).max()))


# ---- the float network, and the integer network simulated as quantisation-aware training sees it -----------------


class _Simulation:
    def __init__(self, tf: Any, saved: Checkpoint) -> None:
        self.tf, self.network, self.arrays = tf, saved.network, saved.folded
        largest_code = int(self.arrays[quantise.KERNEL_CODES][1])
        self.rounded = {
            name: quantise.rounded(self.arrays[f"{name}/kernel"], largest_code=largest_code)
            for name in self.network.convolutions
        }

    def activations(self, patches: np.ndarray) -> dict[str, np.ndarray]:
        """Every convolution's float32 (N, h, w, channels) after its ReLU, nothing rounded, nothing clipped."""
        found = {}
        with self.tf.device("CPU:0"):  # a GPU may compute convolutions in TF32
            tensor = self._pixels(patches)
            for name, row in self.network.layers:
                tensor = self._float(name, row, tensor)
                if row.kind != "maxpool":
                    found[name] = tensor.numpy()
        return found

    def logits(self, patches: np.ndarray) -> dict[str | None, np.ndarray]:
        """Logits float32 (N, h, w, 1) of the integer network (None), and with the layer named kept in float."""
        with self.tf.device("CPU:0"):
            # pixels need no rounding: codes of the input are the raw pixels
            tensors: dict[str | None, Any] = {None: self._pixels(patches)}
            for name, row in self.network.layers:
                if row.kind == "maxpool":
                    tensors = {kept: self._float(name, row, tensor) for kept, tensor in tensors.items()}
                    continue
                in_float = self._float(name, row, tensors[None])
                tensors = {kept: self._integer(name, row, tensor) for kept, tensor in tensors.items()}
                tensors[name] = in_float
            return {kept: tensor.numpy() for kept, tensor in tensors.items()}

    def _pixels(self, patches: np.ndarray) -> Any:
        return self.tf.constant(patches.astype(np.float32) / np.float32(255))

    def _float(self, name: str, row: Row, tensor: Any) -> Any:
        if row.kind == "maxpool":
            return self.tf.nn.max_pool2d(tensor, row.kernel, row.stride, "VALID")
        return self._convolved(name, row, tensor, self.arrays[f"{name}/kernel"])

    def _integer(self, name: str, row: Row, tensor: Any) -> Any:
        low, high = self.arrays[f"{name}/range"]
        activation = self._convolved(name, row, tensor, self.rounded[name])
        return self.tf.quantization.fake_quant_with_min_max_vars(activation, low, high)

    def _convolved(self, name: str, row: Row, tensor: Any, kernel: Any) -> Any:
        sums = self.tf.nn.conv2d(tensor, kernel, row.stride, "VALID") + self.arrays[f"{name}/bias"]
        return sums if row.kind == "head" else self.tf.nn.relu(sums)


# ---- activations out of the files: codes 0 .. 255, channels last, whatever the file stores -----------------------


@dataclass(frozen=True)
class _Opened:
    """An integer file: (quantum, zero point) of each layer, and a function from patches to each layer's codes."""

    quanta: Mapping[str, tuple[float, int]]
    codes: Callable[[np.ndarray], dict[str, np.ndarray]]


def _open(content: bytes, format_: str, network: Network) -> _Opened:
    runtime, opener = _OPENERS[format_]
    if not edge.RUNTIMES[runtime].installed():
        raise RuntimeUnavailable(
            f"{format_} files need {runtime}, which is not installed: pip install 'histoedge[lab]'"
        )
    return opener(content, network.convolutions)


def _twin(model: Path, manifest: Manifest, network: Network) -> _Opened | None:
    (other,) = set(FORMATS) - {manifest.format}
    path = model.with_suffix(f".{other}")
    if not path.is_file():
        return None
    described = manifests.read(path)
    if described.parents["weights"] != manifest.parents["weights"]:
        return None
    return _open(manifests.checked_bytes(path, described), other, network)


def _open_tflite(content: bytes, names: Sequence[str]) -> _Opened:
    """Run by LiteRT with XNNPACK, as ``edge`` runs it: LiteRT's own kernels round otherwise, by up to 3 codes."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    places = [
        operator.Outputs(0)
        for operator in operators
        if model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() == schema.BuiltinOperator.CONV_2D
    ]
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    layers = dict(zip(names, places, strict=True))
    patches_at = interpreter.get_input_details()[0]["index"]

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(patches_at, patches.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(patches_at, patches)
        interpreter.invoke()
        return {name: _from_zero(interpreter.get_tensor(place)) for name, place in layers.items()}

    quanta = {}
    for name, place in layers.items():
        quantum, zero = tensors[place]["quantization"]
        quanta[name] = (float(quantum), int(_from_zero(np.asarray(zero, tensors[place]["dtype"]))))
    return _Opened(quanta, codes)


def _open_onnx(content: bytes, names: Sequence[str]) -> _Opened:
    """Run by ONNX Runtime, which still fuses each Conv with the QuantizeLinear that is read out."""
    import onnx

    from histoedge.edge import ort  # before onnxruntime: it switches its telemetry off

    import onnxruntime  # isort: skip

    model = onnx.load_from_string(content)
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    convolved = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    readers = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    layers = {name: readers[value] for name, value in zip(names, convolved, strict=True)}
    types = {np.dtype(np.uint8): onnx.TensorProto.UINT8, np.dtype(np.int8): onnx.TensorProto.INT8}
    quanta = {}
    for name, node in layers.items():
        quantum, zero = (constants[value] for value in node.input[1:])
        quanta[name] = (float(quantum), int(_from_zero(zero)))
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], types[zero.dtype], None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ort.EXACT_SUMS, "1")  # errors of the codes, not of this CPU
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    patches_name = model.graph.input[0].name

    def codes(patches: np.ndarray) -> dict[str, np.ndarray]:
        found = session.run([node.output[0] for node in layers.values()], {patches_name: patches})
        return {name: _from_zero(np.moveaxis(value, 1, -1)) for name, value in zip(layers, found, strict=True)}

    return _Opened(quanta, codes)


def _from_zero(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.int16) - np.iinfo(codes.dtype).min


_OPENERS: dict[str, tuple[str, Callable[[bytes, Sequence[str]], _Opened]]] = {
    "tflite": ("litert", _open_tflite),
    "onnx": ("onnxruntime", _open_onnx),
}


# ---- the other end of a cell -------------------------------------------------------------------------------------


def _answer(request: cell.Request) -> dict[str, Any]:
    """Of ``layers`` {model, patches_npy}: the runtime that computed the activations, and the layers in order."""
    if request["op"] == "close":
        return {}
    model = Path(request["model"])
    errors = in_order(model, np.load(request["patches_npy"], allow_pickle=False))
    runtime, _ = _OPENERS[model.suffix.removeprefix(".")]
    return {"runtime": runtime, "layers": [dataclasses.asdict(error) for error in errors]}


if __name__ == "__main__":
    cell.listen(_answer)
