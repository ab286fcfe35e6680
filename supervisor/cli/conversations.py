"""`hashee-agent conversations`: which conversations there are, to send into one of them."""

from collections.abc import Iterable
from contextlib import aclosing

import click
import msgspec
import trio

from bus.views.conversations import Conversations, KnownConversation
from supervisor.cli.keys.telling import told
from supervisor.cli.store import REFUSALS, open_store, shown, time_of

FIRST = 100
"""Enough for a person to read; all 100,000 take a few seconds."""


@click.command(short_help="Which conversations there are, those heard last first.")
@click.option("--all", "everything", is_flag=True, help=f"All of them in no order, not the latest {FIRST} alone.")
@click.option("--person", help="Only those of this person or group, by their id.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def conversations(everything: bool, person: str | None, as_json: bool) -> None:
    """Show the id of each conversation in which somebody has written, its kind (h2a or group), whose it is, and when it was last heard."""
    with told(*REFUSALS):
        has_more = trio.run(_show, everything or person is not None, person, as_json)
    if has_more:
        click.echo("and more: --all, or --person ID", err=True)


async def _show(everything: bool, person: str | None, as_json: bool) -> bool:
    """Shows conversations as they are read, each once; returns whether some were left out."""
    async with open_store() as store:
        reading = Conversations(store.client, store.names)
        if not everything:
            latest, has_more = await reading.latest(FIRST)
            _tell(latest, as_json)
            return has_more
        told_of: set[str] = set()
        async with aclosing(reading.all()) as pages:
            async for page in pages:
                new = {one.conversation_id: one for one in page if person in (None, one.person)}
                _tell([one for name, one in new.items() if name not in told_of], as_json)
                told_of |= new.keys()
    return False


def _tell(page: Iterable[KnownConversation], as_json: bool) -> None:
    lines = [_as_json(one) if as_json else _line(one) for one in page]
    if lines:
        click.echo("\n".join(lines))


def _line(one: KnownConversation) -> str:
    heard = time_of(one.heard_ms) if one.heard_ms else "not known"
    return f"{shown(one.conversation_id)}  {one.kind}  {shown(one.person)}  last heard {heard}"


def _as_json(one: KnownConversation) -> str:
    return msgspec.json.encode(msgspec.structs.asdict(one) | {"heard_ms": one.heard_ms or None}).decode()
