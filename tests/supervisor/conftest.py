"""The clock of tests that wait for real sockets."""

import pytest
import trio.testing


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """trio's clock runs as it always does, and can be told to jump, beside a real Redis."""
    return trio.testing.MockClock(rate=1.0)


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for 10 real ms: what is on its way through the kernel arrives first."""
    return trio.testing.MockClock(autojump_threshold=0.01)
