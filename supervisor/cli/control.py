"""Sends a request of `status`, `stop`, `reload` or `scale` to the running agent, and returns its answers.

If no agent answers, or it refuses, the command ends with status 1 and one line that says what helps.
"""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from bus.settings.places import control_directories, control_place
from host.lines import Lines, UnreadableLine
from host.socket_place import RuntimeDirectoryUnsafe
from supervisor.control.control_socket import Answer, Request, read_answer

RECEIVE_BYTES = 65536
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
UNREADABLE = "the agent's answer cannot be read; is hashee-agent another version here?"


class NoAnswer(Exception):
    """There is no answer; the text says why and what helps."""


def ask(request: Request, *, patience_seconds: float | None = ANSWER_SECONDS) -> Iterator[Answer]:
    """Yields the answers as they come, until the agent ends the connection or the caller stops.

    `patience_seconds`: for each answer; None: without a limit. Ends the process with status 1 if there is none.
    """
    try:
        yield from answers(request, *control_directories(os.environ), patience_seconds=patience_seconds)
    except NoAnswer as problem:
        give_up(str(problem))


def answers(
    request: Request, state_dir: Path, runtime_dir: Path, *, patience_seconds: float | None
) -> Iterator[Answer]:
    """Yields the answers of the agent of this state directory; makes no file or folder. Raises NoAnswer."""
    if not state_dir.is_dir():
        raise NoAnswer(
            f"no agent runs here: {state_dir} is not there (start one with hashee-agent up, or set HASHEE_STATE_DIR)"
        )
    lines = Lines()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(str(control_place(state_dir, runtime_dir)))
        except PermissionError:
            raise NoAnswer(f"the agent of {state_dir} belongs to another user; run this as that user") from None
        except (OSError, RuntimeDirectoryUnsafe):
            raise NoAnswer(
                f"no agent runs on {state_dir} (start one with hashee-agent up, or set HASHEE_STATE_DIR)"
            ) from None
        connection.settimeout(patience_seconds)
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            while data := connection.recv(RECEIVE_BYTES):
                for line in lines.feed(data):
                    yield read_answer(line)
                if lines.too_long:
                    raise NoAnswer(UNREADABLE)
        except UnreadableLine:
            raise NoAnswer(UNREADABLE) from None
        except TimeoutError:
            raise NoAnswer(
                f"the agent has not answered for {patience_seconds:.0f} s; its log, or QUIT to it, says more"
            ) from None
        except ConnectionError:
            return


def ask_once(request: Request, *, patience_seconds: float | None = ANSWER_SECONDS) -> Answer:
    """Returns the first answer; ends the process with status 1 if it is a refusal."""
    return accepted(next(ask(request, patience_seconds=patience_seconds), None))


def accepted(answer: Answer | None) -> Answer:
    if answer is None:
        give_up("the agent ended before it answered: see its log, and start it again with hashee-agent up")
    if not answer.ok:
        give_up(answer.error)
    return answer


def give_up(why: str) -> NoReturn:
    click.echo(f"hashee-agent: {why}", err=True)
    sys.exit(1)
