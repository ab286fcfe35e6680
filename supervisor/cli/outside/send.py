"""`hashee-agent send`: says something in a conversation that no message has asked for.

A text, a card, or a reminder whose handler runs there.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import click
import msgspec

from bus.records import ulid
from bus.records.outside import OutsideMessage
from bus.records.records import Payload
from host.unreadable import UNREADABLE, can_be_kept
from supervisor.cli.outside.queueing import queue, queued
from supervisor.outbound.from_outside import MOST_CHARACTERS
from workers.errors import BadCard
from workers.talk.card_files import card_of
from workers.talk.cards import MOST_PAYLOAD_BYTES, card_payload


@click.command(short_help="Say something in a conversation.")
@click.option(
    "--to", "conversation_ids", multiple=True, required=True, help="The conversation; name several, each is sent to."
)
@queued
@click.option("--markdown", is_flag=True, help="The text is Markdown.")
@click.option(
    "--artifact",
    type=click.File("rb"),
    help='No text: a card, as JSON {"subtype": …, "title": …, "payload": {…}} in this file (- for stdin).',
)
@click.option("--reminder", metavar="NAME", help="No text: the handler @agent.on_reminder(NAME) runs there.")
@click.option("--data", "data", help="JSON that this handler is given.")
@click.argument("text", required=False)
def send(
    *,
    conversation_ids: Sequence[str],
    key: str | None,
    markdown: bool,
    wait_seconds: float | None,
    as_json: bool,
    artifact: BinaryIO | None,
    reminder: str | None,
    data: str | None,
    text: str | None,
) -> int:
    """Say TEXT (- reads it from stdin) in a conversation of `hashee-agent conversations`.

    \b
    Ends with 0 when all of it is queued (with --wait: the relay has it), 1 when some
    of it never will be, 74 when all of it is and stdout did not take that (stderr
    has it), 75 when the same command may go well in a moment.
    """
    if [text, artifact, reminder].count(None) != 2 or (data is not None and reminder is None):
        raise click.UsageError("name a TEXT (- for stdin), or --artifact FILE, or --reminder NAME, perhaps with --data")
    if artifact is not None and markdown:
        raise click.UsageError("--markdown is for a text")
    if reminder is not None and wait_seconds is not None:
        raise click.UsageError("--wait is for a text: hashee-agent trace shows what a reminder's handler does")
    said = _from_stdin() if text == "-" else as_utf8(text or "")
    told_to_handler = None if data is None else _decoded(data)
    messages = [
        OutsideMessage(one, said, markdown, key, reminder, told_to_handler, card)
        for one, card in _cards(dict.fromkeys(conversation_ids), artifact)
    ]
    return queue(messages, wait_seconds, as_json)


def _cards(conversation_ids: Iterable[str], artifact: BinaryIO | None) -> Iterator[tuple[str, Payload | None]]:
    """Yields each conversation with the card that it is shown, each under an id of its own."""
    card = None
    if artifact is not None:
        try:
            card = card_of(artifact.read(MOST_PAYLOAD_BYTES + 1))
        except BadCard as problem:
            raise click.ClickException(str(problem)) from None
    for one in conversation_ids:
        yield one, None if card is None else card_payload(card, ulid.new())


def _decoded(data: str) -> object:
    try:
        value: object = msgspec.json.decode(data)
    except UNREADABLE:
        raise click.UsageError("--data is JSON, such as '{\"number\": 42}'") from None
    if not can_be_kept(value):
        raise click.UsageError(
            "--data holds a number of over 64 bits, or is nested too deeply: send such a number as a text"
        )
    return value


def as_utf8(argument: str) -> str:
    """Returns what a locale that knows ASCII alone (C, POSIX) made of an argument, as the UTF-8 that it is; any other as it is."""
    if not any("\udc80" <= character <= "\udcff" for character in argument):
        return argument
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument  # which is said to be none by whoever takes it in


def _from_stdin() -> str:
    """Returns the text without its last line end; what is too long is not read to its end."""
    read = sys.stdin.buffer.read(4 * MOST_CHARACTERS + 2)
    try:
        return read.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as problem:
        if problem.reason == "unexpected end of data" and len(read) > 4 * MOST_CHARACTERS:
            return read[: problem.start].decode("utf-8")
        raise click.ClickException("this text is no valid UTF-8: convert it before it is sent") from None
