from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError


def test_a_missing_or_changed_golden_file_is_refused(mean_red: Path) -> None:
    golden = goldens.golden_path(mean_red)
    content = golden.read_bytes()
    golden.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="changed after the manifest was written"):
        edge.load(mean_red)
    golden.unlink()
    with pytest.raises(ModelError, match="the golden patches are missing"):
        edge.load(mean_red)


def test_a_golden_file_with_pickled_objects_is_refused(mean_red: Path, sign: Callable[..., Path]) -> None:
    golden = goldens.golden_path(mean_red)
    np.savez(golden, patches=np.array([object()]), labels=[0], logits=[0.0])
    sign(mean_red)
    with pytest.raises(ModelError, match="not a golden file"):
        goldens.read_golden(mean_red, manifests.read(mean_red))
