"""Benchmark: latency, memory, size and AUC of every file on every runtime, each cell in its own process."""

from histoedge.benchmark.layer_errors import FileLayers, Layer
from histoedge.benchmark.matrix import BenchJob, bench_inputs, find_models
from histoedge.benchmark.measure import bench, bench_to
from histoedge.benchmark.result_row import STATUSES, Measurement, is_int8
from histoedge.benchmark.results import Results, read_results, results_are_current, write_results

__all__ = [
    "STATUSES",
    "BenchJob",
    "FileLayers",
    "Layer",
    "Measurement",
    "Results",
    "bench",
    "bench_inputs",
    "bench_to",
    "find_models",
    "is_int8",
    "read_results",
    "results_are_current",
    "write_results",
]
