import numpy as np
import pytest

from histoedge.edge import drift

STAINS = np.stack([drift.HAEMATOXYLIN, drift.EOSIN])


@pytest.mark.parametrize("amounts", [(0.0, 0.0), (0.8, 0.0), (0.0, 0.7), (0.5, 0.3)])
def test_stains_finds_the_densities_that_were_mixed(amounts: tuple[float, float]) -> None:
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    colour = 256 * np.exp(-np.array(amounts) @ unit) - 1
    pixels = np.broadcast_to(np.rint(colour).astype(np.uint8), (2, 96, 96, 3))
    found = drift.stains(pixels)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, [amounts, amounts], atol=0.01)  # pixels are rounded to 8 bits


def test_statistics_of_plain_patches_are_known() -> None:
    patches = np.zeros((2, 96, 96, 3), np.uint8)
    patches[0] = 30, 60, 90
    patches[1, :, ::2] = 100  # columns, black and grey in turn
    found = drift.statistics(patches)
    assert [found[name][0] for name in ("red", "green", "blue")] == [30, 60, 90]
    assert found["red"][1] == 50
    np.testing.assert_allclose(found["contrast"], [0, 50], atol=1e-3)
    np.testing.assert_allclose(found["sharpness"], [0, 50], atol=1e-3)  # 100 to the side, 0 downwards
    assert all(values.shape == (2,) and values.dtype == np.float64 for values in found.values())


def test_a_description_holds_the_quantiles() -> None:
    patches = np.zeros((101, 96, 96, 3), np.uint8)
    patches[..., 0] = np.arange(101)[:, None, None]
    red = drift.describe(patches)["red"]
    assert (red["mean"], red["p01"], red["p50"], red["p95"]) == (50, 1, 50, 95)
