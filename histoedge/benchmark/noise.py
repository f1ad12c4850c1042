"""Which differences of times are more than noise, at the 1 % level: within one run, and between two runs."""

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
"""Standard deviation of the logarithm of p50 over p50 of one file in two runs, beyond what the intervals of both tell.
Of 32 cells of ``edge`` measured twice by this suite, unchanged files, runtimes and machine (16 as it is, 16 as if it
had no AMX; both states of ``benchmarks/results`` are in its history), the root mean square was 0.035, of which the
intervals explain 0.012. The cells of a run moved together: that is the machine, and a longer run would not show it."""

STARTS = 0.005
"""Standard deviation of the logarithm of p50 over p50 of one file in two processes that are timed in turns, beyond what
the rounds tell: where code and data come to lie differs from start to start. Of 50 pairs of processes on a quiet
machine it was 0.0046, while the rounds of a pair told 0.0009; noisier machines hide it (``benchmarks/aa.py --processes
kept``)."""

MACHINE = ("cpu", "cpu_flags", "cpus_allowed", "cpu_quota", "cpu_governor", "machine")
"""What two environments must share before their times compare."""


def ratio_in_one_run(
    a_ms: ArrayLike, b_ms: ArrayLike, *, level: float = LEVEL, seed: int = 0, starts: float = STARTS
) -> Interval:
    """Median time of a over that of b in interleaved rounds, with an interval wide enough for few rounds.

    ``metrics.ratio_of_medians`` with the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know
    About the Bootstrap", section 5.3): a bootstrap of n rounds is too narrow by sqrt((n - 1) / n) and by the ratio of
    the normal quantile to Student's, so it is asked for the level that makes up for both. The variance of ``starts`` is
    added, so that the interval speaks of two files and not of two processes.

    Args:
        a_ms: (rounds, runs), milliseconds above 0.
        b_ms: (rounds, runs of b), as many rounds, at least 2.
        level: confidence, between 0 and 1.
        seed: of the resampling.
        starts: as ``STARTS`` where each file kept one process; 0 where every round had fresh ones.

    Raises:
        DataError: as ``metrics.ratio_of_medians``, or one round only.
    """
    rounds = len(a_ms)  # type: ignore[arg-type]
    if rounds < 2:
        raise DataError(f"{rounds} round shows no spread; measure several")
    quantile = float(stats.t.ppf(0.5 + level / 2, rounds - 1)) * math.sqrt(rounds / (rounds - 1))
    asked = 1 - 2 * float(stats.norm.sf(quantile))
    ratio = metrics.ratio_of_medians(a_ms, b_ms, level=asked, seed=seed)
    start = float(stats.norm.ppf(0.5 + level / 2)) * starts
    down, up = (math.exp(math.hypot(math.log(bound / ratio.value), start)) for bound in (ratio.lo, ratio.hi))
    return Interval(ratio.value, ratio.value / down, ratio.value * up)


def ratio_between_runs(new: Interval, old: Interval, *, level: float = LEVEL) -> Interval | None:
    """A time of one run over the same cell's time of another run, with an interval that knows of drift.

    The runs were not interleaved, so nothing cancels: the variances of both logarithms and that of the ``DRIFT``
    between runs add up. However long both measured, a change of some 9 % is the least that can be told from noise.

    Args:
        new: a median with its 95 % interval, milliseconds above 0.
        old: the same of the other run.
        level: confidence, between 0 and 1.

    Returns:
        The ratio; None where an interval has no width, as that of a single round, which shows no spread.
    """
    if new.lo == new.hi or old.lo == old.hi or min(new.lo, old.lo) <= 0:
        return None
    error = math.hypot(*(_log_error(one) for one in (new, old)), DRIFT)
    reach = math.exp(float(stats.norm.ppf(0.5 + level / 2)) * error)
    ratio = new.value / old.value
    return Interval(ratio, ratio / reach, ratio * reach)


def speed(ratio: Interval) -> Speed:
    """What the interval of a ratio of times says of the one on top; ``within noise`` where it holds 1."""
    if ratio.hi < 1:
        return "faster"
    return "slower" if ratio.lo > 1 else "within noise"


def other_machine(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Why times of these two environments do not compare, such as ``cpu: Xeon -> Ryzen``; empty where they do."""
    return [f"{name}: {said(a.get(name), b.get(name))}" for name in MACHINE if a.get(name) != b.get(name)]


def said(a: Any, b: Any) -> str:
    """``a -> b``; of two lists what only one of them holds: ``-avx2 +amx_int8``."""
    if isinstance(a, list) and isinstance(b, list):
        return " ".join([*(f"-{one}" for one in a if one not in b), *(f"+{one}" for one in b if one not in a)])
    return f"{a} -> {b}"


def _log_error(found: Interval) -> float:
    """Standard error of the logarithm of a value with a 95 % interval."""
    return math.log(found.hi / found.lo) / (2 * float(stats.norm.ppf(0.975)))
