import json

import numpy as np
import pytest

from histoedge.data import Geometry, Split
from histoedge.edge.errors import DataError


def test_the_default_is_patchcamelyon() -> None:
    assert Geometry() == Geometry(patch_px=96, label_px=32, um_per_px=0.972, classes=("normal", "tumour"))


def test_a_geometry_survives_json() -> None:
    geometry = Geometry(patch_px=224, label_px=224, um_per_px=0.5, classes=("benign", "malignant"))
    assert Geometry.from_json(json.loads(json.dumps(geometry.as_json()))) == geometry
    assert Geometry.from_json({}) == Geometry()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_px": 31}, "patch_px is 31, expected 32 to 512"),
        ({"patch_px": 513}, "patch_px is 513, expected 32 to 512"),
        ({"patch_px": 96.0}, "patch_px is 96.0"),
        ({"patch_px": True}, "patch_px is True"),
        ({"label_px": 0}, "label_px is 0, expected 1 to 96, the side of a patch"),
        ({"label_px": 97}, "label_px is 97"),
        ({"um_per_px": 0}, "um_per_px is 0, expected a finite number above 0"),
        ({"um_per_px": float("nan")}, "um_per_px is nan"),
        ({"um_per_px": "1"}, "um_per_px is '1'"),
        ({"classes": ["a", "a"]}, "expected two different names, the positive class second"),
        ({"classes": ["a", ""]}, "expected two different names"),
        ({"classes": ["a", "b\n"]}, "each of at most 64 printable characters"),
        ({"classes": ["a", "b", "c"]}, "expected two different names"),
        ({"classes": [["a"], "b"]}, "expected two different names"),
        ({"classes": "ab"}, "expected two different names"),
        ({"stride": 1}, "the geometry has no 'stride'; its keys: patch_px, label_px, um_per_px, classes"),
        ([], "the geometry is list, expected an object"),
    ],
)
def test_a_faulty_geometry_is_refused(values: dict, message: str) -> None:
    with pytest.raises(DataError) as raised:
        Geometry.from_json(values)
    assert message in str(raised.value)


@pytest.mark.parametrize("side", [64, 224])
def test_a_split_has_patches_of_any_size(side: int) -> None:
    patches = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    geometry = Geometry(patch_px=side, label_px=side)
    split = Split("train", patches, np.array([0, 1, 1, 0], np.uint8), list("abcd"), geometry=geometry)
    part = split.subset(np.array([3, 1]))
    assert (split.patch_px, part.patch_px, part.geometry) == (side, side, geometry)
    assert part.size_bytes == 2 * side * side * 3
    with pytest.raises(DataError, match=r"patches have shape \(4, \d+, \d+, 3\), expected \(4, 96, 96, 3\)"):
        Split("train", patches, np.array([0, 1, 1, 0], np.uint8), list("abcd"))
