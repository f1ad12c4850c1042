"""What depends on changed weights: made again, exported again, or told to be of earlier ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from histoedge import data, verification
from histoedge.cli import main
from histoedge.config import CompressConfig, Recipe, resolve
from histoedge.lab import checkpoint, compress, export

pytestmark = pytest.mark.lab

PRUNED = ("prune50", "prune50_int8")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run, to be gone on with."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def changed(settings: Path, tmp_path: Path) -> Path:
    """The same settings but one, of pruning; and a bench as short as can be."""
    path = tmp_path / "changed.toml"
    path.write_text(settings.read_text().replace("prune_steps = 12", "prune_steps = 9") + 'runtimes = ["litert"]\n')
    return path


def weights(run: Path) -> dict[str, bytes]:
    return {recipe.name: checkpoint.path_of(run, recipe.name).read_bytes() for recipe in checkpoint.recipes_in(run)}


def test_compress_renews_what_was_made_from_the_old_weights_and_names_old_files(
    copied: Path, tiny_data: Path, changed: Path
) -> None:
    before = weights(copied)
    arguments = ("compress", copied, "--data", tiny_data, "--recipe", "prune50", "--config", changed)
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    *table, line = result.stdout.splitlines()
    assert [row.split()[0] for row in table] == ["recipe", "fp32", *PRUNED]
    names = ", ".join(f"models/{recipe}.{format_}" for recipe in PRUNED for format_ in ("onnx", "tflite"))
    again = f"histoedge export {copied} --recipe prune50 --recipe prune50_int8"
    assert line == f"{names}: of earlier weights; {again} writes them anew"
    after = weights(copied)
    assert {name for name in before if before[name] != after[name]} == set(PRUNED)
    told = invoke(*arguments, "--json")
    assert weights(copied) == after
    assert [row["recipe"] for row in json.loads(told.stdout)] == ["fp32", "prune50"]
    assert told.stderr == line + "\n"

    model = copied / "models" / "prune50_int8.onnx"
    assert verification.is_current(model.with_name("int8.onnx"))
    assert not verification.is_current(model)
    failed = invoke("verify", model)
    assert failed.exit_code == 3
    assert failed.stderr == (
        f"histoedge: {model}: prune50_int8.weights.h5 changed after this file was exported; export it again: "
        f"histoedge export {copied} --recipe prune50_int8\n"
    )
    assert json.loads(invoke("verify", model, "--json").stdout)["outdated"].startswith(
        "prune50_int8.weights.h5 changed"
    )
    shutil.move(model.parent, copied.parent / "elsewhere")  # as a released file lies, without weights beside it
    assert invoke("verify", copied.parent / "elsewhere" / "prune50_int8.onnx").exit_code == 0


def test_a_run_leaves_no_file_of_earlier_weights(copied: Path, tiny_data: Path, changed: Path) -> None:
    result = invoke("run", "--data", tiny_data, "--out", copied, "--config", changed, "--recipe", "prune50", "--json")
    assert result.exit_code == 0, result.output
    assert [Path(model).name for model in json.loads(result.stdout)["models"]] == ["prune50.tflite", "prune50.onnx"]
    assert export.outdated(copied) == ()
    assert all(verification.is_current(model) for model in (copied / "models").glob("*.onnx"))


class Stopped(Exception):
    """What a killed compression looks like from inside."""


def test_renewing_goes_on_where_it_was_stopped(copied: Path, tiny_data: Path, changed: Path) -> None:
    splits, settings = data.load(str(tiny_data)), resolve(CompressConfig, file=changed, options={})
    before = weights(copied)

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if note.startswith("prune50:"):
            raise Stopped

    with pytest.raises(Stopped):
        compress.compress_all(copied, [Recipe.parse("prune50")], splits, settings, progress=stop)
    assert weights(copied)["prune50_int8"] == before["prune50_int8"]
    made = compress.compress_all(copied, [Recipe.parse("fp16")], splits, settings)
    assert [one.recipe for one in made] == ["fp32", "fp16", "prune50_int8"]
    (copied / "prune50.weights.h5").unlink()  # nothing tells what its child should be made from
    assert [one.recipe for one in compress.compress_all(copied, [], splits, settings)] == []


def test_export_writes_what_there_is_and_tells_what_is_not_compressed_yet(copied: Path) -> None:
    for path in copied.glob("*.weights.h5"):
        if path.name not in ("fp32.weights.h5", "prune50.weights.h5"):
            path.unlink()
    shutil.copy(copied / "fp32.weights.h5", copied / "mine.weights.h5")  # no recipe's
    result = invoke("export", copied)
    assert result.exit_code == 0, result.output
    *table, line = result.stdout.splitlines()
    models = [Path(row.split()[0]).name for row in table[1:]]
    assert models == ["fp32.tflite", "fp32.onnx", "prune50.tflite", "prune50.onnx"]
    to_do = f"to make them: histoedge compress {copied} --data DATA"
    assert line == f"not compressed yet: fp16, int8, prune50_int8; {to_do}"
    asked = invoke("export", copied, "--recipe", "fp32", "--json")
    assert (len(json.loads(asked.stdout)), asked.stderr) == (2, "")
    missing = invoke("export", copied, "--recipe", "int8")
    assert missing.exit_code == 1
    assert "int8.weights.h5: no such weights" in missing.stderr
