"""Quantiles and throughput from the times of a cell, and the rule that stops its measurement."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.config import BenchPlan
from histoedge.metrics import BOOTSTRAP_RESAMPLES, Interval

QUANTILES = {"p50_ms": 0.50, "p90_ms": 0.90, "p95_ms": 0.95, "p99_ms": 0.99}
RESAMPLES_AT_ONCE = 100  # 100 x 10,000 times are 8 MB

Rounds = Sequence[np.ndarray]
"""Times of the calls of each round in milliseconds; every round has the same number of calls (n,)."""


def quantiles(rounds_ms: Rounds, shares: Sequence[float], *, seed: int = 0, level: float = 0.95) -> list[Interval]:
    """Return quantiles of all times, each with a bootstrap interval that resamples whole rounds.

    A block bootstrap (Kuensch 1989), as in ``metrics.median``, because the calls of a round share the state of the
    machine. For a share of 0.5 the result equals ``metrics.median``. The interval of a far quantile of few calls is
    too narrow: it cannot extend beyond the slowest observed call.

    Args:
        rounds_ms: at least one round.
        shares: 0 to 1.
        seed: of the resampling.
        level: confidence, between 0 and 1.
    """
    return _bootstrap(rounds_ms, lambda times: np.quantile(times, shares, axis=-1), seed=seed, level=level)


def throughput(rounds_ms: Rounds, outputs: int, *, seed: int = 0) -> Interval:
    """Return outputs per second over all calls, ``outputs`` per call, with an interval as in ``quantiles``."""
    (rate,) = _bootstrap(rounds_ms, lambda times: 1e3 * outputs / times.mean(axis=-1)[None], seed=seed, level=0.95)
    return rate


def figures(rounds_ms: Rounds, *, outputs: int, seed: int) -> dict[str, Any]:
    """Return the speed fields of a measurement; ``outputs`` is the number of logits of one call."""
    fields: dict[str, Any] = {"n_calls": sum(len(times) for times in rounds_ms), "n_rounds": len(rounds_ms)}
    fields |= zip(QUANTILES, quantiles(rounds_ms, list(QUANTILES.values()), seed=seed), strict=True)
    return fields | {"patches_per_s": throughput(rounds_ms, outputs, seed=seed)}


def wants_more(rounds_ms: Rounds, plan: BenchPlan) -> bool:
    """Whether the plan's stop rule requires another round.

    Stopping at a narrow interval makes the interval slightly too narrow, most of all with few rounds.
    """
    seconds = _seconds(rounds_ms)
    if len(rounds_ms) < plan.rounds:
        return True
    if seconds >= plan.max_seconds:
        return False
    return seconds < plan.min_seconds or unsettled(rounds_ms, plan) is not None


def unsettled(rounds_ms: Rounds, plan: BenchPlan) -> str | None:
    """Return the reason why these times are unsettled; None if the interval of p50 is narrow enough for the plan."""
    if len(rounds_ms) == 1:
        return "one round shows no spread; measure several"
    width = metrics.median(np.stack(rounds_ms), seed=plan.seed).relative_width
    if width <= plan.settled_width:
        return None
    return (
        f"the interval of p50 is {width:.0%} of p50 wide after {len(rounds_ms)} rounds and "
        f"{_seconds(rounds_ms):.1f} s of calls; the plan requires {plan.settled_width:.0%}; "
        "measure longer or on a quieter machine"
    )


def calls_of_a_round(call_ms: float, plan: BenchPlan) -> int:
    """Return ``runs_per_round``, or fewer calls if calls of this length exceed ``round_s``; at least one."""
    return max(1, min(plan.runs_per_round, int(1e3 * plan.round_s / max(call_ms, 1e-6))))


def _seconds(rounds_ms: Rounds) -> float:
    return float(sum(times.sum() for times in rounds_ms)) / 1e3


def _bootstrap(
    rounds_ms: Rounds, statistics: Callable[[np.ndarray], np.ndarray], *, seed: int, level: float
) -> list[Interval]:
    """Return the k statistics with percentile intervals; ``statistics`` maps (..., n) times to (k, ...)."""
    rounds = np.stack(rounds_ms)
    drawn = np.random.default_rng(seed).integers(0, len(rounds), (BOOTSTRAP_RESAMPLES, len(rounds)))
    parts = [
        statistics(rounds[drawn[start : start + RESAMPLES_AT_ONCE]].reshape(-1, rounds.size))
        for start in range(0, BOOTSTRAP_RESAMPLES, RESAMPLES_AT_ONCE)
    ]
    resampled = np.concatenate(parts, axis=1)
    bounds = np.quantile(resampled, (0.5 - level / 2, 0.5 + level / 2), axis=1)
    values = statistics(rounds.reshape(-1))
    return [Interval(float(value), float(lo), float(hi)) for value, lo, hi in zip(values, *bounds, strict=True)]
