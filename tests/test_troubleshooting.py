"""The errors in the user guide are the lines that the commands print."""

import importlib.util
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from histoedge.cli import main
from histoedge.edge.runtimes import Runtime

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "histoedge" / "GUIDE.md"
pytestmark = pytest.mark.skipif(not GUIDE.is_file(), reason="not a checkout")

SECTION = GUIDE.read_text().partition("## The ten errors people meet first\n")[2] if GUIDE.is_file() else ""
QUOTED = [
    textwrap.dedent(block).strip()
    for block in re.findall(r"^ +```text\n(.*?)^ +```", SECTION, re.MULTILINE | re.DOTALL)
]


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1, result.output
    return result.stderr.strip()


def without_sidecars() -> str:
    shutil.move("models/int8.onnx", "int8.onnx")
    return printed("predict", "int8.onnx", "image.png")


def altered() -> str:
    with open("models/int8.onnx", "ab") as file:
        file.write(b"x")
    return printed("predict", "models/int8.onnx", "image.png")


def folder_for_a_model() -> str:
    return printed("info", "models")


def wrong_size() -> str:
    return printed("predict", "models/int8.onnx", "image.png")


def no_runtime() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "installed", lambda _: False)
        return printed("predict", "models/int8.onnx", "image.png")


def no_extra() -> str:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histoedge.data.check.check", missing)
        return printed("data", "check", "DATA")


def no_data() -> str:
    Path("DATA").mkdir()
    return printed("data", "check", "DATA")


def misspelled_setting() -> str:
    Path("F.toml").write_text("[compress]\nprune_step = 100\n")
    return printed("run", "--data", "synthetic", "--out", "RUN", "--config", "F.toml")


def not_verified() -> str:
    Path("models/int8.onnx.verdict.json").unlink()
    return printed("embed", "models/int8.onnx", "--into", "KIT")


def no_resolution() -> str:
    Path("image.png").rename("slide.png")
    return printed("scan", "slide.png", "--model", "models/int8.onnx", "--out", "MAPS")


COMMANDS = [
    without_sidecars,
    altered,
    folder_for_a_model,
    wrong_size,
    no_runtime,
    no_extra,
    no_data,
    misspelled_setting,
    not_verified,
    no_resolution,
]


@pytest.mark.parametrize(
    ("number", "produce"), list(enumerate(COMMANDS)), ids=[command.__name__ for command in COMMANDS]
)
def test_the_line_in_the_guide_is_the_printed_one(
    number: int, produce: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if produce is no_resolution and importlib.util.find_spec("skimage") is None:
        pytest.skip("needs the extra slides")
    shutil.copytree(ROOT / "exported" / "nano" / "models", tmp_path / "models")
    Image.new("RGB", (512, 512)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    assert produce() == QUOTED[number]


def test_the_guide_has_ten_errors() -> None:
    assert len(QUOTED) == len(COMMANDS) == 10
