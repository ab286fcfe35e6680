"""How the commands under `keys` say what is wrong: one line and status 1, never a key or a passphrase."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from crypto.keystore import KeystoreError


@contextmanager
def told(*problems: type[Exception]) -> Iterator[None]:
    """Failures that a person can do something about, as click shows them: `problems`, and what happens to files."""
    told_by_text: tuple[type[Exception], ...] = (KeystoreError, *problems)
    try:
        yield
    except told_by_text as problem:
        notes: list[str] = getattr(problem, "__notes__", [])
        raise click.ClickException("\n".join([str(problem), *notes])) from None
    except FileExistsError as problem:
        place = problem.filename2 or problem.filename
        raise click.ClickException(f"{place} is there already; it is left as it is") from None
    except OSError as problem:
        raise click.ClickException(f"{problem.filename or 'a file'}: {problem.strerror}") from None
