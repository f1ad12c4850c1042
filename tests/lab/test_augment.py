from typing import Any

import numpy as np
import pytest

from histoedge.config import TrainConfig
from histoedge.data import synthetic
from histoedge.lab import augment, backend

pytestmark = pytest.mark.lab

OFF = {"flips": False, "shift_px": 0, "focus": 0.0, "stain_jitter": 0.0}


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return synthetic.golden(16)[0]


def augmented(patches: np.ndarray, *, epoch: int = 0, **settings: Any) -> np.ndarray:
    """Pixels back in 0..255, float32."""
    layer = augment.layer(backend.keras(), TrainConfig(**{**OFF, **settings}))
    layer.reseed(epoch)
    return np.asarray(layer(patches, training=True)) * 255


def test_nothing_is_augmented_outside_training(patches: np.ndarray) -> None:
    layer = augment.layer(backend.keras(), TrainConfig())
    np.testing.assert_allclose(np.asarray(layer(patches)) * 255, patches, atol=1e-3)


def test_all_off_changes_nothing(patches: np.ndarray) -> None:
    np.testing.assert_allclose(augmented(patches), patches, atol=1e-3)


def test_the_same_seed_and_epoch_draw_the_same(patches: np.ndarray) -> None:
    everything = {"flips": True, "shift_px": 6, "focus": 1.0, "stain_jitter": 0.2}
    first, again, later = (augmented(patches, epoch=epoch, **everything) for epoch in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - later).max() > 10


def test_flips_return_one_of_the_eight_orientations(patches: np.ndarray) -> None:
    seen = set()
    for turned, patch in zip(augmented(patches, flips=True), patches, strict=True):
        ways = [np.rot90(patch, k) for k in range(4)] + [np.rot90(patch, k)[:, ::-1] for k in range(4)]
        fitting = [number for number, way in enumerate(ways) if np.abs(turned - way).max() < 0.01]
        assert len(fitting) == 1
        seen.update(fitting)
    assert len(seen) > 3


def test_a_shift_moves_the_whole_batch(patches: np.ndarray) -> None:
    shifted = augmented(patches, shift_px=6, epoch=1)
    ways = [(y, x) for y in range(-6, 7) for x in range(-6, 7)]
    inside = slice(12, 84)
    fitting = [
        (y, x)
        for y, x in ways
        if np.abs(shifted[:, inside, inside] - patches[:, 12 + y : 84 + y, 12 + x : 84 + x]).max() < 0.01
    ]
    assert len(fitting) == 1
    assert fitting[0] != (0, 0)


def test_focus_keeps_the_brightness_and_changes_the_detail(patches: np.ndarray) -> None:
    refocused = augmented(patches, focus=0.5)
    detail = [np.abs(np.diff(one.astype(np.float32), axis=1)).mean(axis=(1, 2, 3)) for one in (refocused, patches)]
    ratio = detail[0] / detail[1]
    assert ratio.min() < 0.95
    assert ratio.max() > 1.05
    np.testing.assert_allclose(refocused.mean((1, 2, 3)), patches.mean((1, 2, 3)), atol=2)


def test_stain_jitter_changes_colour_and_keeps_white_and_structure() -> None:
    gradient = np.repeat(np.linspace(60, 255, 96).astype(np.uint8)[None, :, None, None], 96, axis=2).repeat(3, axis=3)
    stained = augmented(gradient.repeat(8, axis=0), stain_jitter=0.2)
    assert (np.diff(stained[:, :, 0], axis=1) >= 0).all()  # darker stays darker
    assert stained[:, 10].std(axis=0).max() > 3
