"""Labels with two correlated scores each."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def cases():
    """``cases(count, seed=3)``: labels, scores and correlated scores of some patches, with and without ties."""

    def draw(count, seed=3):
        random = np.random.default_rng(seed)
        for case in range(count):
            n = int(random.integers(8, 60))
            labels = np.r_[0, 0, 1, 1, random.integers(0, 2, n)]
            first = random.normal(labels, 1.0)
            second = first + random.normal(0, 0.7, len(labels))
            digits = case % 3  # 0 and 1 decimals: many ties
            yield labels, np.round(first, digits), np.round(second, digits)

    return draw
