from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from histoedge import edge


def test_the_logit_is_the_mean_red_value(mean_red: Path) -> None:
    patches = np.zeros((3, 96, 96, 3), np.uint8)
    patches[1, :, :, 0], patches[2, :, :, 2] = 255, 255
    logits = edge.load(mean_red).predict(patches)
    np.testing.assert_allclose(logits.reshape(-1), [0, 1, 0], atol=1e-6)


def test_logits_probabilities_and_verdicts_follow_from_each_other(mean_red_calibrated: Path) -> None:
    runner = edge.load(mean_red_calibrated)
    patches = np.zeros((2, 96, 96, 3), np.uint8)
    patches[1, ..., 0] = 255
    probability = runner.probability(patches)
    np.testing.assert_allclose(probability.reshape(-1), [0.5, 1 / (1 + np.exp(-1 / runner.manifest.temperature))])
    assert runner.decide(patches).reshape(-1).tolist() == [False, True]  # at 0.6
    patches[1, ..., 0] = 100  # a probability of 0.69
    assert runner.decide(patches).reshape(-1).tolist() == [False, True]
    assert runner.decide(patches, at="specificity 0.95").reshape(-1).tolist() == [False, False]  # at 0.7
    assert runner.decide(patches).shape == runner.predict(patches).shape == (2, 1, 1, 1)


def test_a_map_contains_the_logit_of_each_whole_patch(mean_red: Path) -> None:
    field = np.random.default_rng(0).integers(0, 256, (200, 139, 3), np.uint8)
    runner = edge.load(mean_red)
    logits = runner.map(field)
    assert (logits.shape, logits.dtype) == ((4, 2), np.float32)
    cut = np.stack([field[top : top + 96, left : left + 96] for top in (0, 32, 64, 96) for left in (0, 32)])
    np.testing.assert_allclose(logits.reshape(-1), runner.predict(cut).reshape(-1), atol=1e-6)


def test_many_threads_get_the_same_logits_as_one(mean_red: Path) -> None:
    runner = edge.load(mean_red)
    patches = np.random.default_rng(0).integers(0, 256, (64, 96, 96, 3), np.uint8)
    alone = runner.predict(patches)
    with ThreadPoolExecutor(8) as pool:
        logits = list(pool.map(lambda at: runner.predict(patches[at % 64 : at % 64 + 1]), range(512)))
    np.testing.assert_array_equal(np.concatenate(logits).reshape(8, 64), np.tile(alone.reshape(1, 64), (8, 1)))
