"""Set a larger stride in the last convolution of an ONNX file: a map with larger steps then costs less.

Only the bytes of two numbers are changed, which needs no library. Field numbers are those of ``onnx.proto``
(onnx/onnx), the wire format is Protocol Buffers ("Encoding", protobuf.dev).
"""

from collections.abc import Iterator

_GRAPH, _NODE, _OP_TYPE, _ATTRIBUTE, _NAME = 7, 1, 4, 5, 1
_POINTWISE = {b"QuantizeLinear", b"DequantizeLinear", b"Transpose"}
_LARGEST = 127  # value in one byte of a varint
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_INTS = b"\x40"  # field 8 of an attribute, one varint each

_Span = tuple[int, int]


def strided(content: bytes, step: int) -> bytes | None:
    """Return the ONNX file with a stride of ``step`` in its last convolution.

    The map then contains values 0, ``step``, 2 ``step`` ... of each row and column; the logit of a patch is
    unchanged. None when this is not possible: the convolution has a stride already, operators other than quantisation
    follow it, ``step`` is over 127, or ``content`` is no ONNX file, which the runtime will report.
    """
    if step > _LARGEST:
        return None
    try:
        *_, graph = _parts(content, (0, len(content)), _GRAPH)
        nodes = [(_first(content, node, _OP_TYPE), node) for node in _parts(content, graph, _NODE)]
        last = max(at for at, (kind, _) in enumerate(nodes) if kind == b"Conv")
        strides = next(
            attribute
            for attribute in _parts(content, nodes[last][1], _ATTRIBUTE)
            if _first(content, attribute, _NAME) == b"strides"
        )
    except (IndexError, ValueError, StopIteration):
        return None
    start, end = strides
    before, after = (_INTS + bytes([stride]) + _INTS + bytes([stride]) for stride in (1, step))
    if not {kind for kind, _ in nodes[last + 1 :]} <= _POINTWISE or content[start:end].count(before) != 1:
        return None
    return content[:start] + content[start:end].replace(before, after) + content[end:]


def _parts(content: bytes, span: _Span, wanted: int) -> Iterator[_Span]:
    """Yield start and end of the fields with the number ``wanted`` in a message (strings, bytes or messages).

    Raises:
        IndexError, ValueError: the message is damaged.
    """
    at, end = span
    while at < end:
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, at = _varint(content, at)
            if length > end - at:
                raise ValueError("a field longer than its message")
            if number == wanted:
                yield at, at + length
            at += length
        elif wire == _VARINT:
            _, at = _varint(content, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _first(content: bytes, span: _Span, wanted: int) -> bytes:
    start, end = next(_parts(content, span, wanted), (0, 0))
    return content[start:end]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number encoded at ``at``, and the position after it."""
    value = 0
    for place in range(_VARINT_BYTES):
        byte = content[at + place]
        value |= (byte & _LARGEST) << 7 * place
        if byte <= _LARGEST:
            return value, at + place + 1
    raise ValueError("a number of over 64 bits")
