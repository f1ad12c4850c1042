"""histoedge: train, compress, verify and deploy a small CNN that detects metastases, up to the slide scanner.

The functions of this package are the commands: the parameters have the names of the command's options, which
``histoedge COMMAND --help`` explains. Paths are ``str`` or ``Path``; a repeatable option is one value or a sequence;
``progress`` is called with the progress of the work (``histoedge.progress``). Expected errors are subclasses of
``histoedge.edge.errors.HistoedgeError``; the message is the line that the command prints. Large libraries are imported
only when a function needs them.
"""

from histoedge.api.proof import bench, diff, report, verify
from histoedge.api.training import compress, export, import_model, run, train, tune
from histoedge.api.use import embed, explain, predict, scan
from histoedge.version import __version__

__all__ = [
    "__version__",
    "bench",
    "compress",
    "diff",
    "embed",
    "explain",
    "export",
    "import_model",
    "predict",
    "report",
    "run",
    "scan",
    "train",
    "tune",
    "verify",
]
