"""One model on one runtime in a process of its own: both ends of the pipe.

A runtime that crashes, leaks or starts threads then harms nobody else, and every peak of memory
belongs to one model. The child (``serve``) reads one JSON request per line on stdin and answers with
one JSON line on stdout; whatever a library prints goes to stderr. The parent (``Cell``) turns a
crash, a silence or an invalid answer into ``CellFailed`` with one line that says why.

Requests: ``load`` {model, runtime, threads, batch, field_px}; ``time`` {patches_npy, n, batch, start, warmup};
``predict`` {patches_npy, logits_npy, batch}; ``close``. Pixels and logits travel as ``.npy`` files;
labels never travel.
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
