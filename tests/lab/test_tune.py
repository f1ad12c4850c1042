"""A real, small search with Optuna: its files, its resuming, its refusals."""

import json
import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import histoedge
from histoedge import data
from histoedge.cli import main
from histoedge.config import BenchPlan, CompressConfig, TrainConfig, resolve
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import catalogue, checkpoint, compress, space, study, tune

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.lab

DIRECTIONS = ["maximize", "minimize"]


def search(source: object, out: Path, settings: Path, *options: object) -> Any:
    arguments = ["tune", "--data", source, "--out", out, "--config", settings, "--network", "nano", *options]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(main, [str(argument) for argument in arguments])


def trials_of(out: Path) -> list[Any]:
    backend = optuna.storages.journal.JournalFileBackend(str(out / study.JOURNAL))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="histoedge", storage=storage).trials  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def searched(tiny_data: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tune") / "nano"
    result = search(tiny_data, out, settings, "--trials", 2, "--epochs", 1, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "front.json").read_text())
    return out


def test_patches_of_another_size_are_refused_before_the_search(tmp_path: Path) -> None:
    splits = {"train": SimpleNamespace(patch_px=64)}
    with pytest.raises(ConfigError, match="for patches of 96 px, the data has 64 px"):
        tune.tune(splits, TrainConfig(), tmp_path / "out", trials=1, compress_config=CompressConfig(), plan=BenchPlan())
    assert not (tmp_path / "out").exists()


def test_a_search_leaves_its_front_and_nothing_else(searched: Path) -> None:
    assert {path.name for path in searched.iterdir()} == {"study.journal", "best.toml", "front.json", "front.png"}
    document = json.loads((searched / "front.json").read_text())
    aucs = [point["valid_auc"] for point in document["front"]]
    assert aucs == sorted(aucs)  # along the front, slower is better
    assert document["best"] == document["front"][-1]["trial"]
    for point in document["front"]:
        assert point["mmac"] <= 3
        assert point["int8_kb"] <= 42  # the size is estimated before it is trained
        assert point["p50_ratio"] > 0


def test_networks_over_the_budget_are_not_trained_and_do_not_count(searched: Path) -> None:
    trials = trials_of(searched)
    over = [trial for trial in trials if "over_budget" in trial.user_attrs]
    assert over
    assert all(trial.state.name == "PRUNED" and "rung" not in trial.user_attrs for trial in over)
    assert len(trials) - len(over) == 2


def test_the_chosen_settings_train(searched: Path, tiny_data: Path, tmp_path: Path) -> None:
    best, out = searched / "best.toml", tmp_path / "run"
    document = json.loads((searched / "front.json").read_text())
    point = next(point for point in document["front"] if point["trial"] == document["best"])
    assert resolve(TrainConfig, file=best, options={}) == TrainConfig(**point["train"])
    result = CliRunner().invoke(main, ["train", "--data", str(tiny_data), "--out", str(out), "--config", str(best)])
    assert result.exit_code == 0, result.output
    trained = checkpoint.read(checkpoint.path_of(out, "fp32")).network
    assert json.loads(json.dumps(trained.as_json())) == point["network"]


