"""Decode image files, hash and write their pixels: here, or in processes (``python -m histoedge.data.decoder``).

A process reads a JSON request a line and answers with a line each; it ends with its parent, whose pipe it reads.
"""

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
from histoedge.edge.patches import PATCH_PX

PATCH_BYTES = PATCH_PX * PATCH_PX * 3
BLOCK = 128  # images of one request: less than a tenth of a second
FEW_BLOCKS = 2  # so few are decoded sooner than a process starts


@dataclass(frozen=True)
class Block:
    """Images of ``folder`` to decode, and the byte of the file ``into`` where the pixels of each go, if anywhere."""

    folder: Path
    names: Sequence[str]
    into: Path | None = None
    offsets: Sequence[int] = ()


@dataclass(frozen=True)
class Decoded:
    """What became of a block: the digests of its first images, of all where ``error`` is None.

    ``full`` where the error is that nothing can be written, not that an image is at fault.
    """

    digests: tuple[bytes, ...]
    error: str | None = None
    full: bool = False


def blocks(
    folder: Path, names: Sequence[str], *, into: Path | None = None, offsets: Sequence[int] = ()
) -> Iterator[Block]:
    """All the images, in blocks."""
    for start in range(0, len(names), BLOCK):
        part = slice(start, start + BLOCK)
        yield Block(folder, names[part], into, offsets[part])


def decode(block: Block) -> Decoded:
    """Decode the block in this process."""
    found: list[bytes] = []
    file = None if block.into is None else os.open(block.into, os.O_WRONLY)
    try:
        for number, name in enumerate(block.names):
            pixels = image.read_patch(block.folder / name).tobytes()
            found.append(hashlib.sha1(pixels).digest())
            if file is not None:
                try:
                    _write(file, pixels, block.offsets[number])
                except OSError as cause:
                    return Decoded(tuple(found[:-1]), cause.strerror or str(cause), full=True)
    except DataError as cause:
        return Decoded(tuple(found), str(cause))
    finally:
        if file is not None:
            os.close(file)
    return Decoded(tuple(found))


def _write(file: int, pixels: bytes, offset: int) -> None:
    left = memoryview(pixels)
    while left:
        done = os.pwrite(file, left, offset)
        left, offset = left[done:], offset + done


def decode_all(waiting: Iterable[Block], *, processes: int) -> Generator[tuple[Block, Decoded], None, None]:
    """Decode all blocks, each told as soon as it is done, in any order.

    Raises:
        DataError: a process ended, killed or for want of memory.
    """
    waiting = list(waiting)
    if len(waiting) <= FEW_BLOCKS or processes == 1:
        for block in waiting:
            yield block, decode(block)
        return
    with _Decoders(min(processes, len(waiting))) as decoders:
        yield from decoders.answers(waiting)


class _Decoders:
    """Processes that decode; each is asked by one thread at a time."""

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
                with suppress(BrokenPipeError):  # half a request, to one that ended
                    pipe.close()
            process.wait()

    def answers(self, waiting: Sequence[Block]) -> Iterator[tuple[Block, Decoded]]:
        asked: dict[Future[Decoded], Block] = {self._pool.submit(self._ask, block): block for block in waiting}
        for answered in as_completed(asked):
            yield asked[answered], answered.result()

    def _ask(self, block: Block) -> Decoded:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(_request(block)).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            self._idle.put(process)
        if not line.endswith(b"\n"):
            raise DataError(
                f"{block.folder}: a process that decodes its images ended (exit status {process.wait()}); "
                "run the same command again, what is done is kept"
            )
        answer = json.loads(line)
        digests = tuple(bytes.fromhex(digest) for digest in answer["digests"])
        return Decoded(digests, answer["error"], answer["full"])


def _request(block: Block) -> dict[str, Any]:
    into = None if block.into is None else str(block.into)
    return {"folder": str(block.folder), "names": list(block.names), "into": into, "offsets": list(block.offsets)}


def serve_images() -> None:
    """Answer requests until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then closes the pipe
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        into = None if asked["into"] is None else Path(asked["into"])
        found = decode(Block(Path(asked["folder"]), asked["names"], into, asked["offsets"]))
        answer = {"digests": [digest.hex() for digest in found.digests], "error": found.error, "full": found.full}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve_images()
