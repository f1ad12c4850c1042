"""Quantiles, the stop rule and the length of a round, for known times."""

import dataclasses

import numpy as np
import pytest

from histoedge import metrics
from histoedge.benchmark import timing
from histoedge.config import BenchPlan


def rounds(count, *, runs=20, spread=0.01, drift=0.0, seed=0):
    random = np.random.default_rng(seed)
    return [(1 + drift * k) * (1 + spread * random.random(runs)) for k in range(count)]


def test_the_median_and_its_interval_are_those_of_metrics():
    times = rounds(7, drift=0.02)
    (median,) = timing.quantiles(times, [0.5], seed=3)
    expected = metrics.median(np.stack(times), seed=3)
    assert dataclasses.astuple(median) == pytest.approx(dataclasses.astuple(expected), rel=1e-12)


def test_quantiles_of_the_same_rounds_are_ordered_and_within_their_bounds():
    quantiles = timing.quantiles(rounds(7, drift=0.02), [0.5, 0.9, 0.99])
    assert [quantile.value for quantile in quantiles] == sorted(quantile.value for quantile in quantiles)
    assert all(quantile.lo <= quantile.value <= quantile.hi for quantile in quantiles)


def test_the_interval_of_a_median_covers_the_true_one():
    covered = 0
    for seed in range(100):
        drift = np.random.default_rng([1, seed]).normal(1, 0.05, (20, 1))
        (median,) = timing.quantiles(list(drift * np.random.default_rng([2, seed]).normal(1, 0.05, (20, 10))), [0.5])
        covered += median.lo <= 1 <= median.hi
    assert covered >= 86  # 95 expected of 100; percentile intervals of 20 blocks are somewhat short: below 86 is 1e-4


def test_throughput_is_outputs_over_the_total_time():
    rate = timing.throughput([np.array([1.0, 3.0]), np.array([2.0, 2.0])], 8)
    assert rate.value == rate.lo == rate.hi == 8 / 2e-3


@pytest.mark.parametrize(
    ("times", "more"),
    [
        (rounds(2), True),  # fewer rounds than the plan requires
        (rounds(3), False),
        (rounds(3, drift=0.3), True),  # too wide
        (rounds(60, drift=0.3), False),  # too wide, but out of time
        ([np.full(2, 1.0)] * 3, True),  # narrow, but less than min_seconds
    ],
)
def test_the_stop_rule(times, more):
    plan = BenchPlan(rounds=3, min_seconds=0.03, max_seconds=1.0, settled_width=0.1)
    assert timing.wants_more(times, plan) is more


def test_the_reason_of_an_unsettled_cell_states_the_width():
    plan = BenchPlan(settled_width=0.05)
    assert timing.unsettled(rounds(10), plan) is None
    assert "one round" in timing.unsettled(rounds(1), plan)
    assert "after 10 rounds and " in timing.unsettled(rounds(10, drift=0.3), plan)
    assert "the plan requires 5%" in timing.unsettled(rounds(10, drift=0.3), plan)


@pytest.mark.parametrize(("call_ms", "calls"), [(0.1, 50), (100, 20), (5000, 1), (0.0, 50)])
def test_a_round_is_not_longer_than_planned(call_ms, calls):
    assert timing.calls_of_a_round(call_ms, BenchPlan(runs_per_round=50, round_s=2.0)) == calls
