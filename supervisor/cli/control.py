"""Sends a request of `status`, `stop`, `reload` or `scale` to the running agent, and returns its answers.

If no agent answers, or it refuses, the command ends with status 1 and one line that says what helps.
"""

import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from bus.control.client import ANSWER_SECONDS, Control, Unanswered
from bus.control.messages import ControlAnswer, Request


def ask(request: Request, *, patience_seconds: float | None = ANSWER_SECONDS) -> Iterator[ControlAnswer]:
    """Yields the answers as they come, until the agent ends the connection or the caller stops.

    `patience_seconds`: for each answer; None: without a limit. Ends the process with status 1 if there is none.
    """
    try:
        yield from Control.of(os.environ).answers(request, patience_seconds=patience_seconds)
    except Unanswered as problem:
        give_up(str(problem))


def ask_once(request: Request, *, patience_seconds: float | None = ANSWER_SECONDS) -> ControlAnswer:
    """Returns the first answer; ends the process with status 1 if it is a refusal."""
    return accepted(next(ask(request, patience_seconds=patience_seconds), None))


def accepted(answer: ControlAnswer | None) -> ControlAnswer:
    if answer is None:
        give_up("the agent ended before it answered: see its log, and start it again with hashee-agent up")
    if not answer.ok:
        give_up(answer.error)
    return answer


def give_up(why: str) -> NoReturn:
    click.echo(f"hashee-agent: {why}", err=True)
    sys.exit(1)
