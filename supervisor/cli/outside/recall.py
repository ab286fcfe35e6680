"""`hashee-agent recall`: takes back what was said."""

import click

from bus.records.outside import OutsideMessage
from supervisor.cli.outside.queueing import one_conversation, queue, queued


@click.command(short_help="Take back what was said.")
@one_conversation
@queued
@click.argument("sent_id", metavar="ID")
def recall(*, conversation_id: str, key: str | None, wait_seconds: float | None, as_json: bool, sent_id: str) -> int:
    """Take back what `hashee-agent send` or `stream` has said (ID as they tell it), a card (its id), or what a handler's chat.reply() gave.

    \b
    What still waits for its turn is never sent (taken_back). Else it goes out behind
    the message. The relay takes one back within 2 minutes; what comes later is a dead
    letter that says so. Ends as send does.
    """
    return queue([OutsideMessage(conversation_id, key=key, recall=sent_id)], wait_seconds, as_json)
