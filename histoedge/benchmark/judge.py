"""From times and logits to the figures of every row, and each file against its reference."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.benchmark import curves, noise, quality, timing
from histoedge.benchmark.answers import Answers
from histoedge.benchmark.matrix import KERAS, Answered, Contender
from histoedge.config import BenchPlan
from histoedge.data import PATCH_PX, Split
from histoedge.edge import manifest as manifests

GPU_RUNTIMES = ("onnxruntime-cuda", "onnxruntime-tensorrt")

Pair = tuple[Contender, Contender]
"""A cell and its reference."""


def judge_cells(
    contenders: Sequence[Contender],
    answers: Answers,
    *,
    plan: BenchPlan,
    split: Split,
    empty_rss_bytes: int | None,
    peaks: Mapping[str, Mapping[str, float]],
) -> list[Pair]:
    """Fill the rows of all cells that were timed and answered.

    Args:
        contenders: all cells.
        answers: of each that is ``ok``, by file and runtime.
        plan: its seed and its stop rule.
        split: the test patches, with their slides where known.
        empty_rss_bytes: peak memory of a process that opens nothing.
        peaks: the environment's ``integer_peak_gmacs``.

    Returns:
        Every file on a runtime with its reference, once, in order.
    """
    done = [one for one in contenders if one.row.status == "ok"]
    qualities: dict[Answered, dict[str, Any]] = {}
    for one in done:
        at = one.file_on_runtime
        if at not in qualities:
            about: dict[str, Any] = {"temperature": one.temperature, "slides": split.slides, "seed": plan.seed}
            qualities[at] = quality.figures(np.asarray(split.labels), answers.clean[at], **about)
            one.set(**_curves(one, answers, split))
        one.set(**qualities[at])
        _cost(one, plan, empty_rss_bytes, max(peaks.get(str(one.row.threads), {}).values(), default=None))
    return _compare(done, answers, plan, split)


def _curves(one: Contender, answers: Answers, split: Split) -> dict[str, Any]:
    """What only the first row of a file on a runtime tells."""
    labels, logits = np.asarray(split.labels), answers.clean[one.file_on_runtime]
    found: dict[str, Any] = {"roc": curves.roc(labels, logits)}
    if one.temperature is not None:
        found["reliability"] = curves.reliability(labels, manifests.probability(logits, one.temperature))
    perturbed = answers.perturbed.get(one.file_on_runtime)
    if perturbed:
        rows = quality.judged(labels, logits, perturbed, threshold_logit=one.threshold_logit)
        found["robustness"] = tuple(rows)
    return found


def _compare(done: Sequence[Contender], answers: Answers, plan: BenchPlan, split: Split) -> list[Pair]:
    """AUC, decisions and times of each file against its reference's."""
    labels = np.asarray(split.labels)
    at_place = {(one.path, one.row.runtime, one.group): one for one in done}
    sources = {one.group: one for one in done if one.row.runtime == KERAS}
    differences: dict[tuple[Answered, Answered], dict[str, Any]] = {}
    pairs = []
    for one in done:
        source = sources.get(one.group)
        reference = source if one.fp32 is None else at_place.get((one.fp32, one.row.runtime, one.group))
        if reference is None or reference is one or reference.source != one.source:
            continue
        pair = one.file_on_runtime, reference.file_on_runtime
        if pair not in differences:
            logits, before = (answers.clean[at] for at in pair)
            about: dict[str, Any] = {"threshold_logit": one.threshold_logit, "slides": split.slides, "seed": plan.seed}
            differences[pair] = quality.difference(labels, logits, before, **about)
            pairs.append((one, reference))
        one.set(reference=f"{reference.row.model} @ {reference.row.runtime}", **differences[pair])
        if reference is not source:
            shared = min(len(one.rounds_ms), len(reference.rounds_ms))  # rounds that ran side by side
            times = np.stack(one.rounds_ms[:shared]), np.stack(reference.rounds_ms[:shared])
            told = partial(noise.ratio_in_one_run, level=0.95) if shared > 1 else metrics.ratio_of_medians
            ratio = told(*times, seed=plan.seed)
            one.set(p50_ratio=ratio.value, p50_ratio_lo=ratio.lo, p50_ratio_hi=ratio.hi)
    return pairs


def _cost(contender: Contender, plan: BenchPlan, empty_rss_bytes: int | None, peak_gmacs: float | None) -> None:
    """Time, memory, energy and share of the machine's integer peak of one cell."""
    row = contender.row
    speed = timing.figures(contender.rounds_ms, outputs=row.n_outputs or 1, seed=plan.seed)
    speed["ms_quantiles"] = curves.ms_quantiles(contender.rounds_ms)
    reason = timing.unsettled(contender.rounds_ms, plan)
    figures: dict[str, Any] = {**speed, "status": "ok" if reason is None else "unsettled", "reason": reason}
    if row.peak_rss_bytes is not None and empty_rss_bytes is not None:
        figures["rss_over_empty_bytes"] = row.peak_rss_bytes - empty_rss_bytes
    spent = [joules for joules in contender.joules if joules is not None]
    if spent and len(spent) == len(contender.joules):
        figures["energy_mj"] = 1e3 * sum(spent) / speed["n_calls"]
    on_cpu = row.runtime not in GPU_RUNTIMES
    if peak_gmacs is not None and row.macs is not None and row.field_px == PATCH_PX and on_cpu:
        figures["peak_share"] = row.macs * row.batch / (1e6 * speed["p50_ms"]) / peak_gmacs
    pixels = row.batch * row.field_px**2
    figures["mpx_per_s"] = speed["patches_per_s"] * pixels / (row.n_outputs or 1) / 1e6
    contender.set(**figures)
