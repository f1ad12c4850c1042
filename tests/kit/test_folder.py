"""The folder that an integrator copies: complete, reproducible, self-contained, and never overwriting other files."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import histoedge
from histoedge import edge, verification
from histoedge.cli import main
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, ModelError
from histoedge.kit import embed

EXPORTED = Path(histoedge.__file__).parents[1] / "exported"
COMPILER = shutil.which("g++")


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def alone(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an interpreter that ignores PYTHONPATH and fails when it imports histoedge."""
    code = (
        "import runpy, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        assert name.partition('.')[0] != 'histoedge', name\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "kind, name, *sys.argv[1:] = sys.argv[1:]\n"
        "sys.path.insert(0, __import__('os').path.dirname(name) if kind == 'path' else '')\n"
        "sys.argv[0] = name\n"
        "(runpy.run_path if kind == 'path' else runpy.run_module)(name, run_name='__main__')\n"
    )
    command = [sys.executable, "-E", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def verified(mean_red_calibrated: Path) -> Path:
    assert verification.verify(mean_red_calibrated).passed
    return mean_red_calibrated


@pytest.fixture
def kit(verified: Path, tmp_path: Path) -> Path:
    embed(verified, tmp_path / "kit")
    return tmp_path / "kit"


def test_the_example_works_from_anywhere_without_histoedge(kit: Path, tmp_path: Path) -> None:
    golden = alone("path", kit / "example.py", cwd=tmp_path)
    assert golden.stdout.splitlines() == ["0.5000 normal", "0.5987 normal", "0.8808 tumour"], golden.stderr
    patch = np.zeros((1, 96, 96, 3), np.uint8)
    patch[..., 0] = 255
    patch.tofile(tmp_path / "patch.rgb")
    done = alone("path", kit / "example.py", tmp_path / "patch.rgb", cwd=tmp_path)
    assert done.stdout == "0.8808 tumour\n", done.stderr  # 1 / (1 + exp(-1 / 0.5))


def test_the_example_is_ten_lines(kit: Path) -> None:
    lines = (kit / "example.py").read_text().splitlines()
    assert len([line for line in lines if not line.startswith(("import", "from", '"""'))]) <= 10
    assert max(map(len, lines)) <= 125


def test_the_self_test_of_the_folder_passes_and_detects_a_flipped_bit(kit: Path) -> None:
    done = alone("module", "edge", "selftest", ".", cwd=kit)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "pass"), done.stderr
    golden = goldens.golden_path(kit / "mean_red_calibrated.onnx")
    content = bytearray(golden.read_bytes())
    content[200] ^= 1
    golden.write_bytes(content)
    done = alone("module", "edge", "selftest", ".", cwd=kit)
    assert done.returncode == 1
    assert "changed after the manifest was written" in done.stderr


def test_the_same_model_yields_the_same_bytes_and_replaces_an_earlier_folder(kit: Path, verified: Path) -> None:
    before = bytes_in(kit)
    alone("path", kit / "example.py", cwd=kit)
    assert (kit / "edge" / "__pycache__").is_dir()
    embed(verified, kit)
    assert bytes_in(kit) == before
    assert [path.name for path in kit.parent.iterdir() if path.name.startswith(".kit")] == []


def test_added_or_changed_files_are_not_replaced(kit: Path, verified: Path) -> None:
    mine = kit / "edge" / "mine.py"
    mine.write_text("")
    with pytest.raises(DataError, match=r"mine\.py: added or changed after histoedge embed wrote .*kit;"):
        embed(verified, kit)
    mine.unlink()
    (kit / "example.py").write_text("print('mine')")
    with pytest.raises(DataError, match=r"example\.py: added or changed"):
        embed(verified, kit)
    assert (kit / "example.py").read_text() == "print('mine')"


