"""`hashee-agent react`: shows an emoji at a message."""

import click

from bus.records.outside import OutsideMessage
from supervisor.cli.outside.queueing import one_conversation, queue, queued
from workers.talk.emoji import is_one_emoji


@click.command(short_help="Show an emoji at a message.")
@one_conversation
@click.option("--message", "message_id", metavar="ID", required=True, help="The relay's id of it: hashee-agent trace.")
@click.option("--remove", is_flag=True, help="No EMOJI: take it back.")
@queued
@click.argument("emoji", required=False)
def react(
    *,
    conversation_id: str,
    message_id: str,
    remove: bool,
    key: str | None,
    wait_seconds: float | None,
    as_json: bool,
    emoji: str | None,
) -> int:
    """Show one EMOJI, such as 👍, at a message of a conversation. Ends as send does."""
    if (emoji is None) != remove:
        raise click.UsageError("name an EMOJI, or --remove")
    if emoji is not None and not is_one_emoji(emoji):
        raise click.UsageError("EMOJI is one emoji, such as 👍")
    message = OutsideMessage(conversation_id, key=key, react_to=message_id, emoji=emoji)
    return queue([message], wait_seconds, as_json)
