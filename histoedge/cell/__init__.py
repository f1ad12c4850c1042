"""One model on one runtime in its own process, controlled through a pipe.

A crash, a memory leak or additional threads of a runtime then affect no other measurement, and the peak memory belongs
to one model. The child (``serve``) reads one JSON request per line from stdin and writes one JSON answer per line to
stdout; the output of libraries goes to stderr. The parent (``Cell``) turns a crash, a timeout or an invalid answer into
``CellFailed`` with a one-line reason.

Requests: ``load`` {model, runtime, threads, batch, field_px}; ``time`` {patches_npy, n, batch, start, warmup};
``predict`` {patches_npy, logits_npy, batch}; ``close``. Pixels and logits are passed as ``.npy`` files;
labels are never passed.
"""

from histoedge.cell.child import PREDICT_BATCH, listen, serve
from histoedge.cell.parent import CHUNK_PATCHES, EDGE_COMMAND, KERAS_COMMAND, SOURCE, Cell, CellFailed
from histoedge.cell.protocol import Request, peak_rss_bytes, prepare

__all__ = [
    "CHUNK_PATCHES",
    "EDGE_COMMAND",
    "KERAS_COMMAND",
    "PREDICT_BATCH",
    "SOURCE",
    "Cell",
    "CellFailed",
    "Request",
    "listen",
    "peak_rss_bytes",
    "prepare",
    "serve",
]
