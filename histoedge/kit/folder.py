"""Write one folder to copy: a verified model, the code that runs it, a self-test, examples and a README.

The target machine needs Python, numpy and one interpreter, but not histoedge.
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

SUMS = "SHA256SUMS"  # lists all other files of the folder, in the format of sha256sum
CACHE = "__pycache__"  # written by Python when the code runs
LARGEST_SUMS_BYTES = 1 << 16
WIDTH = 120  # characters per line of the README

LICENCES = {
    "numpy": "BSD-3-Clause",
    "onnxruntime": "MIT",
    "openvino": "Apache-2.0",
    "ai-edge-litert": "Apache-2.0",
}
"""Licences of packages, used when a package is not installed or states no licence expression."""

PACKAGES = {"onnx": ("onnxruntime", "openvino"), "tflite": ("ai-edge-litert",)}
"""Packages that open a format, the recommended one first."""

SHARING = {"onnx": "ONNX Runtime computes their calls concurrently", "tflite": "their calls run one after the other"}
MAPS = {
    manifests.DENSE: 'With `edge.load("{model}", step_px=N)`, N a multiple of {stride_px}, the corner is at (i, j) x N '
    "px: the same values, and ONNX Runtime computes only these.",
    manifests.SINGLE: "Only single patches have a meaning to this network (edge_mode patch): `predict` refuses larger "
    "arrays, and `map` cuts a field into its patches and computes them in batches, which is slower than one call. "
    'With `edge.load("{model}", step_px=N)` the corner is at (i, j) x N px.',
}
"""How a map is computed, by ``edge_mode``."""
NETWORK = {
    "onnx": "ONNX Runtime from 1.29 sends usage data to Microsoft unless `ORT_DISABLE_TELEMETRY=1` is set before it is "
    "loaded; `edge` and the examples set it, and your own program must set it too",
    "tflite": "nothing in this folder opens a network connection",
}
COMPILE = {
    "onnx": ("ORT_HOME", "onnxruntime", "an unpacked release of ONNX Runtime, 1.15 or later"),
    "tflite": ("LITERT_HOME", "LiteRt", "the headers `litert/c` and `libLiteRt.so` of one release"),
}
BY_HAND = "compiled by g++ 12 with hand-written declarations instead of the release's headers, and run on"
COMPILED = {
    "onnx": f"{BY_HAND} ONNX Runtime 1.31.1, Linux x86-64: PASS",
    "tflite": f"{BY_HAND} LiteRT 2.3.0, Linux x86-64: PASS",
}
"""How the C++ examples of this release were compiled and run; ``not run`` if they were not."""

EXACT_SUMS = """\
    check(api_->AddSessionConfigEntry(options_, "session.x64quantprecision", "1"));  // CPUs without VNNI
