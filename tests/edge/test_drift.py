import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from histoedge.data import perturb, synthetic
from histoedge.edge import drift
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, ModelError

STAINS = np.stack([drift.HAEMATOXYLIN, drift.EOSIN])


@pytest.mark.parametrize("amounts", [(0.0, 0.0), (0.8, 0.0), (0.0, 0.7), (0.5, 0.3)])
def test_stains_returns_the_mixed_densities(amounts: tuple[float, float]) -> None:
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    colour = 256 * np.exp(-np.array(amounts) @ unit) - 1
    pixels = np.broadcast_to(np.rint(colour).astype(np.uint8), (2, 96, 96, 3))
    densities = drift.stains(pixels)
    assert densities.shape == (2, 2)
    np.testing.assert_allclose(densities, [amounts, amounts], atol=0.01)  # pixels are rounded to 8 bits


def test_statistics_of_plain_patches_have_the_computed_values() -> None:
    patches = np.zeros((2, 96, 96, 3), np.uint8)
    patches[0] = 30, 60, 90
    patches[1, :, ::2] = 100  # alternating columns, grey and black
    columns = drift.statistics(patches)
    assert tuple(columns) == drift.NAMES
    np.testing.assert_allclose([columns[name][0] for name in ("red", "green", "blue")], [30, 60, 90], rtol=1e-5)
    np.testing.assert_allclose(columns["red"][1], 50, rtol=1e-5)
    np.testing.assert_allclose(columns["contrast"], [0, 50], atol=1e-3)
    np.testing.assert_allclose(columns["sharpness"], [0, 100], atol=1e-3)
    np.testing.assert_allclose(columns["focus"], [0, 1000], rtol=1e-5)  # 100 / 0.1: columns two apart are equal
    np.testing.assert_allclose(columns["brightest"], [60, 100])
    np.testing.assert_allclose(columns["white"], [90, 100])
    np.testing.assert_allclose(columns["order"], [-60 * drift.ORDER[0], 0], atol=1e-3)
    assert all(values.shape == (2,) and values.dtype == np.float64 for values in columns.values())


def test_order_changes_sign_when_red_and_blue_are_swapped() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    swapped = drift.statistics(patches[..., ::-1])["order"]
    np.testing.assert_allclose(swapped, -drift.statistics(patches)["order"], rtol=1e-3)
    assert np.abs(swapped).min() > 0.001


def test_a_ramp_is_smooth_and_noise_is_not() -> None:
    patches = np.zeros((2, 96, 96, 3), np.uint8)
    patches[0] = (2 * np.arange(96))[:, None]
    patches[1] = np.random.default_rng(0).integers(0, 256, (96, 96, 1), np.uint8)
    np.testing.assert_allclose(drift.statistics(patches)["focus"], [0.5, 1], atol=0.03)


