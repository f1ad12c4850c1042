"""One folder to copy: a verified model, the code that runs it, a self-test, examples and a page to read.

Nothing of histoedge need be installed where the folder goes: Python, numpy and one interpreter.
"""

import hashlib
import os
import textwrap
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files as resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from histoedge import edge, files, verification
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError
from histoedge.edge.golden import Golden
from histoedge.edge.manifest import Manifest
from histoedge.version import __version__

SUMS = "SHA256SUMS"  # names every other file of an embedding, in the format of sha256sum
CACHE = "__pycache__"  # what running the code leaves
LARGEST_SUMS_BYTES = 1 << 16
WIDTH = 120  # of the page, in characters

LICENCES = {
    "numpy": "BSD-3-Clause",
    "onnxruntime": "MIT",
    "openvino": "Apache-2.0",
    "ai-edge-litert": "Apache-2.0",
}
"""Licences of packages, for those that are not installed here."""

PACKAGES = {"onnx": ("onnxruntime", "openvino"), "tflite": ("ai-edge-litert",)}
"""What opens a format: the package to install first, then others."""

SHARING = {"onnx": "ONNX Runtime computes their calls at once", "tflite": "they take turns"}
NETWORK = {
    "onnx": "ONNX Runtime from 1.29 tells Microsoft what it runs unless `ORT_DISABLE_TELEMETRY=1` is set before it is "
    "loaded; `edge` and the examples set it, your own program must",
    "tflite": "nothing here opens a connection",
}
COMPILE = {
    "onnx": ("ORT_HOME", "onnxruntime", "an unpacked release of ONNX Runtime, 1.15 or later"),
    "tflite": ("LITERT_HOME", "LiteRt", "the headers `litert/c` and `libLiteRt.so` of one release"),
}
BY_HAND = "compiled by g++ 12 with declarations written out by hand, not with a release's own headers, and run on"
COMPILED = {
    "onnx": f"{BY_HAND} ONNX Runtime 1.31.1, Linux x86-64: PASS",
    "tflite": f"{BY_HAND} LiteRT 2.3.0, Linux x86-64: PASS",
}
"""Whether the examples in C++ were compiled and run for this release, and on what; else ``not run here``."""

EXACT_SUMS = """\
    check(api_->AddSessionConfigEntry(options_, "session.x64quantprecision", "1"));  // CPUs without VNNI
"""


def embed(model: Path, into: Path) -> tuple[Path, ...]:
    """Write the folder ``into``, whole or not at all; the same model gives the same bytes.

    An earlier embedding there is replaced. Gives the paths of all files, relative to the folder and sorted.

    Raises:
        ModelError: model or sidecar missing, unreadable or altered, or without a passing verdict of these bytes.
        DataError: ``into`` holds something else than an earlier embedding as it was written.
        WriteError: the place cannot be written.
    """
    verification.passed_on(model)
    manifest = manifests.read(model)
    golden = goldens.read_golden(model, manifest)
    _refuse_what_is_not_ours(into)
    content = {**_sidecars(model), **_code(), **_texts(model.name, manifest, golden)}
    content["golden.rgb"] = golden.patches.tobytes()
    content["golden.logits"] = "".join(f"{logit:.9g}\n" for logit in golden.logits).encode()
    sums = (f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content))
    content[SUMS] = "".join(sums).encode()
    with files.replacing_folder(into) as folder:
        for name, of_file in content.items():
            files.write_bytes(folder / name, of_file)
    return tuple(sorted(map(Path, content)))


def _refuse_what_is_not_ours(into: Path) -> None:
    """Raise ``DataError`` where replacing ``into`` would lose what somebody put or changed there."""
    if not into.exists() or (into.is_dir() and not any(into.iterdir())):
        return
    to_do = "choose another folder, or move it away"
    sums = into / SUMS
    if not sums.is_file() or sums.stat().st_size > LARGEST_SUMS_BYTES:
        raise DataError(f"{into}: not empty, and no earlier embedding; {to_do}")
    lines = (line.partition("  ") for line in sums.read_text(errors="replace").splitlines())
    written = {name: sha256 for sha256, _, name in lines}
    for folder, inside, names in os.walk(into):
        inside[:] = [name for name in inside if name != CACHE]
        for path in (Path(folder, name) for name in names):
            name = path.relative_to(into).as_posix()
            if name != SUMS and written.get(name) != files.sha256(path):
                raise DataError(f"{path}: added or changed after {into} was embedded; {to_do}")


