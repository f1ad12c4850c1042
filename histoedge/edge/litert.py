"""LiteRT (formerly TensorFlow Lite): opens ``.tflite`` files, with XNNPACK's kernels or its own."""

import threading
from typing import Any

import numpy as np

from .errors import ModelError
from .patches import PATCH_PX, check_patches
from .runtimes import Operator

DELEGATE = "DELEGATE"


def open_litert(
    content: bytes,
    *,
    threads: int = 1,
    may_saturate: bool = False,
    stride_px: int = 1,
    patch_px: int = PATCH_PX,
    kernels: str = "xnnpack",
) -> "LiteRTRunner":
    """Return a runner for the bytes of a ``.tflite`` file, with XNNPACK's ``kernels`` or LiteRT's ``builtin`` ones.

    ``may_saturate`` has no effect: both sum products in 32 bits on every CPU.

    Raises:
        ModelError: not a TFLite file that this interpreter can run.
    """
    interpreter = _interpreter(content, threads=threads, kernels=kernels)
    return LiteRTRunner(interpreter, stride_px=stride_px, patch_px=patch_px, kernels=kernels)


def litert_operators(content: bytes, *, may_saturate: bool = False, patch_px: int = PATCH_PX) -> tuple[Operator, ...]:
    """Return the file's operators; XNNPACK computes the ``delegated`` ones, LiteRT's own kernels the others.

    An operator is integer when none of its inputs and outputs is a float: scales are not separate tensors in this
    format. How XNNPACK computes the delegated ones is not reported.

    Raises:
        ModelError: see ``open_litert``.
    """
    interpreter = _interpreter(content, threads=1)
    nodes = interpreter._get_ops_details()  # private: no public call lists the operators
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    outputs = [tensor["index"] for tensor in interpreter.get_output_details()]
    names = {index: tensor["name"].partition(";")[0] for index, tensor in tensors.items()}
    for signature in interpreter.get_signature_list().values():  # names of the contract instead of the converter's
        names.update(zip(outputs, signature["outputs"], strict=False))
    undelegated = _undelegated(nodes, outputs)
    operators = []
    for node in nodes:
        if node["op_name"] == DELEGATE:
            continue
        values = [index for index in (*node["inputs"], *node["outputs"]) if index in tensors]  # optional inputs are -1
        integer = not any(np.issubdtype(tensors[index]["dtype"], np.floating) for index in values)
        delegated = node["index"] not in undelegated
        operators.append(Operator(names[node["outputs"][0]], node["op_name"], integer, delegated))
    return tuple(operators)


def _undelegated(nodes: list[dict[str, Any]], outputs: list[int]) -> set[int]:
    """Return the indices of the operators that the interpreter runs: those reached backwards from the outputs.

    A delegate is listed after the operators that it replaces and produces their outputs.
    """
    producers = {value: node for node in nodes for value in node["outputs"]}
    indices, values = set(), list(outputs)
    while values:
        node = producers.pop(values.pop(), None)
        if node is not None:
            indices.add(node["index"])
            values.extend(node["inputs"])
    return indices


def _interpreter(content: bytes, *, threads: int, kernels: str = "xnnpack") -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}[kernels]
    try:
        interpreter = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"LiteRT cannot open this file: {str(error).splitlines()[0]}") from error
    return interpreter


class LiteRTRunner:
    """A ``Runner`` over one LiteRT interpreter. The file's input is one patch; other fields resize it."""

    runtime = "litert"

    def __init__(self, interpreter: Any, *, stride_px: int, patch_px: int, kernels: str) -> None:
        from importlib.metadata import version

        self.kernels = kernels
        self.version = version("ai-edge-litert")
        self._lock = threading.Lock()  # the interpreter stores the values of one call
        self._interpreter = interpreter
        self._stride_px, self._patch_px = stride_px, patch_px
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]
        self._field = tuple(interpreter.get_input_details()[0]["shape"])[1:]

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return the logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels, one patch or field at a time.

        Raises:
            ModelError: the interpreter opened the file but cannot run it, or not on an array of this shape.
        """
        patches = check_patches(patches, patch_px=self._patch_px, stride_px=self._stride_px)
        field = patches.shape[1:]
        with self._lock:
            if field != self._field:
                self._resize(field)
            if len(patches) == 1:  # a list and a copy would be measurable next to a small network
                return self._logits(patches)
            return np.concatenate([self._logits(patch[None]) for patch in patches])

    def _resize(self, field: tuple[int, ...]) -> None:
        self._field = ()  # unknown after an error
        try:
            self._interpreter.resize_tensor_input(self._input, (1, *field))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"LiteRT cannot run this file on pixels of shape {(1, *field)}: {reason}") from error
        self._field = field

    def _logits(self, patch: np.ndarray) -> np.ndarray:
        interpreter = self._interpreter
        interpreter.set_tensor(self._input, patch)
        try:
            interpreter.invoke()
        except RuntimeError as error:  # a forged file can pass its parser and fail here: benchmarks/fuzz.py
            raise ModelError(f"LiteRT cannot run this file: {str(error).splitlines()[0]}") from error
        return interpreter.get_tensor(self._output)  # type: ignore[no-any-return]