def test_a_foreign_folder_is_refused_and_an_empty_one_is_filled(verified: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    embed(verified, other)
    shutil.rmtree(other)
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="not empty, and not written by histoedge embed"):
        embed(verified, other)
    assert bytes_in(other) == {"letter.txt": b"dear"}


def test_a_model_is_embedded_only_with_a_passing_verdict_on_its_bytes(mean_red: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no passing verdict of this file next to it; run histoedge verify"):
        embed(mean_red, tmp_path / "kit")
    verification.verify(mean_red)
    place = manifests.verdict_path(mean_red)
    original = json.loads(place.read_text())
    for changed in ({"passed": False}, {"passed": 1, "sha256": "0" * 64}, {"format": 1}, {"golden": 7}):
        place.write_text(json.dumps({**original, **changed}))
        with pytest.raises(ModelError, match="no passing verdict"):
            embed(mean_red, tmp_path / "kit")
    place.write_text(json.dumps(original | {"golden": [{**original["golden"][0], "version": "0.1"}]}))
    assert not verification.is_current(mean_red)  # it passed with another version, which is enough to embed
    embed(mean_red, tmp_path / "kit")


def test_a_folder_below_a_file_is_refused_in_one_line(verified: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["embed", str(verified), "--into", str(tmp_path / "file" / "kit")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_licence_in_the_folder_is_the_projects(kit: Path) -> None:
    project = Path(histoedge.__file__).parents[1] / "LICENSE"
    if not project.is_file():
        pytest.skip("not a checkout")
    assert (kit / "LICENSE").read_bytes() == project.read_bytes()
    licences = (kit / "LICENSES.md").read_text()
    assert "| numpy | BSD-3-Clause" in licences
    assert "| onnxruntime | MIT |" in licences


def test_the_readme_states_the_manifests_values_and_is_short(kit: Path) -> None:
    page = (kit / "README.md").read_text()
    values = ("0.972 um per px", "-logit / 0.5", "**0.6** or above", "`specificity 0.95` | 0.7000 | 0.500", "x 32 px")
    for text in (*values, "not a medical device", "example.cpp", "For this release: "):
        assert text in page
    assert "$" not in page.replace("$ORT_HOME", "")
    assert len(page.splitlines()) <= 75


def test_the_command_prints_the_next_step(verified: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["embed", str(verified), "--into", str(tmp_path / "kit")])
    assert result.exit_code == 0, result.output
    assert "python -m edge selftest ." in result.stdout
    result = CliRunner().invoke(main, ["embed", str(verified), "--into", str(tmp_path / "kit"), "--json"])
    assert json.loads(result.stdout)["files"] == sorted(bytes_in(tmp_path / "kit"))


def test_the_doctor_command_accepts_the_folder(kit: Path, tmp_path: Path) -> None:
    logits = tmp_path / "logits.csv"
    logits.write_text("0\n0.2\n")
    result = CliRunner().invoke(main, ["doctor", str(kit), str(logits)])
    assert result.exit_code == 1
    assert "2 rows of logits, expected 3" in result.stderr


def test_the_doctor_of_the_folder_names_swapped_channels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    kit = tmp_path / "kit"
    embed(EXPORTED / "nano" / "models" / "int8.onnx", kit)
    patches = np.fromfile(kit / "golden.rgb", np.uint8).reshape(-1, 96, 96, 3)
    logits = edge.load(kit / "int8.onnx").predict(np.ascontiguousarray(patches[..., ::-1])).reshape(-1)
    np.savetxt(tmp_path / "logits.csv", logits)
    done = alone("module", "edge", "doctor", ".", tmp_path / "logits.csv", cwd=kit)
    assert done.returncode == 3, done.stderr
    assert "mistake: " in done.stdout
    assert "BGR" in done.stdout


@pytest.mark.skipif(COMPILER is None or "ORT_HOME" not in os.environ, reason="needs g++ and ORT_HOME")
@pytest.mark.parametrize("name", ["mean_red", "mean_red_saturating"])
def test_the_example_for_onnx_runtime_passes_and_fails(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: Path = request.getfixturevalue(name)
    verification.verify(model)
    embed(model, tmp_path / "kit")
    requests_exact_sums = "x64quantprecision" in (tmp_path / "kit" / "example.cpp").read_text()
    assert requests_exact_sums == (name == "mean_red_saturating")
    check_the_example(tmp_path / "kit", os.environ["ORT_HOME"], "onnxruntime")


@pytest.mark.skipif(COMPILER is None or "LITERT_HOME" not in os.environ, reason="needs g++ and LITERT_HOME")
def test_the_example_for_litert_passes_and_fails(tmp_path: Path) -> None:
    embed(EXPORTED / "nano" / "models" / "int8.tflite", tmp_path / "kit")
    check_the_example(tmp_path / "kit", os.environ["LITERT_HOME"], "LiteRt")


def check_the_example(kit: Path, home: str, library: str) -> None:
    """Check that the example passes, writes its logits, and names a patch whose golden logit was changed."""
    command: list[Any] = [
        COMPILER,
        "-Wall",
        "-Wextra",
        "-Werror",
        "-std=c++17",
        kit / "example.cpp",
        f"-I{home}/include",
    ]
    command += [f"-L{home}/lib", f"-l{library}", f"-Wl,-rpath,{home}/lib", "-o", kit.parent / "example"]
    subprocess.run(command, check=True)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [kit.parent / "example", kit, kit.parent / "logits.csv"], capture_output=True, text=True, check=False
        )

    done = run()
    assert (done.returncode, done.stdout[:6]) == (0, "PASS: "), done.stderr
    golden = np.loadtxt(kit / "golden.logits")
    np.testing.assert_allclose(np.loadtxt(kit.parent / "logits.csv"), golden, atol=0.1)
    golden[1] += 5
    np.savetxt(kit / "golden.logits", golden)
    done = run()
    assert (done.returncode, done.stdout[:6]) == (3, "FAIL: ")
    assert " on patch 1, " in done.stdout
    (kit / "golden.rgb").write_bytes(b"short")
    assert run().returncode == 1


def test_a_kit_of_single_patches_names_their_classes_and_says_how_maps_are_computed(
    mobilenet: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["it's benign", 'in "situ"']
    model = mobilenet("single", patch_px=64, label_px=64, classes=names, um_per_px=0.5)
    with pytest.raises(ModelError, match="no passing verdict"):
        embed(model, tmp_path / "kit")
    assert verification.verify(model).passed
    embed(model, tmp_path / "kit")
    readme = (tmp_path / "kit" / "README.md").read_text()
    assert (
        'the central 64 x 64 px of a 64 x 64 px patch of stained tissue: in "situ" (positive) or\nit\'s benign.'
        in readme
    )
    assert "Only single patches have a meaning to this network (edge_mode patch)" in readme
    assert "**0.5 um per px**" in readme
    assert "96" not in readme.split("## After a change")[0].replace("0.96", "")
    done = alone("path", tmp_path / "kit" / "example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {line.partition(" ")[2] for line in done.stdout.splitlines()} <= set(names)
    selftest = alone("module", "edge", "selftest", ".", cwd=tmp_path / "kit")
    assert selftest.returncode == 0, selftest.stderr
    code = (
        "import edge, numpy as np\n"
        "field = np.random.default_rng(0).integers(0, 256, (130, 100, 3), np.uint8)\n"
        "runner = edge.load('single.onnx')\n"
        "alone = runner.predict(field[None, 64:128, 32:96]).item()\n"
        "assert abs(runner.map(field)[2, 1] - alone) < 1e-5, alone\n"
    )
    (tmp_path / "kit" / "map.py").write_text(code)
    mapped = alone("path", tmp_path / "kit" / "map.py", cwd=tmp_path / "kit")
    assert mapped.returncode == 0, mapped.stderr
