"""Decode image files, hash and write their pixels, in this process or in ``python -m histoedge.data.decoder``.

A decoder process reads one JSON request per line and writes one JSON answer per line; it ends when its parent closes
the pipe.
"""

import dataclasses
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.data import image
from histoedge.edge.errors import DataError

BLOCK = 128  # images per request: less than 0.1 s of work
FEW_BLOCKS = 2  # decoding so few blocks takes less time than starting a process


@dataclass(frozen=True)
class Block:
    """Images of ``folder`` to decode to ``form``; pixels are written to ``into``, if given, at the byte ``offsets``."""

    folder: Path
    names: Sequence[str]
    form: image.Form
    into: Path | None = None
    offsets: Sequence[int] = ()


@dataclass(frozen=True)
class Decoded:
    """The result of a block: the digests of its images up to the first error, of all if ``error`` is None.

    ``full`` is True for a write error and False for a faulty image.
    """

    digests: tuple[bytes, ...]
    error: str | None = None
    full: bool = False


def blocks(
    folder: Path,
    names: Sequence[str],
    *,
    form: image.Form = image.FORM,
    into: Path | None = None,
    offsets: Sequence[int] = (),
) -> Iterator[Block]:
    """Yield the images in blocks."""
    for start in range(0, len(names), BLOCK):
        part = slice(start, start + BLOCK)
        yield Block(folder, names[part], form, into, offsets[part])


def decode_all(waiting: Iterable[Block], *, processes: int) -> Generator[tuple[Block, Decoded], None, None]:
    """Decode all blocks and yield each when it is done, in any order.

    Raises:
        DataError: a decoder process ended, for example because it was killed or memory ran out.
    """
    waiting = list(waiting)
    if len(waiting) <= FEW_BLOCKS or processes == 1:
        for block in waiting:
            yield block, decode(block)
        return
    with _Decoders(min(processes, len(waiting))) as decoders:
        yield from decoders.answers(waiting)


class _Decoders:
    """Decoder processes; one thread at a time uses each of them."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-m", __name__]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._processes = [subprocess.Popen(command, **pipes) for _ in range(count)]  # type: ignore[call-overload]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._pool = ThreadPoolExecutor(count)

    def __enter__(self) -> "_Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # the rest of a request to a process that ended
                    pipe.close()
            process.wait()

    def answers(self, waiting: Sequence[Block]) -> Iterator[tuple[Block, Decoded]]:
        blocks: dict[Future[Decoded], Block] = {self._pool.submit(self._request, block): block for block in waiting}
        for future in as_completed(blocks):
            yield blocks[future], future.result()

    def _request(self, block: Block) -> Decoded:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(_as_json(block)).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            self._idle.put(process)
        if not line.endswith(b"\n"):
            raise DataError(
                f"{block.folder}: a process that decodes its images ended (exit status {process.wait()}); "
                "run the same command again to continue"
            )
        answer = json.loads(line)
        digests = tuple(bytes.fromhex(digest) for digest in answer["digests"])
        return Decoded(digests, answer["error"], answer["full"])


def _as_json(block: Block) -> dict[str, Any]:
    into = None if block.into is None else str(block.into)
    form, place = dataclasses.asdict(block.form), {"into": into, "offsets": list(block.offsets)}
    return {"folder": str(block.folder), "names": list(block.names), "form": form, **place}


def serve_images() -> None:
    """Answer requests from stdin until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then closes the pipe
    for line in sys.stdin.buffer:
        request = json.loads(line)
        into = None if request["into"] is None else Path(request["into"])
        form = image.Form(**request["form"])
        decoded = decode(Block(Path(request["folder"]), request["names"], form, into, request["offsets"]))
        digests = [digest.hex() for digest in decoded.digests]
        answer = {"digests": digests, "error": decoded.error, "full": decoded.full}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def decode(block: Block) -> Decoded:
    """Decode a block in this process."""
    digests: list[bytes] = []
    file = None if block.into is None else os.open(block.into, os.O_WRONLY)
    try:
        for number, name in enumerate(block.names):
            path = block.folder / name
            pixels = image.patch_of_data(path, block.form, where=str(path)).tobytes()
            digests.append(hashlib.sha1(pixels).digest())
            if file is not None:
                try:
                    _write(file, pixels, block.offsets[number])
                except OSError as cause:
                    return Decoded(tuple(digests[:-1]), cause.strerror or str(cause), full=True)
    except DataError as cause:
        return Decoded(tuple(digests), str(cause))
    finally:
        if file is not None:
            os.close(file)
    return Decoded(tuple(digests))


def _write(file: int, pixels: bytes, offset: int) -> None:
    left = memoryview(pixels)
    while left:
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count


if __name__ == "__main__":
    serve_images()