"""


def embed(model: Path, into: Path) -> tuple[Path, ...]:
    """Write the folder ``into``, completely or not at all; the same model always yields the same bytes.

    A folder written by an earlier call is replaced.

    Returns:
        The paths of all files, relative to the folder and sorted.

    Raises:
        ModelError: model or sidecar missing, unreadable or altered, or without a passing verdict on these bytes.
        DataError: ``into`` contains other files, or files changed since the earlier call.
        WriteError: the folder cannot be written.
    """
    verification.passed_on(model)
    manifest = manifests.read(model)
    golden = goldens.read_golden(model, manifest)
    _refuse_foreign_files(into)
    content = {**_sidecars(model), **_code(), **_texts(model.name, manifest, golden)}
    content["golden.rgb"] = golden.patches.tobytes()
    content["golden.logits"] = "".join(f"{logit:.9g}\n" for logit in golden.logits).encode()
    sums = (f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content))
    content[SUMS] = "".join(sums).encode()
    with files.replacing_folder(into) as folder:
        for name, file_content in content.items():
            files.write_bytes(folder / name, file_content)
    return tuple(sorted(map(Path, content)))


def _refuse_foreign_files(into: Path) -> None:
    """Raise ``DataError`` if replacing ``into`` would delete files that were added or changed by hand."""
    if not into.exists() or (into.is_dir() and not any(into.iterdir())):
        return
    remedy = "choose another folder, or move it away"
    sums = into / SUMS
    if not sums.is_file() or sums.stat().st_size > LARGEST_SUMS_BYTES:
        raise DataError(f"{into}: not empty, and not written by histoedge embed; {remedy}")
    lines = (line.partition("  ") for line in sums.read_text(errors="replace").splitlines())
    written = {name: sha256 for sha256, _, name in lines}
    for folder, subfolders, names in os.walk(into):
        subfolders[:] = [name for name in subfolders if name != CACHE]
        for path in (Path(folder, name) for name in names):
            name = path.relative_to(into).as_posix()
            if name != SUMS and written.get(name) != files.sha256(path):
                raise DataError(f"{path}: added or changed after histoedge embed wrote {into}; {remedy}")


def _sidecars(model: Path) -> dict[str, bytes]:
    """Return the model and its sidecar files by name; they are checked already."""
    paths = (model, manifests.manifest_path(model), goldens.golden_path(model), manifests.verdict_path(model))
    return {path.name: path.read_bytes() for path in paths}


def _code() -> dict[str, bytes]:
    """Return the source files of ``edge`` and its subfolders by path."""
    return dict(_sources("edge", resources(edge)))


def _sources(path: str, folder: Traversable) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            yield f"{path}/{entry.name}", entry.read_bytes()
        elif entry.is_dir() and entry.name != CACHE:
            yield from _sources(f"{path}/{entry.name}", entry)


def _texts(model: str, manifest: Manifest, golden: Golden) -> dict[str, bytes]:
    """Return the README, the examples and the licences by name."""
    format_ = manifest.format
    home, library, contents = COMPILE[format_]
    command = f"g++ -std=c++17 -O2 example.cpp -I${home}/include -L${home}/lib -l{library}"
    fields = {
        "model": model,
        "version": __version__,
        "count": len(golden.logits),
        "package": PACKAGES[format_][0],
        "points": _points(manifest),
        "at": f"; at={manifest.operating_points[0].name!r} selects another operating point"
        if manifest.operating_points
        else "",
        "sharing": SHARING[format_],
        "map_note": textwrap.fill(MAPS[manifest.edge_mode].format(model=model, stride_px=manifest.stride_px), WIDTH),
        "classes": repr(manifest.classes),
        "negative": manifest.classes[0],
        "positive": manifest.classes[1],
        "network_note": textwrap.fill(f"{NETWORK[format_]}.", WIDTH),
        "compile": f"{command} -Wl,-rpath,${home}/lib -o example",
        "compiled": textwrap.fill(f"{home} is {contents}. For this release: {COMPILED[format_]}.", WIDTH),
        "exact_sums": EXACT_SUMS if manifest.may_saturate else "",
        "threads_argument": ", 1" if format_ == "onnx" else "",
        "requirements": "\n".join(f"| {name} | {_licence(name)} |" for name in ("numpy", *PACKAGES[format_])),
        **{name: getattr(manifest, name) for name in ("network", "recipe", "label_px", "patch_px", "stride_px")},
        **{name: f"{getattr(manifest, name)!r}" for name in ("um_per_px", "temperature", "threshold", "tolerance")},
    }
    texts = {
        "README.md": _template("README.md"),
        "LICENSES.md": _template("LICENSES.md"),
        "example.py": _template("example.py"),
        "example.cpp": _template(f"{format_}.cpp") + _template("main.cpp"),
    }
    filled = {name: Template(text).substitute(fields).encode() for name, text in texts.items()}
    return {**filled, "LICENSE": resources(__package__).joinpath("LICENSE").read_bytes()}


def _template(name: str) -> str:
    return resources(__package__).joinpath(f"{name}.template").read_text(encoding="utf-8")


def _points(manifest: Manifest) -> str:
    if not manifest.operating_points:
        return "this model has none."
    head = "| operating point | probability at least | sensitivity | specificity |\n|---|---|---|---|"
    rows = [
        f"| `{point.name}` | {point.threshold:.4f} | "
        f"{point.sensitivity:.3f} [{point.sensitivity_lo:.3f}, {point.sensitivity_hi:.3f}] | "
        f"{point.specificity:.3f} [{point.specificity_lo:.3f}, {point.specificity_hi:.3f}] |"
        for point in manifest.operating_points
    ]
    return "\n".join([head, *rows])


def _licence(package: str) -> str:
    """Return the licence expression of the installed package, or the entry of ``LICENCES``."""
    try:
        package_metadata = metadata(package)
    except PackageNotFoundError:
        return LICENCES[package]
    return package_metadata["License-Expression"] or LICENCES[package]
