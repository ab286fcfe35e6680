"""What all tests have in common."""

from collections.abc import Iterator

import pytest

from tests.memory import own_memory
from tests.skips import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(scope="session", autouse=True)
def _memory_of_this_session() -> Iterator[None]:
    """Agents that tests start leave nothing in memory behind."""
    with own_memory():
        yield
