"""The integer peak: the highest measured rate of 8-bit multiplications on this machine.

``python -m histoedge.benchmark.ceiling`` is a cell whose model is built in memory: two 3 x 3 convolutions of 256
channels between a small stem and a small head. Its rate is a measured upper limit for networks, not a figure from a
data sheet. It is timed in the rounds of the other cells with the same number of threads, on each installed CPU runtime
for ONNX; the fastest one counts.
"""

import sys
from importlib import import_module
from typing import Any

import numpy as np

from histoedge import edge
from histoedge.cell import Request, prepare, serve
from histoedge.edge.errors import RuntimeUnavailable

COMMAND = (sys.executable, "-m", "histoedge.benchmark.ceiling")
RUNTIMES = ("onnxruntime", "openvino")
CHANNELS = 256
LAYERS = ((4, 4, CHANNELS), (3, 1, CHANNELS), (3, 1, CHANNELS), (20, 1, 1))
"""(side of the kernel, stride, output channels), from 96 x 96 x 3 to 1 x 1 x 1."""

MACS = 24 * 24 * 4 * 4 * 3 * CHANNELS + (22 * 22 + 20 * 20) * 9 * CHANNELS**2 + 20 * 20 * CHANNELS

FLOAT, UINT8, INT8 = 1, 2, 3  # TensorProto.DataType of onnx.proto
INTS = 7  # AttributeProto.AttributeType
OPSET, IR_VERSION = 17, 8


def model() -> bytes:
    """Return the ONNX file: quantised pixels, int8 kernels with one scale, in QuantizeLinear form as exported files.

    Encoded directly in protobuf's wire format, because the benchmark needs the package ``onnx`` for nothing else.
    Field numbers are those of onnx.proto.
    """
    random = np.random.default_rng(0)
    body = _node("Transpose", ["patches"], ["pixels"], perm=[0, 3, 1, 2])
    body += _node("DequantizeLinear", ["pixels", "pixel_scale", "zero"], ["d0"])
    weights: list[tuple[str, Any, int]] = [
        ("pixel_scale", np.float32(1 / 255), FLOAT),
        ("scale", np.float32(0.02), FLOAT),
        ("kernel_scale", np.float32(0.002), FLOAT),
        ("zero", np.uint8(0), UINT8),
        ("kernel_zero", np.int8(0), INT8),
    ]
    inputs = 3
    for number, (side, stride, channels) in enumerate(LAYERS):
        kernel = random.integers(-64, 65, (channels, inputs, side, side)).astype(np.int8)
        weights.append((f"w{number}", kernel, INT8))
        body += _node("DequantizeLinear", [f"w{number}", "kernel_scale", "kernel_zero"], [f"k{number}"])
        shape = {"kernel_shape": [side, side], "strides": [stride, stride]}
        body += _node("Conv", [f"d{number}", f"k{number}"], [f"c{number}"], **shape)
        body += _node("QuantizeLinear", [f"c{number}", "scale", "zero"], [f"q{number}"])
        body += _node("DequantizeLinear", [f"q{number}", "scale", "zero"], [f"d{number + 1}"])
        inputs = channels
    body += _node("Transpose", [f"d{len(LAYERS)}"], ["tumour_logit"], perm=[0, 2, 3, 1])
    body += _field(2, "ceiling")
    body += b"".join(_tensor(name, np.asarray(values), kind) for name, values, kind in weights)
    body += _value(11, "patches", UINT8, ["n", "h", "w", 3]) + _value(12, "tumour_logit", FLOAT, ["n", "a", "b", 1])
    return _field(1, IR_VERSION) + _field(7, body) + _field(8, _field(1, "") + _field(2, OPSET))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Encode one field: a varint, or a length and bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _node(operator: str, inputs: list[str], outputs: list[str], **attributes: list[int]) -> bytes:
    body = b"".join(_field(1, name) for name in inputs) + b"".join(_field(2, name) for name in outputs)
    body += _field(4, operator)
    for name, values in attributes.items():
        body += _field(5, _field(1, name) + b"".join(_field(8, value) for value in values) + _field(20, INTS))
    return _field(1, body)


def _tensor(name: str, values: np.ndarray, kind: int) -> bytes:
    dimensions = b"".join(_field(1, size) for size in values.shape)
    return _field(5, dimensions + _field(2, kind) + _field(8, name) + _field(9, values.tobytes()))


def _value(number: int, name: str, kind: int, shape: list[str | int]) -> bytes:
    sizes = b"".join(_field(1, _field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return _field(number, _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sizes))))


def _open(request: Request) -> edge.Runner:
    runtime = edge.RUNTIMES[request["runtime"]]
    if not runtime.installed():
        raise RuntimeUnavailable(f"{runtime.name} is not installed; {runtime.install}")
    opener = import_module(f"{edge.__name__}.{runtime.opener}")
    return getattr(opener, f"open_{runtime.opener}")(model(), threads=request["threads"])  # type: ignore[no-any-return]


if __name__ == "__main__":
    serve(_open, prepare=prepare)