def test_patches_of_the_manifests_size_are_examined(mean_red_of: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    trained = random.integers(60, 200, (60, 64, 64, 3), np.uint8)
    trained = (trained + np.linspace(0, 50, 64)[:, None]).astype(np.uint8)  # some contrast
    statistics = drift.describe(trained)
    manifest = manifests.read(mean_red_of(64, 16, input_statistics=statistics, um_per_px=0.5))
    watch = drift.Watch(manifest, step=1)
    watch.add(trained.reshape(6, 10, 64, 64, 3).swapaxes(2, 1)[:1].reshape(1, 64 * 1, 640, 3))
    assert watch.report().n_patches == 10
    watch.add(trained)
    assert (watch.report().n_patches, watch.report().drifted) == (70, False)
    blurred = drift.Watch(manifest, step=1)
    smooth = np.broadcast_to((2 * np.arange(64))[:, None], (60, 64, 64, 3))[:, :, :, [0, 0, 0]].astype(np.uint8)
    blurred.add(np.ascontiguousarray(smooth))
    assert "finer than 0.5 um per px" in blurred.report().sentence
    with pytest.raises(DataError, match="64 x 64 px or more"):
        watch.add(np.zeros((1, 63, 64, 3), np.uint8))


def test_a_description_contains_the_quantiles() -> None:
    patches = np.zeros((101, 96, 96, 3), np.uint8)
    patches[..., 0] = np.arange(101)[:, None, None]
    red = drift.describe(patches)["red"]
    assert (red["mean"], red["p01"], red["p50"], red["p95"]) == (50, 1, 50, 95)


@pytest.fixture
def plain(write_onnx: Callable[..., Path], mean_red: Path) -> manifests.Manifest:
    """The manifest of a model trained on plain grey patches of 50 to 150."""
    patches = np.zeros((101, 96, 96, 3), np.uint8)
    patches[:] = np.arange(50, 151)[:, None, None, None]
    return dataclasses.replace(manifests.read(mean_red), input_statistics=drift.describe(patches))


def grey(count: int, value: int) -> np.ndarray:
    return np.full((count, 96, 96, 3), value, np.uint8)


def statistic(report: drift.DriftReport, name: str) -> drift.StatisticDrift:
    (row,) = (row for row in report.statistics if row.name == name)
    return row


def test_more_than_half_beyond_a_bound_is_outside_and_half_is_not(plain: manifests.Manifest) -> None:
    watch = drift.Watch(plain, step=1)
    watch.add(grey(50, 100))
    watch.add(grey(50, 200))
    red = statistic(watch.report(), "red")
    assert (red.trained_p01, red.trained_mean, red.trained_p99) == (51, 100, 149)
    assert (red.share_below, red.share_above, red.outside) == (0, 0.5, False)
    assert red.mean == pytest.approx(150)
    assert not watch.report().drifted
    watch.add(grey(1, 200))
    assert statistic(watch.report(), "red").side == "above"
    assert watch.report().drifted
    assert "too bright: exposure or white balance" in watch.report().sentence
    assert "above 149 in 50% of 101 patches" in watch.report().sentence
    assert "also outside: red above, green above" in watch.report().sentence


def test_too_few_patches_give_no_verdict(plain: manifests.Manifest) -> None:
    watch = drift.Watch(plain, step=2)
    assert (
        watch.report().sentence
        == "too few patches: 0 examined, 0 excluded as glass; at least 50 examined patches are needed"
    )
    watch.add(grey(98, 200))
    assert (watch.report().n_patches, watch.report().n_looked) == (98, 49)
    assert not watch.report().drifted
    assert watch.report().sentence.startswith("too few patches: 49 examined, 0 excluded as glass")
    watch.add(grey(1, 200))
    assert watch.report().drifted


def test_the_same_patches_are_examined_for_any_batch_sizes(plain: manifests.Manifest) -> None:
    values = np.random.default_rng(0).integers(0, 256, 200)
    stream = np.concatenate([grey(1, value) for value in values])
    whole, cut = drift.Watch(plain, step=7), drift.Watch(plain, step=7)
    whole.add(stream)
    for part in np.split(stream, [1, 2, 9, 10, 50, 64]):
        cut.add(part)
    assert [row.share_above for row in cut.report().statistics] == [
        row.share_above for row in whole.report().statistics
    ]
    np.testing.assert_allclose(*([row.mean for row in watch.report().statistics] for watch in (whole, cut)), rtol=1e-6)
    assert whole.report().n_looked == len(values[::7])
    assert statistic(whole.report(), "red").mean == pytest.approx(values[::7].mean(), rel=1e-5)


def test_a_field_is_cut_into_whole_patches(plain: manifests.Manifest) -> None:
    field = np.zeros((1, 200, 300, 3), np.uint8)
    for at in range(6):
        row, column = divmod(at, 3)
        field[0, 96 * row : 96 * row + 96, 96 * column : 96 * column + 96] = 10 * at
    watch = drift.Watch(plain, step=2)
    watch.add(field)
    assert (watch.report().n_patches, watch.report().n_looked) == (6, 3)
    assert statistic(watch.report(), "green").mean == pytest.approx((0 + 20 + 40) / 3)


def test_invalid_input_of_a_watch_is_refused(plain: manifests.Manifest, mean_red: Path) -> None:
    with pytest.raises(ModelError, match="input_statistics lack red, green, .*; export the model again"):
        drift.Watch(manifests.read(mean_red))
    with pytest.raises(ConfigError, match="step is 0; expected at least 1"):
        drift.Watch(plain, step=0)
    with pytest.raises(DataError, match="do not divide"):
        drift.Watch(plain).add(np.zeros((1, 96, 96, 3), np.float32))


@pytest.fixture(scope="module")
def training() -> dict[str, dict[str, float]]:
    return json.loads(json.dumps(drift.describe(synthetic.generate("train", patches=1500, seed=0).patches[:])))


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    """150 patches of three other slides."""
    return np.asarray(synthetic.generate("valid", patches=150, seed=0).patches[:])


def watched(
    manifest: manifests.Manifest, training: dict[str, dict[str, float]], patches: np.ndarray
) -> drift.DriftReport:
    watch = drift.Watch(dataclasses.replace(manifest, input_statistics=training), step=2)
    watch.add(patches)
    return watch.report()


def test_patches_like_the_training_patches_are_not_drift(
    plain: manifests.Manifest, training: dict[str, dict[str, float]], stream: np.ndarray
) -> None:
    report = watched(plain, training, stream)
    assert not report.drifted
    assert report.sentence == "these patches look like the training data (75 examined)"


def test_glass_is_excluded(
    plain: manifests.Manifest, training: dict[str, dict[str, float]], stream: np.ndarray
) -> None:
    glass = np.full_like(stream, 250)
    report = watched(plain, training, np.concatenate([glass, stream, glass]))
    assert (report.n_patches, report.n_looked, report.n_glass) == (450, 75, 150)
    assert not report.drifted
    assert report.sentence == "these patches look like the training data (75 examined)"
    alone = watched(plain, training, glass)
    assert (
        alone.sentence == "too few patches: 0 examined, 75 excluded as glass; at least 50 examined patches are needed"
    )


FAULTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "BGR": (lambda patches: patches[..., ::-1], "channel order BGR"),
    "dark": (lambda patches: patches // 2, "too dark: exposure"),
    "blurred": (lambda patches: perturb.perturbed(patches, "blur_1_px"), "blurred: out of focus"),
    "lens cap": (lambda patches: np.zeros_like(patches), "hardly any contrast: no tissue, no light"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(
    plain: manifests.Manifest, training: dict[str, dict[str, float]], stream: np.ndarray, fault: str
) -> None:
    changed, words = FAULTS[fault]
    report = watched(plain, training, np.ascontiguousarray(changed(stream)))
    assert report.drifted
    assert words in report.sentence
    assert "\n" not in report.sentence


def test_the_benchmark_counts_the_streams_that_are_called_drift(
    plain: manifests.Manifest, script: Callable[[str], ModuleType]
) -> None:
    benchmark = script("drift_power")
    mixed = np.concatenate([grey(45, 100), grey(15, 30)])
    row = benchmark.drift_row("grey", [grey(60, 100), mixed, benchmark.scaled(mixed, 2.0, 2.0, 2.0)], plain)
    assert (row["patches"], row["streams"], row["called_drift"], row["largest_share"]) == ("grey", 3, 1, 0.75)
    assert row["said_of_the_first"] == "too bright: exposure or white balance"
    assert benchmark.drift_row("grey", [mixed], plain)["said_of_the_first"] == "none"
