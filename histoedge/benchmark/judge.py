"""Rows of a benchmark from times and logits: speed, cost, quality, and the comparison with the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.benchmark import curves, noise, quality, timing
from histoedge.benchmark.answers import Answers
from histoedge.benchmark.matrix import KERAS, BenchJob, Contender, FileOnRuntime
from histoedge.benchmark.result_row import Measurement
from histoedge.config import BenchPlan
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.metrics import Interval

GPU_RUNTIMES = ("onnxruntime-cuda", "onnxruntime-tensorrt")

Pair = tuple[Contender, Contender]
"""A cell and its reference."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Figures of the machine that rows refer to.

    ``empty_rss_bytes`` is the peak memory of a process that opens no model, ``peaks`` the environment's
    ``integer_peak_gmacs``: by threads (as in JSON, a string) and runtime.
    """

    empty_rss_bytes: int | None
    peaks: Mapping[str, Mapping[str, float]]


def judge_cells(
    contenders: Sequence[Contender], answers: Answers, job: BenchJob, machine: Machine
) -> tuple[list[Contender], list[Pair]]:
    """Compute the figures of all cells that were timed and answered.

    Args:
        contenders: all cells.
        answers: of each cell that is ``ok``.
        job: its plan and test patches.
        machine: figures of the machine.

    Returns:
        All cells in their order with complete rows; every file on a runtime with its reference, once, in order.
    """
    judged = list(contenders)
    files_seen: dict[FileOnRuntime, dict[str, Any]] = {}
    for place, contender in enumerate(judged):
        if contender.row.status != "ok":
            continue
        file = contender.file_on_runtime
        first = file not in files_seen
        if first:
            files_seen[file] = quality.figures(
                np.asarray(job.split.labels),
                answers.clean[file],
                temperature=contender.temperature,
                slides=job.split.slides,
                seed=job.plan.seed,
            )
        fields = files_seen[file] | (_curves(contender, answers, job.split) if first else {})
        judged[place] = contender.with_figures(**fields, **_cost(contender, job.plan, machine))
    pairs = _compare(judged, [contender.row.status == "ok" for contender in contenders], answers, job)
    return judged, pairs


def _curves(contender: Contender, answers: Answers, split: Split) -> dict[str, Any]:
    """Return the fields that only the first row of a file on a runtime contains."""
    labels, logits = np.asarray(split.labels), answers.clean[contender.file_on_runtime]
    fields: dict[str, Any] = {"roc": curves.roc(labels, logits)}
    if contender.temperature is not None:
        fields["reliability"] = curves.reliability(labels, manifests.probability(logits, contender.temperature))
    perturbed = answers.perturbed.get(contender.file_on_runtime)
    if perturbed:
        rows = quality.robustness(labels, logits, perturbed, threshold_logit=contender.threshold_logit)
        fields["robustness"] = tuple(rows)
    return fields


def _compare(judged: list[Contender], timed: Sequence[bool], answers: Answers, job: BenchJob) -> list[Pair]:
    """Add the comparison with the reference to the cells of the list: AUC, decisions and times."""
    cells = [contender for contender, was_timed in zip(judged, timed, strict=True) if was_timed]
    by_file = {(contender.path, contender.row.runtime, contender.group): contender for contender in cells}
    sources = {contender.group: contender for contender in cells if contender.row.runtime == KERAS}
    differences: dict[tuple[FileOnRuntime, FileOnRuntime], dict[str, Any]] = {}
    pairs = []
    for place, contender in enumerate(judged):
        source = sources.get(contender.group)
        reference = source
        if contender.fp32 is not None:
            reference = by_file.get((contender.fp32, contender.row.runtime, contender.group))
        if not timed[place] or reference is None or reference is contender or reference.source != contender.source:
            continue
        pair = contender.file_on_runtime, reference.file_on_runtime
        first = pair not in differences
        if first:
            logits, reference_logits = (answers.clean[file] for file in pair)
            differences[pair] = quality.difference(
                np.asarray(job.split.labels),
                logits,
                reference_logits,
                threshold_logit=contender.threshold_logit,
                slides=job.split.slides,
                seed=job.plan.seed,
            )
        fields = {"reference": f"{reference.row.model} @ {reference.row.runtime}", **differences[pair]}
        if reference is not source:
            fields["p50_ratio"] = _ratio(contender, reference, job.plan.seed)
        judged[place] = contender.with_figures(**fields)
        if first:
            pairs.append((judged[place], reference))
    return pairs


def _ratio(contender: Contender, reference: Contender, seed: int) -> Interval:
    """Return the ratio of the times in the rounds that both cells ran."""
    shared = min(len(contender.rounds_ms), len(reference.rounds_ms))
    times = np.stack(contender.rounds_ms[:shared]), np.stack(reference.rounds_ms[:shared])
    ratio = partial(noise.ratio_in_one_run, level=0.95) if shared > 1 else metrics.ratio_of_medians
    return ratio(*times, seed=seed)


def _cost(contender: Contender, plan: BenchPlan, machine: Machine) -> dict[str, Any]:
    """Return speed, memory, energy and share of the machine's integer peak."""
    row = contender.row
    outputs = row.n_outputs or 1
    fields = timing.figures(contender.rounds_ms, outputs=outputs, seed=plan.seed)
    fields["ms_quantiles"] = curves.ms_quantiles(contender.rounds_ms)
    fields["reason"] = timing.unsettled(contender.rounds_ms, plan)
    fields["status"] = "ok" if fields["reason"] is None else "unsettled"
    if row.peak_rss_bytes is not None and machine.empty_rss_bytes is not None:
        fields["rss_over_empty_bytes"] = row.peak_rss_bytes - machine.empty_rss_bytes
    joules = [energy for energy in contender.joules if energy is not None]
    if joules and len(joules) == len(contender.joules):
        fields["energy_mj"] = 1e3 * sum(joules) / fields["n_calls"]
    fields["peak_share"] = _peak_share(row, fields["p50_ms"].value, machine)
    pixels = row.batch * row.field_px**2
    fields["mpx_per_s"] = fields["patches_per_s"].value * pixels / outputs / 1e6
    return fields


def _peak_share(row: Measurement, p50_ms: float, machine: Machine) -> float | None:
    peak_gmacs = max(machine.peaks.get(str(row.threads), {}).values(), default=None)
    if peak_gmacs is None or row.macs is None or not row.of_patches or row.runtime in GPU_RUNTIMES:
        return None
    return row.macs * row.batch / (1e6 * p50_ms) / peak_gmacs
