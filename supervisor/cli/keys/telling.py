"""Reports failures of the commands under `keys`: one line and status 1, never a key or a passphrase."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from crypto.keystore import KeystoreError
from host.reasons import fault_of_file, fault_of_output


@contextmanager
def told(*problems: type[Exception]) -> Iterator[None]:
    """Turns `problems` and failures of files into the errors that click shows."""
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
        if fault_of_output(problem):  # no file of the command's: supervisor/cli/ending.py says it
            raise
        raise click.ClickException(fault_of_file(problem)) from None
