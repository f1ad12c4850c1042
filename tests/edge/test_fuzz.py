"""Damaged and forged files are refused with a ``HistoedgeError``; several threads get the same logits as one."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "exported" / "edge" / "models"

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir() or not MODELS.is_dir(), reason="not a checkout")


@pytest.fixture
def fuzz(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("fuzz")


@pytest.mark.skipif(sys.platform != "linux", reason="needs the resource limits of Linux")
@pytest.mark.parametrize(("name", "module"), [("int8.onnx", "onnxruntime"), ("int8.tflite", "ai_edge_litert")])
def test_no_damaged_or_forged_file_crashes_or_passes(tmp_path: Path, name: str, module: str) -> None:
    pytest.importorskip(module)
    out = tmp_path / "fuzz.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), str(MODELS / name), "--out", str(out)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--count", "400", "--seed", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert sum(row["cases"] for row in rows) == 400
    for row in rows:
        if not row["changed"].endswith("signed"):
            assert row["refused"] + row["same"] == row["cases"] > 0
        if not row["changed"].startswith("model"):
            assert row["undeliberate"] == row["crashed"] == row["hung"] == 0
    plain_bytes = [row for row in rows if row["changed"] in ("model, bytes", "golden, bytes", "golden, contents")]
    assert [row["same"] for row in plain_bytes] == [0, 0, 0]


@pytest.mark.parametrize(
    ("die", "expected"),
    [
        (lambda: os.kill(os.getpid(), 9), ("crashed", "SIGKILL")),
        (lambda: os._exit(7), ("crashed", "exit code 7")),
        (lambda: [None for _ in iter(int, 1)], ("hung", "more than 1 s")),
        (lambda: bytearray(1 << 32), ("undeliberate", "MemoryError: ''")),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="needs the resource limits of Linux")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # other tests' threads; the child needs none
def test_a_case_that_ends_its_process_is_a_row(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, die: Callable[[], Any], expected: tuple[str, str]
) -> None:
    parts = {"model": b"model", "manifest": b'{"a": 1, "b": 2}', "golden": b"golden"}
    target = fuzz.Target("manifest", fuzz.BYTES, False, 1.0)
    monkeypatch.setattr(fuzz, "TARGETS", (target,))
    calls = iter(range(100))

    def load(_: Path) -> None:
        if next(calls) == 1:
            die()
        raise ModelError("refused")

    monkeypatch.setattr(fuzz.edge, "load", load)
    rows = fuzz.run_task(fuzz.FuzzedModel("a.onnx", parts), 0, range(2))
    assert rows[0] == (target.name, "refused", "")
    kind, detail = rows[1][1:]
    assert kind == expected[0]
    assert detail.endswith(expected[1])


def copied(folder: Path, name: str = "int8.onnx") -> Path:
    model = folder / name
    for place in (Path, manifests.manifest_path, goldens.golden_path):
        place(model).write_bytes(place(MODELS / name).read_bytes())
    return model


def test_a_flipped_bit_of_a_released_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = copied(tmp_path)
    for path in (model, goldens.golden_path(model)):
        content = path.read_bytes()
        for place in np.linspace(0, len(content) - 1, 64).astype(int):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(ModelError, match="changed after"):
                edge.load(model)
        path.write_bytes(content)


def test_a_model_that_passes_the_parser_but_cannot_run_is_refused() -> None:
    pytest.importorskip("ai_edge_litert")
    from histoedge.edge import litert

    content = (MODELS / "int8.tflite").read_bytes()
    messages = []
    for start in range(3000, 4500, 250):  # the list of buffers
        try:
            litert.open_litert(content[:start] + bytes(250) + content[start + 250 :]).predict(
                np.zeros((1, 96, 96, 3), np.uint8)
            )
        except ModelError as error:
            messages.append(str(error))
    assert any("LiteRT cannot run this file: Input tensor" in message for message in messages)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (", "not an array in NumPy's format"),
        (b"{'descr': '|O', 'fortran_order': False, 'shape': (16,), }\n", "not an array in NumPy's format"),
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }\n", "not an array in NumPy's format"),
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (999999999,), }\n", r"labels is |u1 \(999999999,\)"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n", "labels is <f4"),
    ],
)
def test_a_forged_array_header_is_refused(
    tmp_path: Path, header: bytes, message: str, sign: Callable[..., Path]
) -> None:
    model = copied(tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(goldens.golden_path(model)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)
            new.writestr(name, array if name == "labels.npy" else old.read(name))
    goldens.golden_path(model).write_bytes(packed.getvalue())
    sign(model)
    with pytest.raises(ModelError, match=message):
        goldens.read_golden(model, manifests.read(model))


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    model = copied(tmp_path)
    path = manifests.manifest_path(model)
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.1,\n "threshold": 0.5', 1))
    with pytest.raises(ModelError, match="duplicate key"):
        manifests.read(model)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 1e-300}, "temperature is 1e-300, expected at least 0.001"),
        ({"threshold": 1.5}, "threshold is 1.5, expected at most 1"),
        ({"patch_px": 1_000_000}, "patch_px is 1e[+]06, expected at most 512"),
        ({"macs": 10**400}, "macs is 1e[+]300, expected at most 1e[+]15"),
        ({"tolerance": -1}, "tolerance is -1, expected at least 0"),
        ({"format": "x\ny"}, r"format is 'x\\ny', expected tflite or onnx"),
        ({"a\nb": 1}, r"missing or unknown keys: 'a\\nb'"),
        ({"contract": "2\n"}, r"contract version '2\\n', expected 2 or 3"),
    ],
)
def test_a_signed_manifest_with_values_out_of_range_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str, sign: Callable[..., Path]
) -> None:
    model = copied(tmp_path)
    sign(model, **changed)
    with pytest.raises(ModelError, match=message) as caught:
        manifests.read(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [500, 900, 990, 1000, 100_000])
def test_a_deep_manifest_is_refused(tmp_path: Path, depth: int) -> None:
    model = copied(tmp_path)
    path = manifests.manifest_path(model)
    path.write_text(path.read_text().replace("{", '{"deep": ' + "[" * depth + "]" * depth + ",", 1))
    with pytest.raises(ModelError):
        manifests.read(model)


@pytest.mark.parametrize(
    ("name", "runtime", "module"),
    [
        ("int8.onnx", "onnxruntime", "onnxruntime"),
        ("int8.tflite", "litert", "ai_edge_litert"),
        ("int8.onnx", "openvino", "openvino"),
    ],
)
def test_eight_threads_with_patches_and_fields_get_the_same_logits_as_one(
    name: str, runtime: str, module: str, script: Callable[[str], ModuleType]
) -> None:
    pytest.importorskip(module)
    threads = script("threads")
    runner = edge.load(MODELS / name, runtime=runtime)
    calls, wrong, memory = threads.hammer(runner, threads.inputs(0), threads=8, seconds=2, seed=0)
    assert calls > 8
    assert wrong == 0
    assert memory.shape[0] == 2
    assert (memory[1] > 1e6).all()


def test_growing_memory_or_another_answer_fails(mean_red: Path, script: Callable[[str], ModuleType]) -> None:
    threads = script("threads")
    runner = edge.load(mean_red, runtime="onnxruntime")
    seconds = np.linspace(0, 60, 61)
    grown = threads.threads_row(mean_red, runner, 8, 100, 0, np.stack([seconds, 1e6 * (100 + seconds)]))
    assert (grown["holds"], grown["largest_growth_mb"]) == ("no", 45)  # after a quarter of the minute
    assert grown["slope_mb_per_minute"] == pytest.approx(60)
    flat = np.stack([seconds, np.full(61, 1e8)])
    assert threads.threads_row(mean_red, runner, 8, 100, 0, flat)["holds"] == "yes"
    assert threads.threads_row(mean_red, runner, 8, 100, 1, flat)["holds"] == "no"