def test_a_search_goes_on_to_more_trials_and_does_none_again(
    searched: Path, tiny_data: Path, settings: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(searched, tmp_path / "copy")
    before = (out / study.JOURNAL).read_bytes()
    assert search(tiny_data, out, settings, "--trials", 2, "--epochs", 1).exit_code == 0
    assert len((out / study.JOURNAL).read_bytes()) - len(before) < 500  # opened, nothing tried
    result = search(tiny_data, out, settings, "--trials", 3, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "best     trial" in result.stdout
    first, then = trials_of(searched), trials_of(out)
    assert [trial.values for trial in then[: len(first)]] == [trial.values for trial in first]
    assert len([trial for trial in then if "over_budget" not in trial.user_attrs]) == 3


def test_the_function_is_the_command(searched: Path, tiny_data: Path, settings: Path, tmp_path: Path) -> None:
    out = shutil.copytree(searched, tmp_path / "copy")
    front, best = histoedge.tune(tiny_data, out=out, trials=2, epochs=1, network="nano", config=settings)
    document = json.loads((searched / "front.json").read_text())
    assert [point.trial for point in front] == [point["trial"] for point in document["front"]]
    assert best.trial == document["best"]


def test_a_stopped_search_keeps_its_finished_trials(tiny_data: Path, tmp_path: Path) -> None:
    base = space.base_settings(None, family=None, epochs=1, seed=0)
    options = {"compress_config": CompressConfig(calibration_patches=64), "plan": BenchPlan(rounds=2, runs_per_round=3)}
    splits = data.load(str(tiny_data), splits=("train", "valid"))

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if what == "tune, trials" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune.tune(splits, base, tmp_path / "out", trials=2, patches=64, progress=stop, **options)
    assert [trial.state.name for trial in trials_of(tmp_path / "out")] == ["COMPLETE"]
    _, best = tune.tune(splits, base, tmp_path / "out", trials=1, patches=64, **options)
    assert best.trial == 0


def test_a_trial_with_a_dead_layer_is_given_up_and_counts(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path, *rest: Any) -> Any:
        if folder.name.startswith(".trial"):
            raise ModelError("layer conv2 is dead")
        return compressed(folder, *rest)

    compressed = compress.compress
    monkeypatch.setattr(compress, "compress", broken)
    splits, notes = data.load(str(tiny_data), splits=("train", "valid")), []
    options = {"compress_config": CompressConfig(calibration_patches=64), "plan": BenchPlan(rounds=1)}
    base = space.base_settings(None, family=None, epochs=1, seed=0)
    with pytest.raises(ModelError, match="none of 1 trials was completed"):
        tune.tune(
            splits, base, tmp_path, trials=1, patches=64, progress=lambda *event: notes.append(event[-1]), **options
        )
    assert notes[-1] == "trial 0: pruned: layer conv2 is dead"
    assert [path.name for path in tmp_path.iterdir()] == [study.JOURNAL]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", 3), "contains another study: train.epochs is 1 there and 3 now"),
        (("--epochs", 1, "--seed", 5), "contains another study: train.seed is 0 there and 5 now"),
        (("--epochs", 1, "--patches", 100), "contains another study: data.train is '"),
        (("--epochs", 1, "--network", "edge"), "train.network is 'nano' there and 'edge' now"),
        (("--epochs", 1, "--network", "nao"), "unknown network family 'nao'; did you mean nano?"),
    ],
)
def test_another_study_is_refused_in_one_line(
    searched: Path, tiny_data: Path, settings: Path, options: tuple[object, ...], message: str
) -> None:
    before = (searched / study.JOURNAL).read_bytes()
    result = search(tiny_data, searched, settings, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert len((searched / study.JOURNAL).read_bytes()) - len(before) < 500


def test_another_search_space_is_refused(tmp_path: Path) -> None:
    study.open_study(tmp_path, {"search": {"space": {"batch": (32, 64)}}})
    study.open_study(tmp_path, {"search": {"space": {"batch": (32, 64)}}})
    with pytest.raises(ConfigError, match="search.space differs; use the version of histoedge that started it"):
        study.open_study(tmp_path, {"search": {"space": {"batch": (32,)}}})


def test_a_folder_without_a_readable_study_is_one_line(tiny_data: Path, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "not a study of histoedge" in search(tiny_data, tmp_path, settings).stderr
    (tmp_path / study.JOURNAL).write_text("mine\ntoo\n")
    assert "not a readable journal of a study" in search(tiny_data, tmp_path, settings).stderr


def with_rungs(*rungs: tuple[float, int]) -> Any:
    held = optuna.create_study(directions=DIRECTIONS)
    for auc, macs in rungs:
        rung = {"epoch": 2, "auc": auc, "macs": macs}
        held.add_trial(optuna.trial.create_trial(values=[auc, 1.0], user_attrs={"rung": rung}))
    return held


def at_rung(held: Any, auc: float) -> None:
    edge = catalogue.get_network("edge")
    rung = study.MedianPruner(held.ask(), TrainConfig(epochs=6), edge)
    for epoch in (1, 2, 3):
        rung(SimpleNamespace(history=(None,) * epoch, best_auc=auc))  # type: ignore[arg-type]


def test_a_trial_below_the_median_of_smaller_ones_is_given_up() -> None:
    held = with_rungs(*[(0.8, 1_000_000)] * 4)
    at_rung(held, 0.81)
    with pytest.raises(optuna.TrialPruned, match=r"valid AUC 0\.7900 after 2 epochs"):
        at_rung(held, 0.79)


def test_a_trial_is_not_judged_by_larger_networks_or_by_few() -> None:
    at_rung(with_rungs(*[(0.8, 1_000_000_000)] * 9), 0.5)
    at_rung(with_rungs(*[(0.8, 1_000_000)] * 3), 0.5)


def test_trials_of_processes_that_are_gone_are_failed_and_cleared(tmp_path: Path) -> None:
    held = optuna.create_study(directions=DIRECTIONS)
    alive, killed = held.ask(), held.ask()
    alive.set_user_attr("process", study.process_identity(os.getpid()))
    killed.set_user_attr("process", (os.getpid(), 1.0))  # its number is in use again
    study.trial_folder(tmp_path, killed.number).mkdir()
    study.fail_dead_trials(held, tmp_path)
    assert [trial.state.name for trial in held.trials] == ["RUNNING", "FAIL"]
    assert list(tmp_path.iterdir()) == []
