"""Times on a machine that does other things too."""

import time

import numpy as np
import pytest

PATIENCE_S = 15.0


@pytest.fixture
def fastest():
    """The fastest of rounds of measurements, which is free of what else the machine does."""

    def fastest(measure, within, least=2):
        """The least of each time that `measure()` returns, of rounds that go on until they are `within` a limit.

        More rounds lower all times towards the truth, and let nothing pass that is too slow. Patience ends, too.
        """
        ends, best, rounds = time.monotonic() + PATIENCE_S, np.inf, 0
        while rounds < least or not (within(*best) or time.monotonic() > ends):
            best = np.minimum(best, measure())
            rounds += 1
        return best

    return fastest
