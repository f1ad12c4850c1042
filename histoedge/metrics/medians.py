"""Median latency over rounds, and ratios of medians, with bootstrap intervals."""

import numpy as np
from numpy.typing import ArrayLike

from histoedge.edge.errors import DataError
from histoedge.metrics.interval import BOOTSTRAP_RESAMPLES, Floats, Interval, percentile_interval


def median(rounds_ms: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the median of all times with a bootstrap interval that resamples whole rounds.

    The times of a round share the state of the machine; rounds are the independent units (a block bootstrap: Kuensch
    1989; percentile interval: Efron and Tibshirani 1993, chapter 13).

    Args:
        rounds_ms: (rounds, runs), milliseconds, finite.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: the shape is not (rounds, runs) with at least one of each, or a time is not finite.
    """
    rounds = _rounds(rounds_ms)
    chosen = np.random.default_rng(seed).integers(0, len(rounds), (BOOTSTRAP_RESAMPLES, len(rounds)))
    medians = np.median(rounds[chosen].reshape(BOOTSTRAP_RESAMPLES, -1), axis=1)
    low, high = percentile_interval(medians, level)
    return Interval(float(np.median(rounds)), low, high)


def ratio_of_medians(a_ms: ArrayLike, b_ms: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the median over rounds of (median time of a) / (median time of b), with a bootstrap interval.

    Round k of a and round k of b ran next to each other. Disturbances of the machine affect both and cancel, even if
    they last only a few rounds. They do not cancel in the quotient of the medians over all rounds: if some rounds are
    slow, only one of the two medians may be among them (``benchmarks/aa.py``). Whole rounds are resampled, as for
    ``median``.

    Args:
        a_ms: (rounds, runs), milliseconds above 0.
        b_ms: (rounds, runs of b), as many rounds.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: the number of rounds differs, a time is not finite, or the median of b is 0.
    """
    a, b = _rounds(a_ms), _rounds(b_ms)
    if len(a) != len(b):
        raise DataError(f"{len(a)} rounds cannot be paired with {len(b)}; measure both in the same run")
    if np.min(b) <= 0:
        raise DataError("a reference time of 0 ms, expected above 0; the clock is too coarse for this model")
    ratios = np.median(a, axis=1) / np.median(b, axis=1)
    return median(ratios[:, None], level=level, seed=seed)


def _rounds(times: ArrayLike) -> Floats:
    rounds = np.asarray(times, np.float64)
    if rounds.ndim != 2 or rounds.size == 0:
        raise DataError(f"times have shape {rounds.shape}; expected (rounds, runs) with at least one of each")
    if not np.isfinite(rounds).all():
        raise DataError("times that are not finite; expected finite milliseconds")
    return rounds
