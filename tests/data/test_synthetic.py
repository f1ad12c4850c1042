import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.data import synthetic
from histoedge.edge.errors import DataError


@pytest.fixture(scope="module")
def train() -> data.Split:
    return synthetic.generate("train", patches=300, seed=0)


def test_the_patches_of_a_seed_are_the_same_in_another_process(train: data.Split) -> None:
    code = "from histoedge.data import synthetic; print(synthetic.generate('train', patches=300, seed=0).content_hash)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == train.content_hash


def test_a_shorter_split_is_a_prefix_of_a_longer_one(train: data.Split) -> None:
    short = synthetic.generate("train", patches=60, seed=0)
    assert short.digests == train.digests[:60]
    assert short.labels.tolist() == train.labels[:60].tolist()
    assert list(short.slides or ()) == list(train.slides or ())[:60]


def test_splits_and_seeds_share_no_patch_and_no_slide(train: data.Split) -> None:
    large_seed = 2_000_000_001
    others = [
        synthetic.generate("valid", patches=60, seed=0),
        synthetic.generate("train", patches=60, seed=1),
        synthetic.generate("train", patches=60, seed=large_seed),
        synthetic.generate("train", patches=60, seed=large_seed - 1_000_000_000),
    ]
    digests = [set(split.digests) for split in (train, *others)]
    assert sum(map(len, digests)) == len(set.union(*digests)) == 300 + 4 * 60
    assert not set(train.slides or ()) & set(others[0].slides or ())
    assert len(set(train.slides or ())) == 6


def test_the_classes_are_about_balanced(train: data.Split) -> None:
    assert 0.4 < train.labels.mean() < 0.6


def test_the_label_is_the_tumour_mask_in_the_centre() -> None:
    kinds = set()
    for index in range(200):
        _, label = synthetic._patch("train", index, 0)
        random = synthetic._random(0, "train", "patch", index)
        _, _, tumour = synthetic._tissue(random)
        assert label == int(tumour[32:64, 32:64].any())
        kinds.add((label, bool(tumour.any())))
    assert kinds == {(0, False), (0, True), (1, True)}


def test_some_patches_are_blank_and_stain_varies_by_slide(train: data.Split) -> None:
    means = train.patches[:].mean(axis=(1, 2))
    assert (means.min(axis=1) > 215).any()  # glass
    assert 130 < np.median(means) < 220  # tissue
    slides = np.array(train.slides)
    by_slide = np.array([np.median(means[slides == slide], axis=0) for slide in np.unique(slides)])
    assert by_slide.std(axis=0).max() > 3


def test_brightness_alone_does_not_separate_the_classes(train: data.Split) -> None:
    centre = train.patches[:][:, 32:64, 32:64].mean(axis=(1, 2, 3))
    tumour, normal = centre[train.labels == 1], centre[train.labels == 0]
    auc = (tumour[:, None] < normal[None, :]).mean()
    assert 0.35 < auc < 0.85


def test_golden_patches_are_reproducible_and_half_of_each_class() -> None:
    patches, labels = synthetic.golden(16)
    assert patches.shape == (16, 96, 96, 3)
    assert patches.dtype == labels.dtype == np.uint8
    assert labels.tolist() == [0] * 8 + [1] * 8
    assert len({patch.tobytes() for patch in patches}) == 16
    again, _ = synthetic.golden(16)
    np.testing.assert_array_equal(patches, again)


def test_synth_writes_generated_patches_in_patchcamelyons_layout(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    synthetic.synth(
        tmp_path, patches=80, seed=5, progress=lambda what, done, total, note="": steps.append((what, done, total))
    )
    splits = data.load(str(tmp_path))
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 80, "valid": 16, "test": 20}
    for name, split in splits.items():
        generated = synthetic.generate(name, patches=len(split.labels), seed=5)
        assert split.content_hash == generated.content_hash
        assert list(split.ids) == list(generated.ids)
        assert list(split.slides or ()) == list(generated.slides or ())
    assert steps[0] == ("synthesise train, patches", 80, 80)
    assert len(list(tmp_path.glob("camelyonpatch_*"))) == 9


def test_synth_is_reproducible_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        synthetic.synth(tmp_path / name, patches=20, seed=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_synth_does_not_overwrite_and_writes_nothing_after_an_error(tmp_path: Path) -> None:
    meta = tmp_path / "camelyonpatch_level_2_split_test_meta.csv"
    meta.write_text("existing")
    with pytest.raises(DataError, match=r"test_meta.csv: exists already; choose another folder, or remove the file"):
        synthetic.synth(tmp_path, patches=20, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == [meta.name]
    assert meta.read_text() == "existing"


def test_the_word_synthetic_is_a_data_set() -> None:
    split = data.load("synthetic", splits=("valid",), seed=3)["valid"]
    assert len(split.labels) == synthetic.PATCHES["valid"] == 800
    assert split.digests[:40] == synthetic.generate("valid", patches=40, seed=3).digests
