"""Decoder processes."""

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from histoedge.data import decoder, image
from histoedge.edge.errors import HistoedgeError


def images(folder: Path, count: int) -> list[str]:
    """Write patches of one colour each, all different; return their file names."""
    folder.mkdir()
    names = [f"{number:04d}.tif" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (96, 96), (number // 256, number % 256, 77)).save(folder / name)
    return names


def test_several_processes_decode_the_same_as_one(tmp_path: Path) -> None:
    names = images(tmp_path / "images", 3 * decoder.BLOCK + 5)
    blocks = list(decoder.blocks(tmp_path / "images", names))
    several = {block.names[0]: answer for block, answer in decoder.decode_all(blocks, processes=2)}
    single = {block.names[0]: answer for block, answer in decoder.decode_all(blocks, processes=1)}
    assert several == single
    assert len(single) == 4


def test_a_killed_decoder_process_is_a_one_line_error(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    names = images(folder, 4)
    with decoder._Decoders(1) as decoders:
        os.kill(decoders._processes[0].pid, signal.SIGKILL)
        decoders._processes[0].wait()
        with pytest.raises(HistoedgeError, match=r"a process that decodes its images ended \(exit status -9\)"):
            list(decoders.answers([decoder.Block(folder, names, image.FORM)]))
