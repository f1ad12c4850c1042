"""Records of a training: the log, the history and its curves, TensorBoard, MLflow."""

import json
import re
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from histoedge.cli import main
from histoedge.config import TrainConfig
from histoedge.edge.errors import RuntimeUnavailable
from histoedge.lab import callbacks
from histoedge.lab.trainee import TrainingState

pytestmark = pytest.mark.lab

ROW = {"loss": 0.5, "valid_loss": 0.4, "valid_auc": 0.9, "patches_per_s": 100.0, "peak_rss_bytes": 10**9}
TRAINED = TrainingState(({"epoch": 1, **ROW}, {"epoch": 2, **ROW, "loss": 0.25}), {}, 0.9)


@pytest.fixture(scope="module")
def watched(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A run of two epochs, its folder for TensorBoard, and what was shown on stderr."""
    pytest.importorskip("tensorboard")
    out, board = (tmp_path_factory.mktemp("watched") / name for name in ("run", "board"))
    settings = out.parent / "small.toml"
    rows = ('{kind="conv", channels=8, kernel=8, stride=8}', '{kind="head", channels=1, kernel=12, bias=true}')
    settings.write_text(f'[train]\nepochs = 2\n[network]\nname = "small"\nrows = [{", ".join(rows)}]\n')
    arguments = ["train", "--data", str(tiny_data), "--out", str(out), "--config", str(settings), "-v"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the frameworks
        done = CliRunner().invoke(main, [*arguments, "--tensorboard", str(board)])
    assert done.exit_code == 0, done.output
    return out, board, done.stderr


def test_the_history_contains_loss_auc_speed_and_memory_of_each_epoch(watched) -> None:
    rows = json.loads((watched[0] / "history.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert row.keys() == {"epoch", *ROW}
        assert 0 < row["valid_loss"] < 2
        assert row["patches_per_s"] > 1
        assert 1e8 < row["peak_rss_bytes"] < 1e11
    assert (watched[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_log_contains_device_placement_and_epochs_with_the_time(watched) -> None:
    lines = (watched[0] / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S", line) for line in lines)
    assert [line.split(" ", 1)[1][:19] for line in lines] == [
        *("Keras 3.15.1 on ten", "training patches ar", "epoch 1 of 2: first", "epoch 1 of 2: loss "),
        *("epoch 2 of 2: first", "epoch 2 of 2: loss "),
    ]
    assert "epoch 2 of 2: loss" in watched[2]  # -v
    assert watched[2].count("training patches are stored") == 1


def test_tensorboard_reads_the_figures_of_every_epoch(watched) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(watched[1] / "run"))
    read.Reload()
    rows = json.loads((watched[0] / "history.json").read_text())
    steps = {name: [tensor.step for tensor in read.Tensors(name)] for name in read.Tags()["tensors"]}
    assert steps == {name: [1, 2] for name in ROW}
    values = [tensor.tensor_proto.float_val[0] for tensor in read.Tensors("valid_auc")]
    assert values == pytest.approx([row["valid_auc"] for row in rows])


def test_mlflow_contains_settings_and_figures_of_every_epoch(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    callbacks.to_mlflow(uri, "run", {"epochs": 2})(TRAINED)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("histoedge").experiment_id])
    assert run.data.params == {"epochs": "2"}
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [
        *((1, 0.5), (2, 0.25)),
    ]


def test_a_missing_package_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, option in (("tensorboard.summary", "tensorboard"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, module, None)
        asked = {"tensorboard": None, "mlflow": None, option: tmp_path if option == "tensorboard" else str(tmp_path)}
        with pytest.raises(RuntimeUnavailable, match=rf"--{option}: .* pip install 'histoedge\[{option}\]'"):
            callbacks.make_callbacks("run", TrainConfig(), **asked)


def test_a_stopped_training_is_recorded_in_its_log(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), callbacks.log_to(tmp_path / "train.log"):
        raise KeyboardInterrupt
    assert (tmp_path / "train.log").read_text().endswith("stopped: KeyboardInterrupt\n")
