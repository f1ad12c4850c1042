from pathlib import Path

import numpy as np
import pytest

from histoedge.data import partition
from histoedge.edge.errors import DataError


def test_slides_that_share_a_patch_are_one_group() -> None:
    joined = partition.joined(["a", "b", "c", "d", "a"], [b"1", b"2", b"2", b"3", b"3"])
    assert joined[1] == joined[2] != joined[0]
    assert joined[0] == joined[3] == joined[4]


def test_unequal_slides_are_split_close_to_the_targets() -> None:
    random = np.random.default_rng(0)
    slides = random.zipf(1.4, 5000) % 150
    y = (random.random(5000) < random.random(150)[slides]).astype(np.uint8)
    parts = partition.assign(y, slides.tolist(), seed=0)
    sizes = np.bincount(parts) / 5000
    np.testing.assert_allclose(sizes, [0.8, 0.1, 0.1], atol=0.02)  # the largest slide has a third of the patches
    for part in range(3):
        assert abs(y[parts == part].mean() - y.mean()) < 0.05
    for slide in set(slides.tolist()):
        assert len(set(parts[slides == slide])) == 1


def reference_assign(y: np.ndarray, groups: list[int], seed: int) -> np.ndarray:
    """The first implementation of the split, which the released models were trained on."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = list(members.values())
    order = [order[position] for position in np.random.default_rng(seed).permutation(len(order))]
    order.sort(key=len, reverse=True)
    target = np.maximum(np.array([[0.8], [0.1], [0.1]]) * np.array([np.sum(y == 0), np.sum(y == 1)]), 1e-9)
    filled, parts = np.zeros_like(target), np.zeros(len(y), int)
    for indices in order:
        positives = int(y[indices].sum())
        more = np.array([len(indices) - positives, positives])
        part = int(np.argmin((((filled + more) ** 2 - filled**2) / target).sum(axis=1)))
        filled[part] += more
        parts[indices] = part
    return parts


def test_no_patch_changes_its_split() -> None:
    random = np.random.default_rng(0)
    for seed in range(20):
        y = (random.random(400) < random.random()).astype(np.uint8)
        groups = (random.zipf(1.3, 400) % 90 if seed % 2 else random.integers(0, 10**6, 400)).tolist()
        np.testing.assert_array_equal(partition.assign(y, groups, seed=seed), reference_assign(y, groups, seed))


def divided(official: list[str] | None, slides: list[str] | None = None, count: int = 60) -> tuple:
    labels = (np.arange(count) % 2).astype(np.uint8)
    digests = [bytes([row]) for row in range(count)]
    return partition.divide(labels, official, slides, digests, seed=0, where=Path("DATA"))


def test_official_splits_are_not_touched() -> None:
    official = [("train", "valid", "test")[row // 20] for row in range(60)]
    parts, drawn = divided(official)
    assert parts.tolist() == [row // 20 for row in range(60)]
    assert drawn == ()


def test_a_missing_split_is_drawn_from_train_in_whole_slides() -> None:
    official = ["train" if row < 50 else "valid" for row in range(60)]
    parts, drawn = divided(official, [f"s{row // 5}" for row in range(60)])
    assert drawn == ("test",)
    assert (parts[50:] == 1).all()
    assert np.bincount(parts).tolist() == [45, 10, 5]
    assert len(set(parts[:50][parts[:50] == 2])) == 1
    assert len(set((np.arange(60) // 5)[parts == 2])) == 1


def test_without_train_nothing_is_drawn() -> None:
    parts, drawn = divided(["test"] * 60)
    assert set(parts.tolist()) == {2}
    assert drawn == ()


def test_a_slide_in_two_official_splits_is_refused() -> None:
    with pytest.raises(DataError, match="DATA: slide a is in train and in test; give all patches of a slide one split"):
        divided(["train", "valid", "test"], ["a", "b", "a"], 3)
