from collections.abc import Callable
from pathlib import Path

import pytest

from histoedge import edge
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError, RuntimeUnavailable


def test_a_changed_model_file_is_refused_before_any_interpreter_sees_it(mean_red: Path) -> None:
    mean_red.write_bytes(mean_red.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed after its manifest was written"):
        edge.load(mean_red)


def test_a_model_without_manifest_and_a_manifest_without_model_have_different_messages(mean_red: Path) -> None:
    manifest = manifests.manifest_path(mean_red)
    text = manifest.read_text()
    manifest.unlink()
    with pytest.raises(ModelError, match="the manifest is missing"):
        edge.load(mean_red)
    manifest.write_text(text)
    mean_red.unlink()
    with pytest.raises(ModelError, match=r"no such model file \(its manifest exists\)"):
        edge.load(mean_red)


def test_a_runtime_that_does_not_open_the_format_is_named(mean_red: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="litert does not open onnx files"):
        edge.load(mean_red, runtime="litert")
    with pytest.raises(RuntimeUnavailable, match="unknown runtime"):
        edge.load(mean_red, runtime="tensorrt9")


def test_garbage_with_a_fitting_manifest_is_one_line(mean_red: Path, sign: Callable[..., Path]) -> None:
    mean_red.write_bytes(b"garbage")
    sign(mean_red)
    with pytest.raises(ModelError, match="ONNX Runtime cannot open this file") as caught:
        edge.load(mean_red)
    assert "\n" not in str(caught.value)
