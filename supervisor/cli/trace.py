"""`hashee-agent trace …`: shows what happened to one message, or to all of a conversation, and when; without content."""

import json
from collections.abc import Iterable, Iterator

import click
import msgspec
import trio

from bus.steps.letters import Quarantine
from bus.views.trace import Ledger, TraceEntry
from supervisor.cli.keys.telling import told
from supervisor.cli.store import REFUSALS, open_store, shown, time_of

BOUNDS = "the ledger keeps 7 days, and at most 200,000 entries (about ten a message)"
NAMES = {
    "taken": "taken in (nothing for a handler)",
    "acted": "done at the relay",
    "dropped": "reply given up (a dead letter)",
    "dead": "job given up (a dead letter)",
    "failed": "failed, to be tried again",
    "revived": "dead letter tried again",
    "reclaimed": "taken from a worker that is gone",
    "running": "being worked on",
    "handed_back": "handed back by its worker",
    "requeued": "readable now, queued",
    "no_handler": "done (no handler for this type)",
    "over_budget": "done (beyond a budget, not answered)",
    "waiting": "waits for an answer",
    "stopped": "done (its person has said /stop)",
    "no_answer": "done (nobody answered what it asked)",
    "placed": "placed, without a message",
    "held": "waits at the relay: its sender has too much waiting, or the relay does not tell their devices",
    "given_up": "dropped for good",
    "from_outside": "from outside (no message asked for it)",
    "let_out": "it is its turn",
}
HINTS = {"quarantined": "hashee-agent quarantine show {}", "dead": "hashee-agent dead list"}


class TraceLine(msgspec.Struct, frozen=True):
    """One line of a trace. `facts`: further details by name."""

    at_ms: int
    name: str
    facts: dict[str, str]


class Story(msgspec.Struct, frozen=True):
    """The steps of one message, in order."""

    message_id: str
    conversation_id: str
    seq: str
    steps: list[TraceLine]

    @property
    def began_ms(self) -> int:
        return self.steps[0].at_ms


@click.command(short_help="What happened to a message, or to a conversation's, and when.")
@click.argument("wanted", metavar="MESSAGE_ID|CONVERSATION_ID")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, one object a message.")
def trace(wanted: str, as_json: bool) -> int:
    """Follow a message from its arrival to the acknowledgement of its answers. An answer's id is good too.

    `received`, `decrypted` and `sent` are by the clock of the supervisor's host, everything else by that of Redis.
    """
    with told(*REFUSALS):
        events, is_quarantined = trio.run(_traced, wanted)
    stories = list(_stories(events))
    if as_json:
        click.echo(json.dumps([_as_json(story) for story in stories], indent=2))
        return 0 if stories else 1
    if not stories:
        raise click.ClickException(_unknown(wanted, is_quarantined=is_quarantined))
    for story in stories:
        _show(story)
    return 0


async def _traced(wanted: str) -> tuple[list[TraceEntry], bool]:
    async with open_store() as store:
        events = await Ledger(store.client, store.names).trace(wanted)
        return events, not events and await Quarantine(store.client, store.names).find(wanted) is not None


def _unknown(wanted: str, *, is_quarantined: bool) -> str:
    text = f"nothing is known of {shown(wanted)}: {BOUNDS}"
    return f"{text}; it is in quarantine: hashee-agent quarantine show {shown(wanted)}" if is_quarantined else text


def _stories(events: Iterable[TraceEntry]) -> Iterator[Story]:
    """Yields one story for each message, in the order in which the messages came."""
    by_message: dict[str, list[TraceEntry]] = {}
    for event in events:
        by_message.setdefault(event.job_id, []).append(event)
    for message_id, own in by_message.items():
        facts: dict[str, str] = {}
        for event in own:
            facts = {**event.facts, **facts}
        steps = sorted((step for event in own for step in _steps(event)), key=lambda step: step.at_ms)
        yield Story(message_id, facts.get("conversation", ""), facts.get("seq", ""), steps)


def _steps(event: TraceEntry) -> Iterator[TraceLine]:
    """Yields the steps of an event: earlier moments that it noted, then itself."""
    facts = event.facts
    if "received_ms" in facts:
        yield TraceLine(int(facts["received_ms"]), "received", {})
    if "decrypted_ms" in facts:
        yield TraceLine(int(facts["decrypted_ms"]), "decrypted", {})
    if "started_ms" in facts:
        run = ("worker", "attempt", "delivery")
        yield TraceLine(int(facts["started_ms"]), "started", {name: facts[name] for name in run})
        if event.name == "started":
            return
        facts = {name: word for name, word in facts.items() if name not in run}
    if "sent_ms" in facts:
        yield TraceLine(int(facts["sent_ms"]), "sent", {"place": facts.get("place", "")})
    hidden = {"received_ms", "decrypted_ms", "sent_ms", "started_ms", "conversation", "seq"}
    yield TraceLine(event.at_ms, event.name, {name: word for name, word in facts.items() if name not in hidden})


def _show(story: Story) -> None:
    where = f" of conversation {shown(story.conversation_id)}" if story.conversation_id else ""
    click.echo(f"message {shown(story.message_id)}{where}" + (f", number {story.seq}" if story.seq else ""))
    for step in story.steps:
        details = "  ".join(f"{name} {shown(word)}" for name, word in step.facts.items())
        offset = f"{step.at_ms - story.began_ms:+,} ms"
        click.echo(f"  {time_of(step.at_ms)}  {offset:>12}  {NAMES.get(step.name, step.name)}  {details}".rstrip())
    hint = HINTS.get(story.steps[-1].name)
    if hint is not None:
        click.echo(f"  it waits for you: {hint.format(shown(story.message_id))}")


def _as_json(story: Story) -> dict[str, object]:
    return {
        "message_id": story.message_id,
        "conversation_id": story.conversation_id or None,
        "seq": int(story.seq) if story.seq else None,
        "steps": [
            {"at_ms": step.at_ms, "since_received_ms": step.at_ms - story.began_ms, "step": step.name, **step.facts}
            for step in story.steps
        ],
    }
