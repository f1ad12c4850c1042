"""Random labels and scores for the tests of metrics."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def cases():
    """``cases(count)`` yields labels and two vectors of scores, rounded to 0, 1 and 2 decimals in turn."""

    def drawn(count, seed=3):
        random = np.random.default_rng(seed)
        for case in range(count):
            n = int(random.integers(8, 60))
            labels = np.r_[0, 0, 1, 1, random.integers(0, 2, n)]
            first = random.normal(labels, 1.0)
            second = first + random.normal(0, 0.7, len(labels))
            digits = case % 3  # many ties with 0 and 1 decimals
            yield labels, np.round(first, digits), np.round(second, digits)

    return drawn
