"""Finds in what a library raised the error of the operating system or of TLS that it was raised for."""

from typing import TypeVar

Problem = TypeVar("Problem", bound=OSError)


def cause_of(error: BaseException | None, kind: type[Problem]) -> Problem | None:
    """Returns the innermost cause of this type, since libraries wrap exceptions; of several tried addresses the first one's."""
    found = None
    while error is not None:
        found = error if isinstance(error, kind) else found
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error.__context__
    return found
