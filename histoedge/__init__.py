"""histoedge: a metastasis-detecting CNN from training to the slide scanner, small, fast and proven.

The functions here are the commands: they take what these take, under the same names, and ``histoedge COMMAND --help``
says what each means. Paths are ``str`` or ``Path``; what repeats as an option is one value or several; ``progress`` is
told how far the work is (``histoedge.progress``). What cannot be done raises a subclass of
``histoedge.edge.errors.HistoedgeError``, whose message is the line that the command prints. Nothing heavy is imported
before a function is called.
"""

from histoedge.api.proof import bench, diff, report, verify
from histoedge.api.training import compress, export, run, train, tune
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
    "predict",
    "report",
    "run",
    "scan",
    "train",
    "tune",
    "verify",
]
