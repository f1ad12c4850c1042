"""Child process that opens the file of a peer, which has no manifest; settings as for our own files."""

from pathlib import Path

from histoedge import edge
from histoedge.cell import Request, serve
from histoedge.edge import litert, openvino, ort
from histoedge.edge.patches import PATCH_PX


def open_peer(request: Request) -> edge.Runner:
    """Open the runner of a file, by its suffix and runtime."""
    path, threads = Path(request["model"]), request["threads"]
    if path.suffix == ".tflite":
        return litert.open_litert(path.read_bytes(), threads=threads)
    if path.suffix == ".xml":
        return open_intermediate(path, threads=threads)
    if request["runtime"] == "openvino":
        return openvino.open_openvino(path.read_bytes(), threads=threads)
    return ort.open_ort(path.read_bytes(), threads=threads)


def open_intermediate(path: Path, *, threads: int) -> openvino.OpenVINORunner:
    """Open a model in OpenVINO's own format: two files, which ``open_openvino`` does not accept."""
    from openvino import Core, __version__

    model = Core().read_model(path)
    openvino._quantise_pixels(model)
    model.reshape([1, PATCH_PX, PATCH_PX, 3])
    version = __version__.split("-")[0]
    geometry = {"stride_px": 1, "patch_px": PATCH_PX}
    return openvino.OpenVINORunner(model, threads=threads, **geometry, version=version, in_floats=False)


if __name__ == "__main__":
    serve(open_peer)
