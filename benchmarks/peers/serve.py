"""The child that opens a peer's file, which has no manifest; settings as for our own files."""

from pathlib import Path

from histoedge import edge
from histoedge.cell import Request, serve
from histoedge.edge import litert, openvino, ort


def open_peer(request: Request) -> edge.Runner:
    """The runner of a file, by its suffix."""
    path, threads = Path(request["model"]), request["threads"]
    if path.suffix == ".tflite":
        return litert.open_litert(path.read_bytes(), threads=threads)
    if path.suffix == ".onnx" and request["runtime"] == "onnxruntime":
        return ort.open_ort(path.read_bytes(), threads=threads)
    return openvino.open_openvino(path, threads=threads)  # a path: OpenVINO's own format is two files


if __name__ == "__main__":
    serve(open_peer)
