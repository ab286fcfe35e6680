"""`hashee-agent send`: says something in a conversation that no message has asked for.

It goes through the store, as the other commands do that act on it: at once where an agent runs, else when one starts.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

import click
import msgspec
import trio

from bus.records import ulid
from bus.records.outside import OutsideMessage
from bus.records.records import Payload
from bus.steps.outside import OutsideMessages
from bus.steps.store import Store
from bus.steps.vault import Vault
from bus.transport.clock import redis_ms
from bus.transport.wire import RedisFull
from bus.views.trace import Ledger
from supervisor.cli.keys.telling import told
from supervisor.cli.store import REFUSALS, OpenStore, open_store
from supervisor.outbound.from_outside import MOST_CHARACTERS, FromOutside, NotSent, Receipt
from supervisor.store.access import running_supervisor
from workers.errors import BadCard
from workers.talk.card_files import card_of
from workers.talk.cards import MOST_PAYLOAD_BYTES, card_payload

EXIT_REFUSED: Final = 1
EXIT_TRY_AGAIN: Final = 75
"""EX_TEMPFAIL of sysexits.h: the same command may go well in a moment."""

LOOK_SECONDS: Final = 0.1
WHO: Final = "hashee-agent send"


@click.command(short_help="Say something in a conversation.")
@click.option(
    "--to", "conversation_ids", multiple=True, required=True, help="The conversation; name several, each is sent to."
)
@click.option("--key", help="Send it once, however often this is run: remembered for 30 days.")
@click.option("--markdown", is_flag=True, help="The text is Markdown.")
@click.option(
    "--wait", "wait_seconds", type=click.FloatRange(min=0), help="Until the relay has it, so many seconds at most."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
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
    of it never will be, 75 when the same command may go well in a moment.
    """
    if [text, artifact, reminder].count(None) != 2 or (data is not None and reminder is None):
        raise click.UsageError("name a TEXT (- for stdin), or --artifact FILE, or --reminder NAME, perhaps with --data")
    if artifact is not None and markdown:
        raise click.UsageError("--markdown is for a text")
    if reminder is not None and wait_seconds is not None:
        raise click.UsageError("--wait is for a text: hashee-agent trace shows what a reminder's handler does")
    said = _from_stdin() if text == "-" else text or ""
    told_to_handler = None if data is None else _decoded(data)
    messages = [
        OutsideMessage(one, said, markdown, key, reminder, told_to_handler, card)
        for one, card in _cards(dict.fromkeys(conversation_ids), artifact)
    ]
    with told(*REFUSALS):
        return trio.run(_send_all, messages, wait_seconds, as_json)


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
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise click.UsageError("--data is JSON, such as '{\"number\": 42}'") from None


def _from_stdin() -> str:
    """Returns the text without its last line end; what is too long is not read to its end."""
    read = sys.stdin.buffer.read(4 * MOST_CHARACTERS + 2)
    try:
        return read.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as problem:
        if problem.reason == "unexpected end of data" and len(read) > 4 * MOST_CHARACTERS:
            return read[: problem.start].decode("utf-8")
        raise click.ClickException("this text is no valid UTF-8: convert it before it is sent") from None


async def _send_all(messages: Sequence[OutsideMessage], wait_seconds: float | None, as_json: bool) -> int:
    async with open_store() as store:
        began_ms = await redis_ms(store.client)
        receipts, status = await _queue(store, messages, as_json)
        if receipts and await running_supervisor(store.client, store.names) is None:
            click.echo("no agent runs now: it goes out when one starts (hashee-agent up)", err=True)
        if wait_seconds is not None and receipts:
            status = _worse(status, await _wait(store, receipts, began_ms, wait_seconds))
    return status


async def _queue(store: OpenStore, messages: Sequence[OutsideMessage], as_json: bool) -> tuple[list[Receipt], int]:
    """Queues each; returns what was queued, and the exit status so far."""
    outside = FromOutside(
        OutsideMessages(store.client, store.names),
        Store(store.client, store.names.agent_id, WHO),
        Vault(store.client, store.names, store.keys.state),
        store.keys,
    )
    receipts, status = [], 0
    for message in messages:
        try:
            receipt = await outside.send(message)
        except NotSent as problem:
            click.echo(f"Error: {problem}", err=True)
            status = _worse(status, EXIT_TRY_AGAIN if problem.is_temporary else EXIT_REFUSED)
        except RedisFull as problem:
            click.echo(
                f"Error: Redis takes nothing in now ({problem}); nothing was queued: try again in a moment", err=True
            )
            status = _worse(status, EXIT_TRY_AGAIN)
        else:
            receipts.append(receipt)
            _tell(receipt, as_json)
    return receipts, status


def _tell(receipt: Receipt, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(receipt).decode())
    else:
        click.echo(f"{receipt.conversation_id}  {receipt.outcome}  {receipt.id}")


async def _wait(store: OpenStore, receipts: Sequence[Receipt], began_ms: int, seconds: float) -> int:
    """Waits until the relay has all of it; returns the exit status."""
    ledger = Ledger(store.client, store.names)
    waiting = {receipt.id: receipt.conversation_id for receipt in receipts}
    since = "-" if any(receipt.outcome == "already" for receipt in receipts) else f"{began_ms}"
    status = 0
    with trio.move_on_after(seconds):
        while waiting:
            ended, since = await ledger.ended(waiting.keys(), since)
            for message_id, reason in ended.items():
                conversation = waiting.pop(message_id)
                if reason:
                    click.echo(
                        f"Error: not sent into {conversation}: {reason}; it is a dead letter: hashee-agent dead list",
                        err=True,
                    )
                    status = EXIT_REFUSED
            if waiting:
                await trio.sleep(LOOK_SECONDS)
    if not waiting:
        return status
    click.echo(
        f"Error: the relay does not have {len(waiting)} of it yet; it is queued and goes out: hashee-agent trace {next(iter(waiting))}",
        err=True,
    )
    return _worse(status, EXIT_TRY_AGAIN)


def _worse(one: int, other: int) -> int:
    """Returns the exit status that says more: what never goes out, then what may in a moment."""
    return EXIT_REFUSED if EXIT_REFUSED in (one, other) else max(one, other)
