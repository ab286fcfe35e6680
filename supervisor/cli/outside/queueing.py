"""Shared by the commands that say something by themselves: how each is told, queued and waited for.

They go through the store, as the other commands do that act on it: at once where an agent runs, else when one starts.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

import click
import msgspec
import trio

from bus.records.outside import OutsideMessage
from bus.steps.outside import OutsideMessages
from bus.steps.store import InboundStore
from bus.steps.vault import Vault
from bus.transport.clock import redis_ms
from bus.transport.wire import RedisFull
from bus.views.trace import TAKEN_BACK, Ledger
from supervisor.cli.ending import EXIT_OUTPUT
from supervisor.cli.keys.telling import told
from supervisor.cli.store import REFUSALS, OpenStore, open_store
from supervisor.outbound.from_outside import FromOutside, NotTakenIn, OutsideReceipt
from supervisor.store.access import running_supervisor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

EXIT_REFUSED: Final = 1
EXIT_TRY_AGAIN: Final = 75
"""EX_TEMPFAIL of sysexits.h: the same command may go well in a moment."""

LOOK_SECONDS: Final = 0.1
WHO: Final = "hashee-agent send"
NO_AGENT: Final = "no agent runs now: it goes out when one starts (hashee-agent up)"

one_conversation = click.option(
    "--to", "conversation_id", metavar="CONVERSATION", required=True, help="The conversation."
)


def queued(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Adds the options of a command that queues something."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
        click.option(
            "--wait",
            "wait_seconds",
            type=click.FloatRange(min=0),
            help="Until the relay has it, so many seconds at most.",
        ),
        click.option("--key", help="Do it once, however often this is run: remembered for 30 days."),
    ):
        command = option(command)
    return command


def queue(messages: Sequence[OutsideMessage], wait_seconds: float | None, as_json: bool) -> int:
    """Queues each, and waits for it; returns the exit status."""
    with told(*REFUSALS):
        return trio.run(_send_all, messages, wait_seconds, as_json)


def outside_of(store: OpenStore) -> FromOutside:
    """Returns what takes messages in, over an open store."""
    return FromOutside(
        OutsideMessages(store.client, store.names),
        InboundStore(store.client, store.names.agent_id, WHO),
        Vault(store.client, store.names, store.keys.state),
        store.keys,
    )


async def _send_all(messages: Sequence[OutsideMessage], wait_seconds: float | None, as_json: bool) -> int:
    async with open_store() as store:
        return await queue_into(store, messages, wait_seconds, as_json)


async def queue_into(
    store: OpenStore, messages: Sequence[OutsideMessage], wait_seconds: float | None, as_json: bool
) -> int:
    """Queues each in an open store, and waits for it; returns the exit status."""
    began_ms = await redis_ms(store.client)
    receipts, status = await _queue(store, messages, as_json)
    if receipts and await running_supervisor(store.client, store.names) is None:
        click.echo(NO_AGENT, err=True)
    if wait_seconds is not None and receipts:
        status = _worse(status, await _wait(store, receipts, began_ms, wait_seconds))
    return status


async def _queue(
    store: OpenStore, messages: Sequence[OutsideMessage], as_json: bool
) -> tuple[list[OutsideReceipt], int]:
    """Queues each; returns what was queued, and the exit status so far."""
    outside = outside_of(store)
    receipts, status = [], 0
    for message in messages:
        try:
            receipt = await outside.send(message)
        except NotTakenIn as problem:
            click.echo(f"Error: {problem}", err=True)
            status = _worse(status, EXIT_TRY_AGAIN if problem.is_temporary else EXIT_REFUSED)
        except RedisFull as problem:
            click.echo(
                f"Error: Redis takes nothing in now ({problem}); nothing was queued: try again in a moment", err=True
            )
            status = _worse(status, EXIT_TRY_AGAIN)
        else:
            receipts.append(receipt)
            status = _worse(status, _tell(receipt, as_json))
    return receipts, status


def _tell(receipt: OutsideReceipt, as_json: bool) -> int:
    """Says what became of a message; returns the exit status. Where stdout does not take it, it is said on stderr: the message is queued."""
    line = (
        msgspec.json.encode(receipt).decode()
        if as_json
        else f"{receipt.conversation_id}  {receipt.outcome}  {receipt.id}"
    )
    try:
        click.echo(line)
    except OSError as problem:
        with suppress(OSError):
            click.echo(f"Error: the output cannot be written: {problem.strerror}; what it says holds: {line}", err=True)
        return EXIT_OUTPUT
    return 0


async def _wait(store: OpenStore, receipts: Sequence[OutsideReceipt], began_ms: int, seconds: float) -> int:
    """Waits until the relay has all of it; returns the exit status."""
    ledger = Ledger(store.client, store.names)
    waiting = {one.id: one.conversation_id for one in receipts if one.outcome != TAKEN_BACK}
    since = "-" if any(receipt.outcome == "already" for receipt in receipts) else f"{began_ms}"
    status = 0
    with trio.move_on_after(seconds):
        while waiting:
            ended, since = await ledger.ended(waiting.keys(), since)
            for message_id, reason in ended.items():
                conversation = waiting.pop(message_id)
                if reason:
                    kept = "" if reason == TAKEN_BACK else "; it is a dead letter: hashee-agent dead list"
                    click.echo(f"Error: not sent into {conversation}: {reason}{kept}", err=True)
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
