"""Perturbations against pixels known by hand."""

import numpy as np
import pytest

from histoedge.data import perturb, synthetic
from histoedge.data.perturb import PERTURBATIONS, perturbed
from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

NAMES = tuple(PERTURBATIONS)
TISSUE = synthetic.golden(4)[0]


def plain(*colour: int) -> np.ndarray:
    return np.full((1, PATCH_PX, PATCH_PX, 3), colour, np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_changes_each_patch_by_itself_and_the_same_every_time(name: str) -> None:
    before = TISSUE.copy()
    found = perturbed(TISSUE, name)
    assert found.dtype == np.uint8
    assert found.shape == TISSUE.shape
    assert (found != TISSUE).any(axis=(1, 2, 3)).all()
    assert np.array_equal(TISSUE, before)
    one_by_one = np.concatenate([perturbed(patch[None], name) for patch in TISSUE])
    assert np.array_equal(found, one_by_one)
    assert perturbed(TISSUE[:0], name).shape == (0, PATCH_PX, PATCH_PX, 3)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("brightness")])
def test_white_stays_white(name: str) -> None:
    assert np.array_equal(perturbed(plain(255, 255, 255), name), plain(255, 255, 255))


@pytest.mark.parametrize(
    ("name", "gains"), [("stain_towards_haematoxylin", (1.2, 0.8)), ("stain_towards_eosin", (0.8, 1.2))]
)
def test_amounts_of_stain_are_multiplied(name: str, gains: tuple[float, float]) -> None:
    for amounts in ((0.8, 0.0), (0.0, 0.6), (0.5, 0.4)):
        before, after = (
            256 * np.exp(-(h * perturb.STAINS[0] + e * perturb.STAINS[1])) - 1
            for h, e in (amounts, np.multiply(amounts, gains))
        )
        found = perturbed(np.broadcast_to(np.rint(before).astype(np.uint8), (1, PATCH_PX, PATCH_PX, 3)), name)
        assert np.abs(found[0, 0, 0] - after).max() <= 2  # half a level before, enlarged, and half a level after


def test_light_is_multiplied_and_saturates() -> None:
    patches = plain(200, 20, 250)
    assert perturbed(patches, "brightness_minus_15_percent")[0, 5, 5].tolist() == [170, 17, 212]
    assert perturbed(patches, "brightness_plus_15_percent")[0, 5, 5].tolist() == [230, 23, 255]


def test_a_blurred_point_has_the_weights_of_a_gaussian() -> None:
    patches = plain(0, 0, 0)
    patches[0, 48, 48] = 255
    for name, sigma in (("blur_0.6_px", 0.6), ("blur_1_px", 1.0)):
        weights = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
        expected = 255 * (weights[4] / weights.sum()) ** 2
        found = perturbed(patches, name)
        assert found[0, 48, 48].tolist() == pytest.approx([expected] * 3, abs=0.6)
        assert found[0, 48, 47].tolist() == found[0, 49, 48].tolist()
        assert found[0, 40:57, 40:57].sum() == found.sum()


def test_jpeg_loses_more_at_a_lower_quality_and_nothing_that_is_even() -> None:
    def lost(name: str) -> float:
        return float(np.abs(perturbed(TISSUE, name).astype(int) - TISSUE).mean())

    assert 0 < lost("jpeg_quality_80") < lost("jpeg_quality_40") < 20
    assert np.array_equal(perturbed(plain(128, 128, 128), "jpeg_quality_40"), plain(128, 128, 128))


@pytest.mark.parametrize(("name", "factor"), [("scale_plus_10_percent", 1.1), ("scale_minus_10_percent", 0.9)])
def test_a_ramp_keeps_its_centre_and_changes_its_slope(name: str, factor: float) -> None:
    columns = np.arange(PATCH_PX)
    patches = np.broadcast_to((20 + 2 * columns).astype(np.uint8)[:, None], (1, PATCH_PX, PATCH_PX, 3))
    found = perturbed(patches, name)[0, 48, :, 0].astype(float)
    inner = slice(12, 84)  # the mirrored border bends the ramp of a smaller picture
    middle = (PATCH_PX - 1) / 2
    assert np.abs(found - (20 + 2 * (middle + (columns - middle) / factor)))[inner].max() <= 1


@pytest.mark.parametrize("name", ["scale_plus_10_percent", "scale_minus_10_percent", "blur_1_px"])
def test_a_mirrored_patch_gives_the_mirrored_answer(name: str) -> None:
    for axis in (1, 2):
        difference = perturbed(np.flip(TISSUE, axis), name).astype(int) - np.flip(perturbed(TISSUE, name), axis)
        assert np.abs(difference).max() <= 1  # rounding of .5


def test_every_step_says_its_size_and_source() -> None:
    assert all(step.size and step.source for step in PERTURBATIONS.values())


def test_what_cannot_be_perturbed_says_why() -> None:
    with pytest.raises(DataError, match="no perturbation is called 'sepia'; there are: stain_towards_haematoxylin, "):
        perturbed(TISSUE, "sepia")
    with pytest.raises(DataError, match=r"patches are float64 \(4, 96, 96, 3\); a perturbation expects uint8"):
        perturbed(TISSUE.astype(float), "blur_1_px")
    with pytest.raises(DataError, match=r"uint8 \(96, 96, 3\)"):
        perturbed(TISSUE[0], "blur_1_px")
