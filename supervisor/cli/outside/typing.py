"""`hashee-agent typing`: shows "typing…" in a conversation."""

import click
import trio

from bus.records.outside import OutsideShow
from supervisor.cli.keys.telling import told
from supervisor.cli.outside.queueing import EXIT_TRY_AGAIN, one_conversation, outside_of
from supervisor.cli.store import REFUSALS, open_store
from supervisor.outbound.from_outside import NotTakenIn
from workers.talk.typing import TYPING_RENEWAL_SECONDS


@click.command(short_help='Show "typing…" in a conversation.')
@one_conversation
@click.option(
    "--seconds", type=click.FloatRange(min=0), help="Show it for so long, and then no more; else once, for 5 s."
)
def typing(*, conversation_id: str, seconds: float | None) -> int:
    """Show that the agent types; what is said then ends it. Ends with 75 where no agent runs, which could show it."""
    with told(*REFUSALS):
        return trio.run(_type, conversation_id, seconds)


async def _type(conversation_id: str, seconds: float | None) -> int:
    async with open_store() as store:
        outside = outside_of(store)
        try:
            await outside.show(OutsideShow(conversation_id, "typing"))
            if seconds is not None:
                with trio.move_on_after(seconds):
                    while True:
                        await trio.sleep(TYPING_RENEWAL_SECONDS)
                        await outside.show(OutsideShow(conversation_id, "typing"))
                await outside.show(OutsideShow(conversation_id, "typing_ends"))
        except NotTakenIn as problem:
            click.echo(f"Error: {problem}", err=True)
            return EXIT_TRY_AGAIN if problem.is_temporary else 1
    return 0
