"""Why an async test was skipped: pytest-trio finds the skip in what trio raises, and raises another without its words."""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """The skip that the test itself has raised, with its reason and its place."""
    try:
        return (yield)
    except pytest.skip.Exception as skipped:
        found: BaseException | None = skipped.__context__
        while isinstance(found, BaseExceptionGroup):
            [found] = found.exceptions
        raise (found if isinstance(found, pytest.skip.Exception) else skipped) from None
