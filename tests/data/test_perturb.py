"""Perturbations against pixels computed by hand."""

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
def test_every_perturbation_is_deterministic_and_independent_per_patch(name: str) -> None:
    before = TISSUE.copy()
    changed = perturbed(TISSUE, name)
    assert changed.dtype == np.uint8
    assert changed.shape == TISSUE.shape
    assert (changed != TISSUE).any(axis=(1, 2, 3)).all()
    assert np.array_equal(TISSUE, before)
    one_by_one = np.concatenate([perturbed(patch[None], name) for patch in TISSUE])
    assert np.array_equal(changed, one_by_one)
    assert perturbed(TISSUE[:0], name).shape == (0, PATCH_PX, PATCH_PX, 3)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("brightness")])
def test_white_stays_white(name: str) -> None:
    assert np.array_equal(perturbed(plain(255, 255, 255), name), plain(255, 255, 255))


@pytest.mark.parametrize(
    ("name", "gains"), [("stain_towards_haematoxylin", (1.2, 0.8)), ("stain_towards_eosin", (0.8, 1.2))]
)
def test_stain_amounts_are_multiplied(name: str, gains: tuple[float, float]) -> None:
    for amounts in ((0.8, 0.0), (0.0, 0.6), (0.5, 0.4)):
        before, after = (
            256 * np.exp(-(h * perturb.STAINS[0] + e * perturb.STAINS[1])) - 1
            for h, e in (amounts, np.multiply(amounts, gains))
        )
        changed = perturbed(np.broadcast_to(np.rint(before).astype(np.uint8), (1, PATCH_PX, PATCH_PX, 3)), name)
        assert np.abs(changed[0, 0, 0] - after).max() <= 2  # rounding by half a level before (amplified) and after


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
        changed = perturbed(patches, name)
        assert changed[0, 48, 48].tolist() == pytest.approx([expected] * 3, abs=0.6)
        assert changed[0, 48, 47].tolist() == changed[0, 49, 48].tolist()
        assert changed[0, 40:57, 40:57].sum() == changed.sum()


def test_jpeg_error_grows_at_lower_quality_and_is_zero_for_one_colour() -> None:
    def error(name: str) -> float:
        return float(np.abs(perturbed(TISSUE, name).astype(int) - TISSUE).mean())

    assert 0 < error("jpeg_quality_80") < error("jpeg_quality_40") < 20
    assert np.array_equal(perturbed(plain(128, 128, 128), "jpeg_quality_40"), plain(128, 128, 128))


@pytest.mark.parametrize(("name", "factor"), [("scale_plus_10_percent", 1.1), ("scale_minus_10_percent", 0.9)])
def test_scaling_a_ramp_keeps_its_centre_and_changes_its_slope(name: str, factor: float) -> None:
    columns = np.arange(PATCH_PX)
    patches = np.broadcast_to((20 + 2 * columns).astype(np.uint8)[:, None], (1, PATCH_PX, PATCH_PX, 3))
    changed = perturbed(patches, name)[0, 48, :, 0].astype(float)
    inner = slice(12, 84)  # the mirrored border bends the ramp of a smaller picture
    middle = (PATCH_PX - 1) / 2
    assert np.abs(changed - (20 + 2 * (middle + (columns - middle) / factor)))[inner].max() <= 1


@pytest.mark.parametrize("name", ["scale_plus_10_percent", "scale_minus_10_percent", "blur_1_px"])
def test_perturbation_commutes_with_mirroring(name: str) -> None:
    for axis in (1, 2):
        difference = perturbed(np.flip(TISSUE, axis), name).astype(int) - np.flip(perturbed(TISSUE, name), axis)
        assert np.abs(difference).max() <= 1  # rounding of 0.5


def test_every_perturbation_has_a_size_and_a_source() -> None:
    assert all(step.size and step.source for step in PERTURBATIONS.values())


def test_unknown_names_and_wrong_patches_are_errors() -> None:
    with pytest.raises(DataError, match="no perturbation 'sepia'; choose from: stain_towards_haematoxylin, "):
        perturbed(TISSUE, "sepia")
    with pytest.raises(DataError, match=r"patches: float64 \(4, 96, 96, 3\), expected uint8"):
        perturbed(TISSUE.astype(float), "blur_1_px")
    with pytest.raises(DataError, match=r"uint8 \(96, 96, 3\)"):
        perturbed(TISSUE[0], "blur_1_px")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [33, 64])
def test_patches_of_any_size_are_perturbed(name: str, side: int) -> None:
    patches = TISSUE[:2, :side, :side]
    changed = perturbed(patches, name)
    assert changed.shape == patches.shape
    assert (changed != patches).any()
