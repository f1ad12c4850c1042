"""The child process that opens a peer's file."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from histoedge import edge

Script = Callable[[str], ModuleType]
PATCH = np.full((1, 96, 96, 3), 51, np.uint8)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_is_opened_from_its_bytes(
    script: Script, mean_red: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(runtime)
    serve = script("serve")
    module, name = {"onnxruntime": (serve.ort, "open_ort"), "openvino": (serve.openvino, "open_openvino")}[runtime]
    original, contents = getattr(module, name), []

    def spy(content: Any, **options: Any) -> edge.Runner:
        contents.append(content)
        return original(content, **options)

    monkeypatch.setattr(module, name, spy)
    runner = serve.open_peer({"model": str(mean_red), "runtime": runtime, "threads": 1})
    assert contents == [mean_red.read_bytes()]
    assert runner.predict(PATCH).item() == pytest.approx(0.2)


def test_a_model_in_openvinos_own_format_returns_the_same_logits(
    script: Script, mean_red: Path, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Core().read_model(mean_red), path, compress_to_fp16=False)
    runner = script("serve").open_peer({"model": str(path), "runtime": "openvino", "threads": 1})
    assert (runner.runtime, runner.predict(PATCH).shape) == ("openvino", (1, 1, 1, 1))
    assert runner.predict(PATCH).item() == pytest.approx(0.2)
