"""Recipes on a network with branches: their constraints hold in the weights and in both formats."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from branched_networks import NETWORKS, conv, head

from histoedge import data
from histoedge.config import CompressConfig, TrainConfig, recipes
from histoedge.edge.errors import ModelError
from histoedge.lab import checkpoint, compress, constraints, export, readback, train, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row

pytestmark = pytest.mark.lab

CONFIG = CompressConfig(prune_steps=4, slim_epochs=1, quantise_steps=0, batch=64, calibration_patches=64)
RECIPES = recipes(("prune50_int8", "2of4_int8", "slim50_int8", "cluster16", "cluster16_int8"))
BRANCHED = Network(
    "branched",
    (
        conv("stem", 16, kernel=8, stride=8),
        Row(kind="depthwise", name="spread", kernel=5, activation="relu6"),
        conv("narrow", 16, activation="none"),
        conv("wide", 24, kernel=3, padding="same", activation="relu6"),
        conv("back", 16, activation="none"),
        Row(kind="add", name="sum", inputs=("narrow", "back")),
        Row(kind="activation", name="bent", activation="hard_swish"),
        Row(kind="concat", name="both", inputs=("bent", "wide")),
        Row(kind="avgpool", kernel=8),
        head(),
    ),
)


def splits(tiny_data: Path) -> dict[str, Any]:
    return data.load(str(tiny_data), splits=("train", "valid"))


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch and its recipes in few steps."""
    out = tmp_path_factory.mktemp("run") / "branched"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantised clusters are trained, the others only calibrated
        train.train(splits(tiny_data), TrainConfig(epochs=1, batch=64), out, network=BRANCHED)
        compress.compress_all(out, RECIPES[:-1], splits(tiny_data), CONFIG)
        compress.compress(out, RECIPES[-1], splits(tiny_data), dataclasses.replace(CONFIG, quantise_steps=2))
    return out


@pytest.mark.parametrize("recipe", [*RECIPES[:3], RECIPES[4]], ids=lambda recipe: recipe.name)
def test_files_of_both_formats_satisfy_the_constraint(run: Path, recipe: Any) -> None:
    saved = checkpoint.read(checkpoint.path_of(run, recipe.name))
    for model in [exported.model for exported in export.export(run, recipe)]:
        kernels = readback.read_kernels(model.read_bytes(), model.suffix.removeprefix("."), saved.network)
        constraints.check_kernels(recipe, saved.network, kernels, where=model.name)
        assert recipe.scheme == "cluster16" or np.mean(kernels["spread"] == 0) < 0.3  # depthwise, never pruned


def test_slimming_starts_from_the_source_and_keeps_adds_equal(run: Path) -> None:
    slimmed = checkpoint.read(checkpoint.path_of(run, "slim50")).network
    channels = {node.name: node.channels for node in slimmed.nodes}
    assert channels["narrow"] == channels["back"] == channels["sum"] == 8
    assert (channels["stem"], channels["wide"], channels["both"]) == (8, 16, 24)


def test_a_network_without_batch_norm_is_slimmed_without(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    source = checkpoint.read(checkpoint.path_of(run, "fp32"))
    rows = tuple(dataclasses.replace(row, norm=False) for row in BRANCHED.rows)
    imported = dataclasses.replace(source, architecture=dataclasses.replace(BRANCHED, rows=rows), arrays=source.folded)
    checkpoint.write(checkpoint.path_of(tmp_path, "fp32"), imported)
    (saved,) = compress.compress_all(tmp_path, recipes(("slim50",)), splits(tiny_data), CONFIG)[-1:]
    assert set(saved.arrays) == {f"{name}/{kind}" for name in saved.network.convolutions for kind in ("kernel", "bias")}
    assert not any(row.norm for row in saved.network.rows if row.kind in ("conv", "depthwise"))
    start = weights.fold(saved.network, saved.arrays)
    assert all(np.isfinite(value).all() for value in start.values())


def test_a_recipe_that_the_network_cannot_have_is_refused_before_any_training(run: Path, tiny_data: Path) -> None:
    with pytest.raises(ModelError, match="network branched, layer both: slim10 removes none of 40 channels"):
        compress.compress_all(run, recipes(("prune90", "slim10")), splits(tiny_data), CONFIG)
    assert not checkpoint.path_of(run, "prune90").exists()


def test_a_whole_run_is_refused_before_its_training(
    tiny_data: Path, small_settings: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    result = invoke("run", "--data", tiny_data, "--out", out, "--config", small_settings, "--recipe", "slim50_int8")
    assert result.exit_code == 1
    assert "network small, layer stem: slim50 removes none of 8 channels" in result.stderr
    assert not (out / "fp32.weights.h5").exists()


@pytest.mark.parametrize(
    ("name", "pruned", "in_fours"),
    [
        ("residual", ("a", "b"), ("a", "b", "head")),
        ("mobile", ("wide", "narrow"), ("wide", "narrow", "head")),
        ("joined", ("a", "b"), ("a", "b", "head")),
    ],
)
def test_depthwise_layers_the_first_convolution_and_the_head_are_not_pruned(
    name: str, pruned: tuple[str, ...], in_fours: tuple[str, ...]
) -> None:
    assert NETWORKS[name].prunable == pruned
    assert NETWORKS[name].prunable_2of4 == in_fours


@pytest.mark.parametrize(("side", "most"), [(3, 9), (5, 16)])
def test_depthwise_kernels_are_clustered_by_channel(side: int, most: int) -> None:
    kernel = np.random.default_rng(0).normal(size=(side, side, 1, 8)).astype(np.float32)
    clustered = constraints.cluster_kernel(kernel)
    assert max(len(np.unique(channel)) for channel in clustered.reshape(-1, 8).T) == most
    assert side > 3 or np.array_equal(clustered, kernel)