def _sidecars(model: Path) -> dict[str, bytes]:
    """The model and what lies beside it; all of them are checked already."""
    places = (model, manifests.manifest_path(model), goldens.golden_path(model), manifests.verdict_path(model))
    return {path.name: path.read_bytes() for path in places}


def _code() -> dict[str, bytes]:
    """The sources of ``edge`` and of its folders, by their path."""
    return dict(_sources("edge", resources(edge)))


def _sources(path: str, folder: Traversable) -> Iterator[tuple[str, bytes]]:
    for place in sorted(folder.iterdir(), key=lambda place: place.name):
        if place.name.endswith(".py"):
            yield f"{path}/{place.name}", place.read_bytes()
        elif place.is_dir() and place.name != CACHE:
            yield from _sources(f"{path}/{place.name}", place)


def _texts(model: str, manifest: Manifest, golden: Golden) -> dict[str, bytes]:
    """The examples, the page and the licences."""
    format_ = manifest.format
    home, library, what = COMPILE[format_]
    command = f"g++ -std=c++17 -O2 example.cpp -I${home}/include -L${home}/lib -l{library}"
    known = {
        "model": model,
        "version": __version__,
        "count": len(golden.logits),
        "package": PACKAGES[format_][0],
        "points": _points(manifest),
        "at": f"; at={manifest.operating_points[0].name!r} asks for another point" if manifest.operating_points else "",
        "sharing": SHARING[format_],
        "network_note": textwrap.fill(f"{NETWORK[format_]}.", WIDTH),
        "compile": f"{command} -Wl,-rpath,${home}/lib -o example",
        "compiled": textwrap.fill(f"{home} is {what}. For this release: {COMPILED[format_]}.", WIDTH),
        "exact_sums": EXACT_SUMS if manifest.may_saturate else "",
        "threads_argument": ", 1" if format_ == "onnx" else "",
        "needed": "\n".join(f"| {name} | {_licence(name)} |" for name in ("numpy", *PACKAGES[format_])),
        **{name: getattr(manifest, name) for name in ("network", "recipe", "label_px", "patch_px", "stride_px")},
        **{name: f"{getattr(manifest, name)!r}" for name in ("um_per_px", "temperature", "threshold", "tolerance")},
    }
    texts = {
        "README.md": _template("README.md"),
        "LICENSES.md": _template("LICENSES.md"),
        "example.py": _template("example.py"),
        "example.cpp": _template(f"{format_}.cpp") + _template("main.cpp"),
    }
    made = {name: Template(text).substitute(known).encode() for name, text in texts.items()}
    return {**made, "LICENSE": resources(__package__).joinpath("LICENSE").read_bytes()}


def _template(name: str) -> str:
    return resources(__package__).joinpath(f"{name}.template").read_text(encoding="utf-8")


def _points(manifest: Manifest) -> str:
    if not manifest.operating_points:
        return "none in this manifest."
    head = "| operating point | probability at least | sensitivity | specificity |\n|---|---|---|---|"
    rows = [
        f"| `{point.name}` | {point.threshold:.4f} | "
        f"{point.sensitivity:.3f} [{point.sensitivity_lo:.3f}, {point.sensitivity_hi:.3f}] | "
        f"{point.specificity:.3f} [{point.specificity_lo:.3f}, {point.specificity_hi:.3f}] |"
        for point in manifest.operating_points
    ]
    return "\n".join([head, *rows])


def _licence(package: str) -> str:
    """The licence that the installed package names, else that of our table."""
    try:
        told = metadata(package)
    except PackageNotFoundError:
        return LICENCES[package]
    return told["License-Expression"] or LICENCES[package]
