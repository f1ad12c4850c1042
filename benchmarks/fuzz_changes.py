"""Random changes of an exported file's parts: bytes, JSON documents and ``.npz`` archives."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from histoedge.edge import golden as goldens

Change = Callable[[bytes, np.random.Generator], bytes]


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(content)
    for place in random.integers(0, len(content), random.integers(1, 9)):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def truncated(content: bytes, random: np.random.Generator) -> bytes:
    """Cut off the end."""
    return content[: int(random.integers(0, len(content)))]


def longer(content: bytes, random: np.random.Generator) -> bytes:
    """Insert random bytes at a random place."""
    place = int(random.integers(0, len(content) + 1))
    return content[:place] + random.bytes(int(random.integers(1, 65))) + content[place:]


def swapped(content: bytes, random: np.random.Generator) -> bytes:
    """Exchange two blocks."""
    size = int(random.integers(1, max(2, min(257, len(content) // 4))))
    first, second = sorted(int(place) for place in random.integers(0, len(content) - size + 1, 2))
    second = min(max(second, first + size), len(content))
    blocks = content[first : first + size], content[second : second + size]
    middle = content[first + size : second]
    return content[:first] + blocks[1] + middle + blocks[0] + content[second + size :]


def zeroed(content: bytes, random: np.random.Generator) -> bytes:
    """Overwrite a block with zeros."""
    place, size = int(random.integers(0, len(content))), int(random.integers(1, 257))
    return content[:place] + bytes(min(size, len(content) - place)) + content[place + size :]


BYTES: tuple[Change, ...] = (flipped, truncated, longer, swapped, zeroed)

DEPTH = 1100  # Python's parser refuses more than 1000 levels
EXTREMES: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e-300, 5e-324, 1e300, -1e300, 0.1, True, None, "", "\n", "x" * 9999),
    *([], {}, [[]], {"a\nb": {}}, "\ud800", "../../etc/passwd", float("nan"), float("inf")),
)


def changed_json(content: bytes, random: np.random.Generator) -> bytes:
    """Change a JSON document at one or two places: a value, a key removed, renamed or doubled, deep nesting."""
    body = json.loads(content)
    for _ in range(random.integers(1, 3)):
        places = list(json_places(body))
        parent, key = places[random.integers(len(places))]
        how = random.integers(6)
        if how == 0 and isinstance(parent, dict):
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[f"{key}\n"] = parent.pop(key)
        elif how == 2:
            return json.dumps(body).encode().replace(b"{", b'{"deep": ' + nested(random) + b", ", 1)
        elif how == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * float(random.choice([-1, 1.0000001, 10, 1e20]))
        elif how == 4:
            text = json.dumps(body)
            field = json.dumps(key) + ": "
            if isinstance(key, str) and field in text:
                return text.replace(field, f"{field}{json.dumps(EXTREMES[random.integers(3)])}, {field}", 1).encode()
        else:
            parent[key] = EXTREMES[random.integers(len(EXTREMES))]
    return json.dumps(body, indent=1).encode()


def nested(random: np.random.Generator) -> bytes:
    """Return nested lists or objects, fewer or more levels than a parser can follow."""
    depth = int(random.choice([5, int(random.integers(DEPTH // 2, DEPTH)), 20 * DEPTH]))
    return b"[" * depth + b"]" * depth if random.integers(2) else b'{"a":' * depth + b"0" + b"}" * depth


def json_places(body: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place of a JSON document: the list or object that contains it, and its index or key."""
    for key in list(body) if isinstance(body, dict) else range(len(body)):
        yield body, key
        if isinstance(body[key], dict | list):
            yield from json_places(body[key])


SHAPES = (
    *("()", "(0,)", "(-1,)", "(4294967296, 4294967296)", "(99999999999999999999,)", "(16, 96, 96, 3)", "(16.0,)"),
    *("(" * 90 + ")" * 90, "[" * 4000, "(16,) * 99999999", "{(1,): [2]}", "1e999", "'" + "x" * 9000, "\\n", "(True,)"),
)
DTYPES = ("|O", "<f4", "|u1", ">f4", "<f8", "|V9", "<U4", "|S8", "<M8[s]", "x", "")


def repacked(content: bytes, random: np.random.Generator) -> bytes:
    """Pack a golden file again with a fault: members, headers, sizes, dtypes, logits, compression."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    name = list(members)[random.integers(len(members))]
    how = random.integers(8)
    if how == 0:
        del members[name]
    elif how == 1:
        members[str(random.choice(["../x.npy", "patches", "logits.npy", "\n.npy"]))] = members.pop(name)
    elif how == 2:
        members[name] = BYTES[random.integers(len(BYTES))](members[name], random)
    elif how == 3:
        shape, dtype = SHAPES[random.integers(len(SHAPES))], DTYPES[random.integers(len(DTYPES))]
        members[name] = npy_with(f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}", b"\0" * 64)
    elif how == 4:
        members[name] = npy_with(SHAPES[random.integers(len(SHAPES))], b"")
    elif how == 5:
        members[name] += bytes(int(random.choice([1, 1 << 20, goldens.LARGEST_GOLDEN_ARRAY_BYTES])))
    elif how == 6:
        values = np.full(len(members["labels.npy"]), random.choice([np.nan, np.inf, -np.inf, 3e38]), np.float32)
        members["logits.npy"] = npy_of(values)
    else:
        members[name] = npy_of(random.integers(0, 256, (16, 96, 96, 3), np.uint8))
    slow = random.integers(32) == 0 and how != 5
    methods = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) if slow else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    method = methods[random.integers(2)]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method, compresslevel=1) as packed:
        for member, data in members.items():
            packed.writestr(member, data)
    return stream.getvalue()


def npy_of(values: np.ndarray) -> bytes:
    """Return the bytes of an ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def npy_with(header: str, content: bytes) -> bytes:
    """Return the bytes of an ``.npy`` file with any text as its header."""
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + content
