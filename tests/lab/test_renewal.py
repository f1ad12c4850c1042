"""Files that depend on changed weights: computed again, exported again, or reported as outdated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from histoedge import data, verification
from histoedge.config import CompressConfig, Recipe, resolve
from histoedge.lab import checkpoint, compress, export

pytestmark = pytest.mark.lab

PRUNED = ("prune50", "prune50_int8")


@pytest.fixture
def changed(settings: Path, tmp_path: Path) -> Path:
    """The same settings but one, of pruning; and a bench as short as can be."""
    path = tmp_path / "changed.toml"
    path.write_text(settings.read_text().replace("prune_steps = 12", "prune_steps = 9") + 'runtimes = ["litert"]\n')
    return path


def weights(run: Path) -> dict[str, bytes]:
    return {recipe.name: checkpoint.path_of(run, recipe.name).read_bytes() for recipe in checkpoint.recipes_in(run)}


def test_compress_renews_weights_derived_from_the_old_weights_and_names_old_files(
    run_copy: Path, tiny_data: Path, changed: Path, invoke: Callable[..., Any]
) -> None:
    before = weights(run_copy)
    arguments = ("compress", run_copy, "--data", tiny_data, "--recipe", "prune50", "--config", changed)
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    *table, line = result.stdout.splitlines()
    assert [row.split()[0] for row in table] == ["recipe", "fp32", *PRUNED]
    names = ", ".join(f"models/{recipe}.{format_}" for recipe in PRUNED for format_ in ("onnx", "tflite"))
    again = f"histoedge export {run_copy} --recipe prune50 --recipe prune50_int8"
    assert line == f"{names}: exported from earlier weights; update: {again}"
    after = weights(run_copy)
    assert {name for name in before if before[name] != after[name]} == set(PRUNED)
    repeated = invoke(*arguments, "--json")
    assert weights(run_copy) == after
    assert [row["recipe"] for row in json.loads(repeated.stdout)] == ["fp32", "prune50"]
    assert repeated.stderr == line + "\n"

    model = run_copy / "models" / "prune50_int8.onnx"
    assert verification.is_current(model.with_name("int8.onnx"))
    assert not verification.is_current(model)
    failed = invoke("verify", model)
    assert failed.exit_code == 3
    assert failed.stderr == (
        f"histoedge: {model}: prune50_int8.weights.h5 changed after this file was exported; export it again: "
        f"histoedge export {run_copy} --recipe prune50_int8\n"
    )
    assert json.loads(invoke("verify", model, "--json").stdout)["outdated"].startswith(
        "prune50_int8.weights.h5 changed"
    )
    shutil.move(model.parent, run_copy.parent / "elsewhere")  # as a released file lies, without weights beside it
    assert invoke("verify", run_copy.parent / "elsewhere" / "prune50_int8.onnx").exit_code == 0


class Stopped(Exception):
    """Stands for a kill, raised in this process."""


def test_a_run_resumes_a_stopped_compression_and_leaves_no_file_of_earlier_weights(
    run_copy: Path, tiny_data: Path, changed: Path, invoke: Callable[..., Any]
) -> None:
    splits, settings = data.load(str(tiny_data)), resolve(CompressConfig, file=changed, options={})
    before = weights(run_copy)

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if note.startswith("prune50:"):
            raise Stopped

    with pytest.raises(Stopped):
        compress.compress_all(run_copy, [Recipe.parse("prune50")], splits, settings, progress=stop)
    stopped = weights(run_copy)
    assert {name for name in before if before[name] != stopped[name]} == {"prune50"}
    result = invoke("run", "--data", tiny_data, "--out", run_copy, "--config", changed, "--recipe", "fp16", "--json")
    assert result.exit_code == 0, result.output
    assert [Path(model).name for model in json.loads(result.stdout)["models"]] == ["fp16.tflite", "fp16.onnx"]
    after = weights(run_copy)
    renewed = {name for name in stopped if stopped[name] != after[name]}
    assert renewed == {"fp16", "prune50_int8"}  # fp16 because its inputs record all settings of the compression
    assert export.outdated(run_copy) == ()
    assert all(verification.is_current(model) for model in (run_copy / "models").glob("*.onnx"))
    (run_copy / "prune50.weights.h5").unlink()  # the weights that prune50_int8 derives from are unknown now
    assert compress.compress_all(run_copy, [], splits, settings) == ()


def test_export_writes_existing_recipes_and_lists_those_not_compressed_yet(
    run_copy: Path, invoke: Callable[..., Any]
) -> None:
    for path in run_copy.glob("*.weights.h5"):
        if path.name not in ("fp32.weights.h5", "prune50.weights.h5"):
            path.unlink()
    shutil.copy(run_copy / "fp32.weights.h5", run_copy / "mine.weights.h5")  # no recipe's
    result = invoke("export", run_copy)
    assert result.exit_code == 0, result.output
    *table, line = result.stdout.splitlines()
    models = [Path(row.split()[0]).name for row in table[1:]]
    assert models == ["fp32.tflite", "fp32.onnx", "prune50.tflite", "prune50.onnx"]
    to_do = f"next: histoedge compress {run_copy} --data DATA"
    assert line == f"not compressed yet: fp16, int8, prune50_int8; {to_do}"
    asked = invoke("export", run_copy, "--recipe", "fp32", "--json")
    assert (len(json.loads(asked.stdout)), asked.stderr) == (2, "")
    missing = invoke("export", run_copy, "--recipe", "int8")
    assert missing.exit_code == 1
    assert "int8.weights.h5: no such weights" in missing.stderr
