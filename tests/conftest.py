import json
from pathlib import Path

import numpy as np
import pytest

from histoedge.edge import manifest as manifests


@pytest.fixture
def mean_red(tmp_path: Path) -> Path:
    """An exported file under the contract whose logit is the mean red value over 255."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[96, 96], strides=[32, 32]),
        helper.make_node("Conv", ["means", "red"], ["logit"]),
        helper.make_node("Transpose", ["logit"], ["tumour_logit"], perm=[0, 2, 3, 1]),
    ]
    red = numpy_helper.from_array(np.array([1 / 255, 0, 0], np.float32).reshape(1, 3, 1, 1), "red")
    patches = helper.make_tensor_value_info("patches", TensorProto.UINT8, ["batch", "height", "width", 3])
    logit = helper.make_tensor_value_info("tumour_logit", TensorProto.FLOAT, ["batch", "rows", "columns", 1])
    graph = helper.make_graph(nodes, "mean red", [patches], [logit], [red])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    model = tmp_path / "mean_red.onnx"
    model.write_bytes(content)
    body = {
        **dict.fromkeys(("recipe", "network", "fp32", "edge_mode", "golden_runtime", "tolerance_reason"), "test"),
        **dict.fromkeys(("params", "macs"), 3),
        **{"contract": 1, "format": "onnx", "sha256": manifests.hashlib.sha256(content).hexdigest()},
        **{"golden_sha256": "", "parents": {}, "tools": {}, "output_quantum": None, "tolerance": 1e-4},
        **{"stride_px": 32, "receptive_field_px": 96, "centre_offset_px": 48.0, "label_px": 32, "patch_px": 96},
        **{"um_per_px": 0.972, "temperature": 1.0, "threshold": 0.5},
    }
    manifests.manifest_path(model).write_text(json.dumps({**body, "digest": manifests.digest(body)}))
    return model
