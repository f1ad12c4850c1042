"""An ONNX file whose last convolution answers less often: where a map needs each fourth value, the others cost nothing.

The bytes of two numbers are changed in place, so nothing but the standard library is needed. Field numbers are those of
``onnx.proto`` (onnx/onnx), the wire format that of Protocol Buffers ("Encoding", protobuf.dev).
"""

from collections.abc import Iterator

_GRAPH, _NODE, _OP_TYPE, _ATTRIBUTE, _NAME = 7, 1, 4, 5, 1
_POINTWISE = {b"QuantizeLinear", b"DequantizeLinear", b"Transpose"}
_LARGEST = 127  # of one byte of a varint
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_INTS = b"\x40"  # of an attribute: field 8, one varint each

_Span = tuple[int, int]


def strided(content: bytes, every: int) -> bytes | None:
    """The same ONNX file with a stride of ``every`` in its last convolution: values 0, ``every``, 2 ``every`` ... of
    each row and column of the map, and a 96 x 96 patch answered as before.

    None where that cannot be done: the convolution has a stride already, more follows it than quantisation, ``every``
    is over 127, or these are not the bytes of an ONNX file, which the runtime then says.
    """
    if every > _LARGEST:
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
    once, often = (_INTS + bytes([stride]) + _INTS + bytes([stride]) for stride in (1, every))
    if not {kind for kind, _ in nodes[last + 1 :]} <= _POINTWISE or content[start:end].count(once) != 1:
        return None
    return content[:start] + content[start:end].replace(once, often) + content[end:]


def _parts(content: bytes, span: _Span, wanted: int) -> Iterator[_Span]:
    """Where the fields of this number lie in a message, those that are strings, bytes or messages.

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
    """The number that starts there, and where what follows it does."""
    value = 0
    for place in range(_VARINT_BYTES):
        byte = content[at + place]
        value |= (byte & _LARGEST) << 7 * place
        if byte <= _LARGEST:
            return value, at + place + 1
    raise ValueError("a number of over 64 bits")
