"""The clock of tests that wait for real sockets."""

import pytest
import trio.testing


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for 10 real ms: what is on its way through the kernel arrives first."""
    return trio.testing.MockClock(autojump_threshold=0.01)
