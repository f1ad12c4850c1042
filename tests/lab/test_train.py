import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from histoedge import data
from histoedge.cli import main
from histoedge.config import CompressConfig, Recipe, TrainConfig
from histoedge.data import hdf5
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import backend, batches, checkpoint, compress, finetune, train, trainee
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row

pytestmark = pytest.mark.lab

SETTINGS = TrainConfig(epochs=2, batch=64, seed=3)


class Stopped(Exception):
    """What a killed training looks like from inside."""


def stop_after_first_epoch(what: str, done: int, total: int, note: str = "") -> None:
    if what.endswith("epochs") and done == 1:
        raise Stopped


@pytest.fixture(scope="module")
def splits(tiny_data: Path) -> dict[str, data.Split]:
    return data.load(str(tiny_data))


def test_a_stopped_training_goes_on_to_the_same_weights(splits: dict[str, Any], tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    expected = train.train(splits, SETTINGS, whole)
    with pytest.raises(Stopped):
        train.train(splits, SETTINGS, halves, progress=stop_after_first_epoch)
    _, attributes = hdf5.read_arrays(halves / train.STATE)
    assert len(json.loads(attributes["history"])) == 1
    with pytest.raises(ConfigError, match="covers all 2 epochs .+; use --epochs 2 or another --out"):
        train.train(splits, dataclasses.replace(SETTINGS, epochs=3), halves)
    resumed = train.train(splits, SETTINGS, halves)
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], value)
    left = sorted(path.name for path in halves.iterdir())
    assert left == ["appearance.json", "curves.png", "fp32.weights.h5", "history.json", "network.json", "train.log"]
    weights = [checkpoint.path_of(run, "fp32").read_bytes() for run in (whole, halves)]
    assert weights[0] == weights[1]
    rows = json.loads((whole / "history.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2]
    assert resumed.valid_auc == pytest.approx(max(row["valid_auc"] for row in rows), abs=1e-6)


def test_the_network_of_a_settings_file_is_trained(tiny_data: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "mine.toml", tmp_path / "run"
    rows = ('{kind="conv", channels=8, kernel=8, stride=8}', '{kind="head", channels=1, kernel=12, bias=true}')
    file.write_text(f'[train]\nepochs = 1\n[network]\nname = "mine"\nrows = [{", ".join(rows)}]\n')
    arguments = ["train", "--data", str(tiny_data), "--out", str(out), "--config", str(file)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    made = checkpoint.read(checkpoint.path_of(out, "fp32"))
    assert (made.network.name, made.inputs["train"]["network"]) == ("mine", "mine")
    assert made.arrays["stem/kernel"].shape == (8, 8, 3, 8)
    file.write_text(file.read_text().replace("channels=8", "channels=12"))
    assert "another network with the same name" in CliRunner().invoke(main, arguments).stderr


def test_another_seed_gives_other_weights(splits: dict[str, Any], tmp_path: Path) -> None:
    first = train.train(splits, TrainConfig(epochs=1, seed=1), tmp_path / "1")
    second = train.train(splits, TrainConfig(epochs=1, seed=2), tmp_path / "2")
    assert not np.array_equal(first.arrays["stem/kernel"], second.arrays["stem/kernel"])


def test_a_run_for_other_data_is_refused(splits: dict[str, Any], tmp_path: Path) -> None:
    train.train(splits, TrainConfig(epochs=1), tmp_path / "run")
    swapped = {"train": splits["valid"], "valid": splits["train"]}
    with pytest.raises(ConfigError, match="data.train is"):
        train.train(swapped, TrainConfig(epochs=1), tmp_path / "run")


def test_the_order_of_patches_depends_on_seed_and_epoch_alone() -> None:
    assert np.array_equal(batches.order(50, seed=1, epoch=2), batches.order(50, seed=1, epoch=2))
    assert not np.array_equal(batches.order(50, seed=1, epoch=2), batches.order(50, seed=1, epoch=3))
    assert sorted(batches.order(50, seed=1, epoch=2)) == list(range(50))


@pytest.fixture
def teacher(splits: dict[str, Any], tmp_path: Path) -> Path:
    """A run to learn from."""
    run = tmp_path / "teacher"
    train.train(splits, TrainConfig(epochs=1), run)
    return run


def test_a_teacher_makes_up_its_share_of_the_target() -> None:
    keras = backend.keras()
    loss = trainee._distillation_loss(keras, keras.losses.BinaryCrossentropy(from_logits=True), share=0.25)
    student, taught = 0.3, 2.0
    target = 0.25 / (1 + np.exp(-taught)) + 0.75 * 1.0
    expected = np.log1p(np.exp(student)) - target * student
    assert float(loss(np.array([[1.0]]), np.array([[student, taught]]))) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_changes_the_weights_and_belongs_to_the_run(
    splits: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    settings = TrainConfig(epochs=1, seed=5)
    alone = train.train(splits, settings, tmp_path / "alone")
    taught = train.train(splits, settings, tmp_path / "taught", teacher=teacher)
    assert not np.array_equal(alone.arrays["head/kernel"], taught.arrays["head/kernel"])
    with pytest.raises(ConfigError, match="another teacher or none; use the same --teacher"):
        train.train(splits, settings, tmp_path / "taught")


def test_a_teacher_of_other_data_or_without_weights_is_refused(
    splits: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    swapped = {"train": splits["valid"], "valid": splits["train"]}
    with pytest.raises(ConfigError, match="this teacher was trained on another train split"):
        train.train(swapped, SETTINGS, tmp_path / "run", teacher=teacher)
    with pytest.raises(ModelError, match="no such weights"):
        train.train(splits, SETTINGS, tmp_path / "run", teacher=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


SYMMETRIC = Network(
    "symmetric",
    (
        Row(kind="conv", channels=16, kernel=8, stride=8),
        Row(kind="conv", channels=16, kernel=3),
        Row(kind="head", channels=1, kernel=10, bias=True),
    ),
    symmetric=True,
)


def test_a_symmetric_training_resumes_and_is_deployed_as_a_plain_network(
    splits: dict[str, Any], tmp_path: Path
) -> None:
    settings = TrainConfig(network="symmetric", epochs=2, batch=64)
    whole = train.train(splits, settings, tmp_path / "whole", network=SYMMETRIC)
    with pytest.raises(Stopped):
        train.train(splits, settings, tmp_path / "halves", network=SYMMETRIC, progress=stop_after_first_epoch)
    resumed = train.train(splits, settings, tmp_path / "halves", network=SYMMETRIC)
    for name, value in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], value)
    assert whole.arrays["conv2/kernel"].shape == (3, 3, 16, 16)
    recipes = [Recipe.parse(name) for name in ("int8ptq", "slim50")]
    short = CompressConfig(slim_epochs=1, batch=64, calibration_patches=64)
    quantised, slimmed = (compress.compress(tmp_path / "whole", recipe, splits, short) for recipe in recipes)
    patches = splits["test"].patches[:32].astype(np.float32) / 255
    for made in (quantised, slimmed):
        answer = finetune.simulate(made.network, made.folded, recipes[0] if made is quantised else recipes[1])
        turned = np.ascontiguousarray(np.rot90(patches, axes=(1, 2)))
        low, high = made.folded.get("head/range", (0, 1e-4 * 255))
        tolerance = 1.01 * (high - low) / 255  # the simulation's floats add up in another order: a quantum at most
        np.testing.assert_allclose(np.asarray(answer(turned)), np.asarray(answer(patches)), atol=tolerance)
    assert slimmed.network.rows[1].channels == 8
