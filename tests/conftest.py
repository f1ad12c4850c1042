import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests

QUANTUM = 1 / 255
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """``script(name)``: a module of the folder ``benchmarks``, imported as its scripts import each other."""
    if not BENCHMARKS.is_dir():
        pytest.skip("not a checkout")
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return import_module


@pytest.fixture(scope="session")
def cell() -> Callable[..., Any]:
    """``cell(model, runtime, **fields)`` returns a ``Measurement``; recipe and format are those of the file name.

    A number ``p50_ms`` gets bounds 1 % away, a number ``auc`` bounds 0.01 away; an ``Interval`` is used as it is.
    """
    from histoedge.benchmark import Measurement  # requires scipy, which edge-only machines lack
    from histoedge.metrics import Interval

    def measurement(
        model: str = "int8.onnx",
        runtime: str = "onnxruntime",
        *,
        p50_ms: "float | Interval | None" = 1.0,
        auc: "float | Interval | None" = 0.94,
        **fields: Any,
    ) -> Measurement:
        recipe, _, format_ = model.rpartition("/")[2].partition(".")
        defaults: dict[str, Any] = {"model": model, "recipe": recipe, "format": format_, "runtime": runtime}
        defaults |= {"threads": 1, "batch": 1, "field_px": 96, "status": "ok", "size_bytes": 1000, "sha256": "a" * 64}
        if isinstance(p50_ms, float):
            p50_ms = Interval(p50_ms, 0.99 * p50_ms, 1.01 * p50_ms)
        if isinstance(auc, float):
            auc = Interval(auc, auc - 0.01, auc + 0.01)
        defaults |= {"p50_ms": p50_ms, "auc": auc}
        return Measurement(**{**defaults, **fields})

    return measurement


