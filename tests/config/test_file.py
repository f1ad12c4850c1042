from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import histoedge
from histoedge import pipeline
from histoedge.config import (
    BenchPlan,
    CompressConfig,
    TrainConfig,
    compress_settings,
    resolve,
)
from histoedge.edge.errors import ConfigError
from histoedge.lab import checkpoint, compress


def test_options_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[train]\nepochs = 3\nbatch = 64\nlearning_rate = 1\n")
    settings = resolve(TrainConfig, file=file, options={"epochs": 5, "seed": None})
    assert (settings.epochs, settings.batch, settings.seed, settings.learning_rate) == (5, 64, 0, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3\n", "did you mean epochs"),
        ("[trian]\n", "did you mean train"),
        ("[train]\nepochs = 'x'\n", "epochs must be of type int"),
        ("[train]\nepochs = true\n", "epochs must be of type int"),
        ("[train]\nepochs = 0\n", "epochs must be at least 1, got 0"),
        ("train = 1\n", "must be a table"),
        ("[train\n", "not a readable TOML file"),
    ],
)
def test_a_wrong_settings_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(TrainConfig, file=file, options={})
    assert "\n" not in str(caught.value).strip()


def test_the_network_in_the_file_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[network]\nname = "mine"\nrows = []\n')
    assert resolve(TrainConfig, file=file, options={"network": None}).network == "mine"
    assert resolve(TrainConfig, file=file, options={"network": "mine"}).network == "mine"
    with pytest.raises(ConfigError, match="defines 'mine', but 'edge' is requested"):
        resolve(TrainConfig, file=file, options={"network": "edge"})
    file.write_text('[train]\nnetwork = "edge"\n[network]\nname = "mine"\nrows = []\n')
    with pytest.raises(ConfigError, match="defines 'mine', but 'edge' is requested"):
        resolve(TrainConfig, file=file, options={})
    assert resolve(BenchPlan, file=file, options={}) == BenchPlan()


SEEDS = [
    ("", None, (0, 0)),
    ("[train]\nseed = 3\n", None, (3, 3)),
    ("[compress]\nseed = 7\n", None, (0, 7)),
    ("[train]\nseed = 3\n[compress]\nseed = 0\n", None, (3, 0)),
    ("[train]\nseed = 3\n", 5, (5, 5)),
    ("[train]\nseed = 3\n[compress]\nseed = 7\n", 5, (5, 7)),
]
"""Settings file, option ``--seed``, and the resulting seeds of the training and of the compression."""


@pytest.mark.parametrize(("text", "option", "seeds"), SEEDS)
def test_run_and_compress_use_the_same_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, option: int | None, seeds: tuple[int, int]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    calls: list[CompressConfig] = []

    def run(*_: Any, train_config: TrainConfig, compress_config: CompressConfig, **__: Any) -> None:
        assert train_config.seed == seeds[0]
        calls.append(compress_config)

    monkeypatch.setattr(pipeline, "run", run)
    histoedge.run("synthetic", out=tmp_path / "run", seed=option, config=file)
    source = SimpleNamespace(inputs={"train": {"seed": seeds[0]}})  # the run, trained with its seed
    monkeypatch.setattr(checkpoint, "read", lambda _: source)
    monkeypatch.setattr(histoedge.data, "load", lambda *_, **__: {})
    monkeypatch.setattr(compress, "compress_all", lambda *positional, **_: calls.append(positional[3]))
    histoedge.compress(tmp_path / "run", data="synthetic", config=file)
    assert [call.seed for call in calls] == [seeds[1], seeds[1]]
    assert calls[0] == calls[1]


def test_without_a_settings_file_compression_uses_the_seed_of_the_training() -> None:
    assert compress_settings(None, train_seed=4) == CompressConfig(seed=4)
