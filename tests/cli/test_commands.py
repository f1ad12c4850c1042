"""What a person sees: one line for bad input, exit codes, JSON and nothing else on stdout."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from histoedge import config
from histoedge.cli import main
from histoedge.data import synthetic


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_one_line(result: Any, message: str, *, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_missing_data_folder_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    result = invoke("run", "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert_one_line(result, "no such folder")
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_names_the_nearest_before_any_work(tmp_path: Path) -> None:
    result = invoke("run", "--data", "synthetic", "--out", tmp_path / "run", "--recipe", "int9")
    assert_one_line(result, "did you mean int8")
    assert not (tmp_path / "run").exists()


def test_an_unknown_network_names_the_nearest_before_any_work(tmp_path: Path) -> None:
    result = invoke("train", "--data", "synthetic", "--out", tmp_path / "run", "--network", "bseline")
    assert_one_line(result, "did you mean baseline")


def test_another_network_than_the_files_is_one_line_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[network]\nname = "mine"\nrows = [{kind = "head", channels = 1, kernel = 96}]\n')
    arguments = ("train", "--data", "synthetic", "--out", tmp_path / "run", "--config", file)
    assert_one_line(invoke(*arguments, "--network", "edge"), "defines 'mine', but 'edge' is requested")
    assert_one_line(invoke(*arguments), f"{file}: network mine: the first row must be a conv")


@pytest.mark.lab
def test_a_folder_with_other_files_is_not_written_to(tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    result = invoke("train", "--data", tiny_data, "--out", tmp_path / "run")
    assert_one_line(result, "not a run of histoedge")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["verify", "info"])
def test_a_missing_model_is_one_line(tmp_path: Path, command: str) -> None:
    assert_one_line(invoke(command, tmp_path / "int8.onnx"), "no such model file")


@pytest.mark.lab
def test_weights_that_are_no_hdf5_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    (tmp_path / "fp32.weights.h5").write_bytes(b"not weights")
    assert_one_line(invoke("export", tmp_path), "fp32.weights.h5")


@pytest.mark.parametrize(
    "arguments", [["run"], ["predict", "a.onnx"], ["list", "things"], ["train", "--device", "tpu"], ["nothing"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_settings_that_do_not_exist_are_one_line(tmp_path: Path) -> None:
    arguments = ("train", "--data", "synthetic", "--out", tmp_path / "run", "--config", tmp_path / "no.toml")
    assert_one_line(invoke(*arguments), "no such settings file")


@pytest.mark.lab
def test_a_missing_gpu_is_an_error(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    if tensorflow.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    data, out = tmp_path / "data", tmp_path / "run"
    assert invoke("data", "synth", data, "--patches", 32).exit_code == 0
    result = invoke("train", "--data", data, "--out", out, "--device", "gpu", "--epochs", 1)
    assert result.exit_code == 1
    assert "backend has no GPU" in result.stderr
    assert not out.exists()


def test_predict_prints_a_line_per_image(mean_red: Path, tmp_path: Path) -> None:
    for name, red in (("b", 255), ("a", 0)):
        Image.fromarray(np.full((96, 96, 3), (red, 0, 0), np.uint8)).save(tmp_path / f"{name}.png")
    result = invoke("predict", mean_red, tmp_path / "b.png", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    lines = [line.split()[:2] for line in result.stdout.splitlines()]
    assert lines == [["0.7311", "tumour"], ["0.5000", "tumour"]]
    table = tmp_path / "out.csv"
    assert invoke("predict", mean_red, tmp_path, "--csv", table).exit_code == 0
    assert [line.split(",")[0] for line in table.read_text().split()] == ["id", "a", "b"]


def test_predict_decides_at_an_operating_point(mean_red_calibrated: Path, tmp_path: Path) -> None:
    for name, red in (("a", 90), ("b", 105), ("c", 120)):  # probabilities .670, .695, .719 at a temperature of .5
        Image.fromarray(np.full((96, 96, 3), (red, 0, 0), np.uint8)).save(tmp_path / f"{name}.png")
    images = [tmp_path / f"{name}.png" for name in "abc"]

    def verdicts(*options: str) -> list[str]:
        result = invoke("predict", mean_red_calibrated, *images, *options)
        assert result.exit_code == 0, result.output
        return [" ".join(line.split()[:2]) for line in result.stdout.splitlines()]

    assert verdicts() == ["0.6695 tumour", "0.6950 tumour", "0.7193 tumour"]
    assert verdicts("--at", "specificity 0.95") == ["0.6695 normal", "0.6950 normal", "0.7193 tumour"]
    rows = json.loads(invoke("predict", mean_red_calibrated, *images, "--at", "specificity 0.95", "--json").stdout)
    assert [row["positive"] for row in rows] == [False, False, True]
    result = invoke("predict", mean_red_calibrated, *images, "--at", "specificity 0.9")
    assert_one_line(result, "no operating point 'specificity 0.9'; this model has: 'specificity 0.95'")
    table = tmp_path / "out.csv"
    assert invoke("predict", mean_red_calibrated, *images, "--at", "specificity 0.95", "--csv", table).exit_code == 2
    assert not table.exists()


def test_info_shows_operating_points_readably(mean_red_calibrated: Path, mean_red: Path) -> None:
    lines = [line for line in invoke("info", mean_red_calibrated).stdout.splitlines() if "operating_points" in line]
    assert lines == [
        "operating_points     specificity 0.95: probability 0.7000 or above; on valid sensitivity 0.5000 "
        "[0.4000, 0.6000] of 100, specificity 0.9500 [0.9000, 0.9800] of 200"
    ]
    text = invoke("info", mean_red).stdout
    assert "operating_points     none\n" in text
    assert "verified             no\n" in text
    assert "may_saturate         none\n" in text


def test_an_image_of_another_size_is_named(mean_red: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    assert_one_line(invoke("predict", mean_red, tmp_path / "small.png"), "small.png: 32 x 32 px, expected a 96 x 96")
    assert_one_line(invoke("predict", mean_red, tmp_path / "none.png"), "no such image")


@pytest.mark.parametrize("what", ["networks", "recipes", "runtimes"])
def test_list_prints_json(what: str) -> None:
    rows = json.loads(invoke("list", what, "--json").stdout)
    names = {row[what.removesuffix("s")] for row in rows}
    expected = {
        "networks": {"edge", "baseline"},
        "recipes": {"fp32", "fp16", "int8", "prune50", "prune50_int8"},
        "runtimes": {"litert", "onnxruntime", "openvino"},
    }
    assert expected[what] <= names


def test_every_key_of_a_settings_file_is_listed() -> None:
    rows = json.loads(invoke("list", "settings", "--json").stdout)
    defaults = {(row["table"], row["key"]): row["default"] for row in rows}
    assert defaults["train", "epochs"] == 14
    assert defaults["bench", "threads"] == [1]
    assert defaults["network.rows", "kind"] is None
    assert {table for table, _ in defaults} == {*config.TABLES, "network.rows"}
    lines = [line.split() for line in invoke("list", "settings").stdout.splitlines()]
    assert lines[0] == ["table", "key", "default", "unit", "meaning"]
    assert ["train", "flips", "true"] in [line[:3] for line in lines]


def wrong_models(tmp_path: Path) -> dict[str, Path]:
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    places = {"weights": run / "int8.weights.h5", "keras": run / "net.keras", "results": run / "bench.json"}
    for place in (*places.values(), run / "models" / "int8.onnx", run / "models" / "fp32.onnx"):
        place.write_text('{"measurements": []}')
    return {**places, "run": run}


@pytest.mark.parametrize("what", ["weights", "keras", "results", "run"])
def test_every_command_explains_a_wrong_model_with_a_remedy(tmp_path: Path, what: str) -> None:
    place = wrong_models(tmp_path)[what]
    Image.new("RGB", (96, 96)).save(image := tmp_path / "image.png")
    (logits := tmp_path / "logits.csv").write_text("0\n")
    remedies = {
        "weights": f"histoedge export {tmp_path / 'run'}",
        "keras": "histoedge run --data DATA --out RUN --config F.toml",
        "results": f"histoedge report {place}",
        "run": f"name one of its models, such as {place / 'models' / 'int8.onnx'}",
    }
    bench = ("bench", place, "--data", "synthetic", "--out", tmp_path / "r.json")
    explain = ("explain", place, image)
    commands: list[tuple[object, ...]] = [
        *(("verify", place), ("info", place), ("predict", place, image), ("embed", place, "--into", tmp_path / "into")),
        *(("diff", place, place), ("doctor", place, logits), ("scan", image, "--model", place, "--out", tmp_path)),
        *([] if what == "run" else [bench]),  # bench accepts a run
        *([] if what == "weights" else [explain]),  # explain accepts weights
    ]
    for command in commands:
        result = invoke(*command)
        assert_one_line(result, f"{place}: ")
        assert remedies[what] in result.stderr


def test_data_check_prints_json(tmp_path: Path) -> None:
    assert invoke("data", "synth", tmp_path / "data", "--patches", 32, "--json").exit_code == 0
    document = json.loads(invoke("data", "check", tmp_path / "data", "--json").stdout)
    assert [row["split"] for row in document["splits"]] == ["train", "valid", "test"]
    assert [row["patches"] for row in document["splits"]] == [32, 16, 16]


def test_without_cache_a_check_writes_nothing_to_the_folder(tmp_path: Path) -> None:
    invoke("data", "synth", tmp_path / "data", "--patches", 16)
    plain = invoke("data", "check", tmp_path / "data", "--no-cache")
    assert not (tmp_path / "data" / ".histoedge").exists()
    assert invoke("data", "check", tmp_path / "data").stdout == plain.stdout
    assert (tmp_path / "data" / ".histoedge").is_dir()


def test_a_file_that_is_no_results_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    assert_one_line(invoke("report", tmp_path / "bench.json"), "bench.json")
    assert_one_line(invoke("report", tmp_path / "none.json"), "none.json")


def test_a_missing_extra_is_one_line_that_names_it(tmp_path: Path) -> None:
    """In a new interpreter without scipy, as after ``pip install histoedge[onnx]``."""
    code = (
        "import sys; sys.modules['scipy'] = None; from histoedge.cli import main; "
        f"main(['bench', {str(tmp_path)!r}, '--data', 'synthetic', '--out', {str(tmp_path / 'r.json')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "histoedge: bench needs scipy, which is not installed: pip install 'histoedge[bench]'\n"


@pytest.mark.filterwarnings("ignore")  # Keras 3.15 and numpy 2.4 disagree about __array__(copy=)
@pytest.mark.lab
def test_the_training_seed_does_not_move_patches_between_splits(tmp_path: Path, small_settings: Path) -> None:
    pytest.importorskip("tensorflow")
    (tmp_path / "data" / "train").mkdir(parents=True)
    split = synthetic.generate("train", patches=60, seed=0)
    rows = ["id,label"]
    for name, patch, label in zip(split.ids, split.patches[:], split.labels, strict=True):
        Image.fromarray(patch).save(tmp_path / "data" / "train" / f"{name}.tif")
        rows.append(f"{name},{label}")
    (tmp_path / "data" / "train_labels.csv").write_text("\n".join(rows))
    hashes = []
    for seed in (1, 2):
        out = tmp_path / f"run{seed}"
        options = ("--config", small_settings, "--epochs", 1, "--seed", seed)
        result = invoke("train", "--data", tmp_path / "data", "--out", out, *options)
        assert result.exit_code == 0, result.output
        hashes.append(json.loads((out / "network.json").read_text())["data"])
    assert hashes[0] == hashes[1]
