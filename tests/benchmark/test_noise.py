"""Verdicts on times with a known true difference."""

import numpy as np
import pytest

from histoedge.benchmark import noise
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval


def rounds(random, count, *, slower=1.0):
    """Return (count, 20) times; rounds differ by 2 %, as times of the same file do between processes."""
    offsets = random.normal(0, 0.02, (count, 1))
    return slower * np.exp(offsets + np.abs(random.normal(0, 0.03, (count, 20))))


def test_the_same_file_rarely_differs_and_a_change_of_five_per_cent_is_detected():
    random = np.random.default_rng(0)
    same, slower = [], []
    for seed in range(100):
        a, b = rounds(random, 20), rounds(random, 20)
        same.append(noise.speed(noise.ratio_in_one_run(a, b, seed=seed, starts=0)))
        slow = rounds(random, 20, slower=1.05)
        slower.append(noise.speed(noise.ratio_in_one_run(slow, b, seed=seed, starts=0)))
    assert same.count("within noise") >= 97
    assert slower.count("slower") >= 90


def test_the_same_file_in_two_processes_rarely_differs():
    random = np.random.default_rng(0)
    verdicts: dict[tuple[float, float], list[str]] = {
        (slower, starts): [] for slower in (1.0, 1.05) for starts in (0, noise.STARTS)
    }
    for seed in range(100):
        spread = np.abs(random.normal(0, 0.003, (2, 20, 20)))
        start = random.normal(0, noise.STARTS / np.sqrt(2), (2, 1, 1))  # a shift per process
        a, b = np.exp(start + spread)
        for slower, starts in verdicts:
            ratio = noise.ratio_in_one_run(slower * a, b, seed=seed, starts=starts)
            verdicts[slower, starts].append(noise.speed(ratio))
    assert verdicts[1.0, noise.STARTS].count("within noise") >= 97
    assert verdicts[1.05, noise.STARTS].count("slower") == 100
    assert verdicts[1.0, 0].count("within noise") < 50


def test_a_higher_level_has_a_wider_interval_and_one_round_is_refused():
    random = np.random.default_rng(0)
    a, b = rounds(random, 8), rounds(random, 8)
    at_95, at_99 = (noise.ratio_in_one_run(a, b, level=level) for level in (0.95, 0.99))
    assert at_99.lo < at_95.lo < at_95.value == at_99.value < at_95.hi < at_99.hi
    with pytest.raises(DataError, match="1 round shows no spread"):
        noise.ratio_in_one_run(a[:1], b[:1])


def test_the_variances_of_two_runs_and_of_drift_are_added():
    certain = Interval(2.0, 2.0 * (1 - 1e-9), 2.0 * (1 + 1e-9))
    ratio = noise.ratio_between_runs(certain, Interval(1.0, 1 - 1e-9, 1 + 1e-9))
    reach = np.exp(2.5758293 * noise.DRIFT)  # the normal distribution's 99.5 % quantile
    assert (ratio.value, ratio.lo, ratio.hi) == pytest.approx((2.0, 2.0 / reach, 2.0 * reach))
    uncertain = Interval(1.0, np.exp(-1.9599640 * 0.1), np.exp(1.9599640 * 0.1))
    wide = noise.ratio_between_runs(certain, uncertain)
    assert np.log(wide.hi / 2) == pytest.approx(2.5758293 * np.hypot(noise.DRIFT, 0.1))


def test_runs_of_a_single_round_are_not_compared():
    assert noise.ratio_between_runs(Interval(1.0, 1.0, 1.0), Interval(1.0, 0.9, 1.1)) is None


@pytest.mark.parametrize(
    ("lo", "hi", "verdict"), [(0.8, 0.9, "faster"), (1.1, 1.2, "slower"), (0.9, 1.1, "within noise")]
)
def test_an_interval_that_contains_one_is_noise(lo, hi, verdict):
    assert noise.speed(Interval((lo + hi) / 2, lo, hi)) == verdict


def test_the_differences_of_another_machine_are_listed():
    here = {"cpu": "Xeon", "cpu_flags": ["avx", "amx_int8"], "load_average": [1.0], "python": "3.11"}
    assert noise.other_machine(here, {**here, "load_average": [9.0], "python": "3.12"}) == []
    other = {**here, "cpu": "Ryzen", "cpu_flags": ["avx", "avx2"]}
    assert noise.other_machine(here, other) == ["cpu: Xeon -> Ryzen", "cpu_flags: -amx_int8 +avx2"]