@pytest.fixture
def by_hand(tmp_path: Path) -> Callable[..., Path]:
    """``by_hand(name, nodes, constants, **fields)`` writes an ONNX file under the contract that tells the mean red.

    The golden logits are mean red values over 255; ``fields`` replace those of the manifest.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    def written(name: str, nodes: list[NodeProto], constants: dict[str, np.ndarray], **fields: Any) -> Path:
        initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
        patches = helper.make_tensor_value_info("patches", TensorProto.UINT8, ["batch", "height", "width", 3])
        logit = helper.make_tensor_value_info("tumour_logit", TensorProto.FLOAT, ["batch", "rows", "columns", 1])
        graph = helper.make_graph(nodes, "mean red", [patches], [logit], initializers)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model = tmp_path / f"{name}.onnx"
        model.write_bytes(made.SerializeToString())
        red = np.array([0, 51, 255], np.uint8)
        golden = np.zeros((3, 96, 96, 3), np.uint8)
        golden[..., 0] = red[:, None, None]
        np.savez(
            goldens.golden_path(model),
            patches=golden,
            labels=(red > 60).astype(np.uint8),
            logits=(red / 255).astype(np.float32),
        )
        hashes = [
            manifests.hashlib.sha256(path.read_bytes()).hexdigest() for path in (model, goldens.golden_path(model))
        ]
        body = {
            **dict.fromkeys(("recipe", "network", "fp32", "edge_mode", "golden_runtime", "tolerance_reason"), "test"),
            **dict.fromkeys(("params", "macs"), 3),
            **{"contract": manifests.CONTRACT, "format": "onnx", "sha256": hashes[0]},
            **{"golden_sha256": hashes[1], "parents": {}, "tools": {}, "output_quantum": None, "tolerance": 1e-4},
            **{"stride_px": 32, "receptive_field_px": 96, "centre_offset_px": 48.0, "label_px": 32, "patch_px": 96},
            **{"zeros": 0.0, "may_saturate": [], "input_statistics": {}},
            **{"um_per_px": 0.972, "temperature": 1.0, "threshold": 0.5, "operating_points": []},
            **fields,
        }
        manifests.manifest_path(model).write_text(json.dumps({**body, "digest": manifests.digest(body)}))
        return model

    return written


POINT = {
    **{"name": "specificity 0.95", "threshold": 0.7, "sensitivity": 0.5, "sensitivity_lo": 0.4, "sensitivity_hi": 0.6},
    **{"specificity": 0.95, "specificity_lo": 0.9, "specificity_hi": 0.98, "n_positive": 100, "n_negative": 200},
}


@pytest.fixture
def mean_red_calibrated(by_hand: Callable[..., Path]) -> Path:
    """``mean_red`` at a temperature of 0.5, with one operating point: logits of 0.42365 and above."""
    return by_hand("mean_red_calibrated", *_in_floats(), temperature=0.5, threshold=0.6, operating_points=[POINT])


@pytest.fixture
def mean_red(by_hand: Callable[..., Path]) -> Path:
    """An exported file under the contract whose logit is the mean red value over 255."""
    return by_hand("mean_red", *_in_floats())


@pytest.fixture
def mean_red_saturating(by_hand: Callable[..., Path]) -> Path:
    """``mean_red`` with a manifest that says that its sums may overflow 16 bits."""
    return by_hand("mean_red_saturating", *_in_floats(), may_saturate=["logit"])


@pytest.fixture
def mean_red_int8(by_hand: Callable[..., Path]) -> Path:
    """The same, quantised: uint8 activations, an int8 kernel, 1/255 as quantum of the output."""
    from onnx import helper

    nodes = [
        helper.make_node("Transpose", ["patches"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "quantum", "zero"], ["values"]),
        helper.make_node("DequantizeLinear", ["kernel", "share", "kernel_zero"], ["weights"]),
        helper.make_node("Conv", ["values", "weights"], ["mean"], strides=[32, 32]),
        helper.make_node("QuantizeLinear", ["mean", "quantum", "zero"], ["code"]),
        helper.make_node("Transpose", ["code"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("DequantizeLinear", ["moved", "quantum", "zero"], ["tumour_logit"], name="logit"),
    ]
    kernel = np.zeros((1, 3, 96, 96), np.int8)
    kernel[:, 0] = 1
    constants = {
        **{"quantum": np.float32(QUANTUM), "zero": np.uint8(0), "kernel": kernel},
        **{"share": np.float32(1 / 96**2), "kernel_zero": np.int8(0)},
    }
    return by_hand("mean_red_int8", nodes, constants, output_quantum=QUANTUM, tolerance=1.01 * QUANTUM)


@pytest.fixture
def mean_red_broken_promise(by_hand: Callable[..., Path]) -> Path:
    """The floats of ``mean_red`` under the manifest of ``mean_red_int8``."""
    return by_hand("mean_red_int8", *_in_floats(), output_quantum=QUANTUM, tolerance=1.01 * QUANTUM)


def _in_floats() -> tuple[list[Any], dict[str, np.ndarray]]:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[96, 96], strides=[32, 32]),
        helper.make_node("Conv", ["means", "red"], ["logit"]),
        helper.make_node("Transpose", ["logit"], ["tumour_logit"], perm=[0, 2, 3, 1]),
    ]
    return nodes, {"red": np.array([1 / 255, 0, 0], np.float32).reshape(1, 3, 1, 1)}


class Look(NamedTuple):
    """What a browser made of a page: lines on its console, addresses asked for in the page's name.

    ``found`` is what the script that was asked for gave, as JSON.
    """

    complaints: list[str]
    asked: list[str]
    scroll_width: int
    picture_bytes: int
    found: Any


NARROWEST_WINDOW = 500


@pytest.fixture(scope="session")
def look(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Look]:
    """``look(page, width, script="null")`` opens an HTML file in a browser window of so many pixels.

    ``script`` is an expression of JavaScript. A headless window is no narrower than 500 px: for less, the page lies in
    a frame of that width, by which its media queries go.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs a chromium")

    def framed(content: str, width: int) -> str:
        return f'<iframe style="border: 0" width="{width}" height="900" srcdoc="{html.escape(content)}"></iframe>'

    def opened(page: Path, width: int, script: str = "null") -> Look:
        folder = tmp_path_factory.mktemp("browser")
        quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
        quiet += ("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND")
        window = (f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, NARROWEST_WINDOW)},900")
        window += ("--hide-scrollbars",)

        def run(place: Path, *options: str) -> "subprocess.CompletedProcess[str]":
            command = [browser, *quiet, *window, *options, place.as_uri()]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

        log, picture, shown, probe = (folder / name for name in ("log.json", "page.png", "shown.html", "probe.html"))
        narrow = width < NARROWEST_WINDOW
        if narrow:
            shown.write_text(framed(page.read_text(), width))
        options = ("--enable-logging=stderr", f"--log-net-log={log}", f"--screenshot={picture}")
        said = run(shown if narrow else page, *options).stderr
        told = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
        content = re.sub("<meta http-equiv[^>]*>", "", page.read_text()).replace("<details>", "<details open>")
        measured = f"[document.documentElement.scrollWidth, {script}]"
        content += f"<script>parent.document.title = JSON.stringify({measured})</script>"
        probe.write_text(framed(content, width) if narrow else content)
        title = re.search(r"<title>(\[.*?\])</title>", run(probe, "--dump-dom").stdout)
        assert title is not None
        scroll_width, found = json.loads(html.unescape(title[1]))
        return Look(
            complaints=[line for line in said.splitlines() if "CONSOLE" in line],
            asked=[one["url"] for one in told if one.get("initiator", "not an origin") != "not an origin"],
            scroll_width=scroll_width,
            picture_bytes=picture.stat().st_size,
            found=found,
        )

    return opened
