"""Differences of times that are more than noise at the 1 % level, within one run and between two runs."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import ArrayLike
from scipy import stats

from histoedge import metrics
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval

Speed = Literal["faster", "slower", "within noise"]

LEVEL = 0.99
DRIFT = 0.033
"""Standard deviation of log(p50 / p50) of the same file in two runs, in addition to the intervals of both runs.
32 cells of ``edge`` were measured twice by this suite with the same files, runtimes and machine (16 with AMX, 16
without; both states are in the history of ``benchmarks/results``): the root mean square was 0.035, of which the
intervals explain 0.012. The cells of a run shifted together. The cause is the machine, and a longer run does not
reveal it."""

STARTS = 0.005
"""Standard deviation of log(p50 / p50) of the same file in two processes timed in turns, in addition to the spread of
the rounds: the placement of code and data in memory differs at each start. For 50 pairs of processes on a quiet machine
it was 0.0046, while the spread of the rounds of a pair explained 0.0009. On noisier machines it is hidden
(``benchmarks/aa.py --processes kept``)."""

MACHINE = ("cpu", "cpu_flags", "cpus_allowed", "cpu_quota", "cpu_governor", "machine")
"""Entries that must be equal in two environments before their times are compared."""


def ratio_in_one_run(
    a_ms: ArrayLike, b_ms: ArrayLike, *, level: float = LEVEL, seed: int = 0, starts: float = STARTS
) -> Interval:
    """Return the median time of a over that of b in interleaved rounds, with an interval corrected for few rounds.

    ``metrics.ratio_of_medians`` with the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know
    About the Bootstrap", section 5.3): a bootstrap of n rounds is too narrow by the factor sqrt((n - 1) / n) and by the
    ratio of the normal quantile to Student's. A higher level of the bootstrap compensates for both. The variance of
    ``starts`` is added because the interval is for two files, not for two processes.

    Args:
        a_ms: (rounds, runs), milliseconds above 0.
        b_ms: (rounds, runs of b), as many rounds, at least 2.
        level: confidence, between 0 and 1.
        seed: of the resampling.
        starts: ``STARTS`` if each file kept one process; 0 if every round started new processes.

    Raises:
        DataError: as ``metrics.ratio_of_medians``, or there is only one round.
    """
    rounds = len(a_ms)  # type: ignore[arg-type]
    if rounds < 2:
        raise DataError(f"{rounds} round shows no spread; measure several")
    quantile = float(stats.t.ppf(0.5 + level / 2, rounds - 1)) * math.sqrt(rounds / (rounds - 1))
    expanded_level = 1 - 2 * float(stats.norm.sf(quantile))
    ratio = metrics.ratio_of_medians(a_ms, b_ms, level=expanded_level, seed=seed)
    start = float(stats.norm.ppf(0.5 + level / 2)) * starts
    down, up = (math.exp(math.hypot(math.log(bound / ratio.value), start)) for bound in (ratio.lo, ratio.hi))
    return Interval(ratio.value, ratio.value / down, ratio.value * up)


def ratio_between_runs(new: Interval, old: Interval, *, level: float = LEVEL) -> Interval | None:
    """Return a cell's time in one run over its time in another run, with an interval that includes drift.

    The runs were not interleaved and nothing cancels: the variances of both logarithms and of the ``DRIFT`` between
    runs are added. About 9 % is the smallest change that can be distinguished from noise, for runs of any length.

    Args:
        new: a median with its 95 % interval, milliseconds above 0.
        old: the same of the other run.
        level: confidence, between 0 and 1.

    Returns:
        The ratio; None if an interval has no width, for example after a single round.
    """
    if new.lo == new.hi or old.lo == old.hi or min(new.lo, old.lo) <= 0:
        return None
    error = math.hypot(_log_error(new), _log_error(old), DRIFT)
    reach = math.exp(float(stats.norm.ppf(0.5 + level / 2)) * error)
    ratio = new.value / old.value
    return Interval(ratio, ratio / reach, ratio * reach)


def speed(ratio: Interval) -> Speed:
    """Return the verdict on the numerator of a ratio of times; ``within noise`` if the interval contains 1."""
    if ratio.hi < 1:
        return "faster"
    return "slower" if ratio.lo > 1 else "within noise"


def other_machine(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the reasons why times of two environments do not compare, such as ``cpu: Xeon -> Ryzen``; often empty."""
    return [f"{name}: {change_text(a.get(name), b.get(name))}" for name in MACHINE if a.get(name) != b.get(name)]


def change_text(a: Any, b: Any) -> str:
    """Return ``a -> b``; for two lists the items that are in only one of them: ``-avx2 +amx_int8``."""
    if isinstance(a, list) and isinstance(b, list):
        return " ".join([*(f"-{item}" for item in a if item not in b), *(f"+{item}" for item in b if item not in a)])
    return f"{a} -> {b}"


def _log_error(interval: Interval) -> float:
    """Return the standard error of the logarithm of a value with a 95 % interval."""
    return math.log(interval.hi / interval.lo) / (2 * float(stats.norm.ppf(0.975)))
