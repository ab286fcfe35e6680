"""What all tests have in common."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.memory import own_memory
from tests.skips import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]

# Hypothesis fails by the clock what is drawn or runs slowly, and in a fresh clone the first text builds tables of Unicode.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _memory_of_this_session() -> Iterator[None]:
    """Agents that tests start leave nothing in memory behind."""
    with own_memory():
        yield
