from pathlib import Path

import pytest

from histoedge.data.classes import binary
from histoedge.data.description import Description
from histoedge.edge.errors import DataError

WHERE = Path("labels.csv")


def described(**values: tuple[str, ...]) -> Description:
    return Description(Path("data.toml"), **values)


@pytest.mark.parametrize(
    ("labels", "values", "truth", "classes"),
    [
        ("0 1 1", {}, [0, 1, 1], ("normal", "tumour")),
        ("normal tumour normal", {}, [0, 1, 0], ("normal", "tumour")),
        ("Tumor Normal", {}, [1, 0], ("Normal", "Tumor")),
        ("stroma tumour", {}, [0, 1], ("stroma", "tumour")),
        ("benign carcinoma", {}, [0, 1], ("benign", "carcinoma")),
        ("a b", {"positive": ("a",)}, [1, 0], ("b", "a")),
        ("a b", {"classes": ("b", "a")}, [1, 0], ("b", "a")),
        ("0 1", {"classes": ("fat", "gland")}, [0, 1], ("fat", "gland")),
        ("0 1 2 1", {"positive": ("2", "1")}, [0, 1, 1, 1], ("0", "2 or 1")),
        ("0 1 2 1", {"positive": ("1",), "classes": ("rest", "tumour")}, [0, 1, 0, 1], ("rest", "tumour")),
        ("0 1 2 1", {"positive": ("1",)}, [0, 1, 0, 1], ("not 1", "1")),
    ],
)
def test_labels_become_zeros_and_ones(labels: str, values: dict, truth: list[int], classes: tuple[str, str]) -> None:
    found, names = binary(labels.split(), described(**values), where=WHERE)
    assert found.dtype == "uint8"
    assert (found.tolist(), names) == (truth, classes)


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ("a b", {}, 'labels.csv: the labels are a, b; say in data.toml which are positive, such as positive = ["b"]'),
        ("tumour cancer", {}, "the labels are cancer, tumour; say in data.toml which are positive"),
        ("0 1 2", {}, "the labels are 0, 1, 2; say in data.toml"),
        ("0 0 0", {}, "labels.csv: 3 patches with the label 0 only; a data set needs both classes"),
        ("0 1", {"positive": ("2",)}, "data.toml: positive names '2'; the labels of labels.csv: 0, 1"),
        ("0 1", {"positive": ("0", "1")}, "labels.csv: only positive labels (0, 1)"),
        ("0 1", {"classes": ("a", "b", "c")}, "data.toml: classes names 3, expected two"),
        ("a b", {"positive": ("a",), "classes": ("a", "b")}, "classes has 'b' second, positive says 'a'; reorder"),
        (" ".join(map(str, range(99))), {}, "the labels are 0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...; say in"),
    ],
)
def test_labels_of_unknown_meaning_are_refused(labels: str, values: dict, message: str) -> None:
    with pytest.raises(DataError) as raised:
        binary(labels.split(), described(**values), where=WHERE)
    assert message in str(raised.value)
