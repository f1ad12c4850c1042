"""From the times of a cell to its figures, and whether it has been timed for long enough."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.config import BenchPlan
from histoedge.metrics import BOOTSTRAP_RESAMPLES, Interval

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
RESAMPLES_AT_ONCE = 100  # 100 x 10,000 times are 8 MB

Rounds = Sequence[np.ndarray]
"""Milliseconds of the calls of each round, the same number (n,) in all."""


def quantiles(rounds_ms: Rounds, shares: Sequence[float], *, seed: int = 0, level: float = 0.95) -> list[Interval]:
    """Quantiles of all times, each with a bootstrap interval that draws whole rounds.

    As ``metrics.median``, whose median and interval it gives for a share of 0.5: a block bootstrap (Kuensch 1989),
    because calls of one round share what the machine was doing. A far quantile of few calls has an interval that is
    too narrow: none reaches beyond the slowest call that was seen.

    Args:
        rounds_ms: at least one round.
        shares: 0 to 1.
        seed: of the resampling.
        level: confidence, between 0 and 1.
    """
    return _bootstrap(rounds_ms, lambda times: np.quantile(times, shares, axis=-1), seed=seed, level=level)


def throughput(rounds_ms: Rounds, outputs: int, *, seed: int = 0) -> Interval:
    """Outputs per second when each call gives ``outputs``, all calls together, interval as for ``quantiles``."""
    found = _bootstrap(rounds_ms, lambda times: 1e3 * outputs / times.mean(axis=-1)[None], seed=seed, level=0.95)
    return found[0]


def figures(rounds_ms: Rounds, *, outputs: int, seed: int) -> dict[str, Any]:
    """The keys of a measurement that tell how fast it is; ``outputs`` are the logits of one call."""
    found: dict[str, Any] = {"n_calls": sum(len(times) for times in rounds_ms), "n_rounds": len(rounds_ms)}
    for name, one in zip(QUANTILES, quantiles(rounds_ms, list(QUANTILES.values()), seed=seed), strict=True):
        found |= {f"{name}_ms": one.value, f"{name}_lo": one.lo, f"{name}_hi": one.hi}
    rate = throughput(rounds_ms, outputs, seed=seed)
    return found | {"patches_per_s": rate.value, "patches_per_s_lo": rate.lo, "patches_per_s_hi": rate.hi}


def wants_more(rounds_ms: Rounds, plan: BenchPlan) -> bool:
    """Whether another round is due by the plan's stop rule.

    Stopping when an interval is narrow makes it a little narrower than it should be: the fewer rounds, the more so.
    """
    seconds = _seconds(rounds_ms)
    if len(rounds_ms) < plan.rounds:
        return True
    if seconds >= plan.max_seconds:
        return False
    return seconds < plan.min_seconds or unsettled(rounds_ms, plan) is not None


def unsettled(rounds_ms: Rounds, plan: BenchPlan) -> str | None:
    """Why these times are not to be trusted; None where the interval of p50 is as narrow as asked."""
    if len(rounds_ms) == 1:
        return "one round shows no spread; measure several"
    width = metrics.median(np.stack(rounds_ms), seed=plan.seed).relative_width
    if width <= plan.settled_width:
        return None
    spent = f"after {len(rounds_ms)} rounds and {_seconds(rounds_ms):.1f} s of calls"
    return (
        f"the interval of p50 is {width:.0%} of p50 wide {spent}, {plan.settled_width:.0%} was asked for; "
        "measure longer or on a quieter machine"
    )


def calls_of_a_round(call_ms: float, plan: BenchPlan) -> int:
    """``runs_per_round``, or as many calls of this length as fit into ``round_s``, at least one."""
    return max(1, min(plan.runs_per_round, int(1e3 * plan.round_s / max(call_ms, 1e-6))))


def _seconds(rounds_ms: Rounds) -> float:
    return float(sum(times.sum() for times in rounds_ms)) / 1e3


def _bootstrap(
    rounds_ms: Rounds, statistics: Callable[[np.ndarray], np.ndarray], *, seed: int, level: float
) -> list[Interval]:
    """``statistics`` of (..., n) times gives (k, ...); each of the k with its percentile interval."""
    rounds = np.stack(rounds_ms)
    drawn = np.random.default_rng(seed).integers(0, len(rounds), (BOOTSTRAP_RESAMPLES, len(rounds)))
    parts = [
        statistics(rounds[drawn[at : at + RESAMPLES_AT_ONCE]].reshape(-1, rounds.size))
        for at in range(0, BOOTSTRAP_RESAMPLES, RESAMPLES_AT_ONCE)
    ]
    resampled = np.concatenate(parts, axis=1)
    bounds = np.quantile(resampled, (0.5 - level / 2, 0.5 + level / 2), axis=1)
    values = statistics(rounds.reshape(-1))
    return [Interval(float(value), float(lo), float(hi)) for value, lo, hi in zip(values, *bounds, strict=True)]
