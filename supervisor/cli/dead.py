"""`hashee-agent dead …`: lists, shows, retries and drops jobs and replies that were given up.

A dead letter is a job (a message that the handler did not finish), a reply (that was never encrypted), or a send (committed, and refused
by the relay). Content is shown only when asked for.
"""

import json
from collections.abc import AsyncIterator, Mapping

import click
import msgspec
import trio

from bus.records.records import BadRecord, JobRecord, OutboxRecord, ReplyRecord, open_job, open_reply
from bus.records.sealing import BusKey
from bus.steps.letters import DeadLetter, DeadLetters
from supervisor.cli.keys.telling import told
from supervisor.cli.lazy import LazyGroup
from supervisor.cli.store import (
    REFUSALS,
    Choice,
    NotThere,
    OpenStore,
    confirm,
    facts,
    open_store,
    selection,
    shown,
    time_of,
    when_tried,
)
from supervisor.observe.remedies import dead_remedy

COMMANDS: Mapping[str, str] = {name: f"supervisor.cli.dead:{name}_dead" for name in ("list", "show", "retry", "drop")}
CONTENT_WARNING = "what follows is the content of a conversation; nothing else of this program shows it"
BUSY = "another reply of its conversation is on its way to the relay, and only one may be: try again in a moment"


class RetryResult(msgspec.Struct, frozen=True):
    """The result of a retry."""

    revived: int
    problems: list[str]
    when: str


@click.group(cls=LazyGroup, places=COMMANDS, short_help="Jobs and replies that were given up.")
def dead() -> None:
    """Jobs and replies that were given up: why, and what to do with them (docs/messages.md has every reason)."""


@click.command("list", short_help="Every dead letter, oldest first.")
@selection
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_dead(reason: str | None, sender: str | None, older_than: float | None, as_json: bool) -> None:
    """Show every dead letter: its id, what it is, the reason, and the message that it is about; oldest first."""
    with told(*REFUSALS):
        found = trio.run(_listed, Choice((), False, reason, sender, older_than))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for row in found:
        click.echo(
            f"{row['id']}  {row['kind']}  {shown(str(row['reason']))}  message {shown(str(row['message_id'] or '?'))}"
            f"  in {shown(str(row['conversation_id'] or '?'))}  since {time_of(int(str(row['died_ms'])))}"
        )
    if not found:
        click.echo(
            f"there are no dead letters{' that were asked for' if reason or sender or older_than else ''}", err=True
        )


@click.command("show", short_help="One dead letter: everything but its content.")
@click.argument("letter_id")
@click.option("--content", is_flag=True, help="Also the content: the message of a job, the text of a reply.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def show_dead(letter_id: str, content: bool, as_json: bool) -> None:
    """Show what is known of LETTER_ID, why it was given up, and what helps."""
    with told(*REFUSALS):
        row = trio.run(_shown, letter_id, content)
    if "content" in row:
        click.echo(f"WARNING: {CONTENT_WARNING}", err=True)
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    row["since"] = time_of(int(str(row.pop("died_ms"))))
    facts(list(row.items()))


@click.command("retry", short_help="Put dead letters back on their way.")
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one.")
@selection
def retry_dead(
    letter_ids: tuple[str, ...], everything: bool, *, reason: str | None, sender: str | None, older_than: float | None
) -> int:
    """A job runs again, and what it had sent is not sent again; a reply is encrypted and sent; a refused send goes out again.

    Ends with 1 if any of them stays a dead letter.
    """
    choice = Choice(letter_ids, everything, reason, sender, older_than)
    choice.check()
    with told(*REFUSALS):
        done = trio.run(_retry, choice)
    click.echo(f"{done.revived} on their way again" + (f"; {done.when}" if done.revived else ""))
    for problem in done.problems:
        click.echo(f"hashee-agent: {problem}", err=True)
    return 1 if done.problems else 0


@click.command("drop", short_help="Give dead letters up for good.")
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one.")
@selection
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop_dead(
    letter_ids: tuple[str, ...],
    everything: bool,
    *,
    reason: str | None,
    sender: str | None,
    older_than: float | None,
    yes: bool,
) -> None:
    """Delete LETTER_IDS: a message stays unanswered, a reply unsaid, a question that the message answered is closed, and nobody is told."""
    choice = Choice(letter_ids, everything, reason, sender, older_than)
    choice.check()
    with told(*REFUSALS):
        chosen = trio.run(_chosen_now, choice)
        if chosen:
            rows = [row for _, row in chosen]
            confirm(
                f"{len(chosen)} would be lost for good; nobody is told:\n"
                + "\n".join(f"  {row['id']}  {row['kind']}  {shown(str(row['reason']))}" for row in rows),
                yes=yes,
            )
        dropped = trio.run(_drop, [letter for letter, _ in chosen])
    click.echo(f"{dropped} dropped")


async def _listed(choice: Choice) -> list[dict[str, object]]:
    async with open_store() as store:
        return [_row(letter) async for letter in _selected(_letters(store), choice)]


async def _chosen_now(choice: Choice) -> list[tuple[DeadLetter, dict[str, object]]]:
    """Returns the chosen dead letters without their records, which may be a mebibyte each."""
    async with open_store() as store:
        return [(letter.light(), _row(letter)) async for letter in _chosen(store, choice)]


async def _chosen(store: OpenStore, choice: Choice) -> AsyncIterator[DeadLetter]:
    letters = _letters(store)
    if not choice.ids:
        async for letter in _selected(letters, choice):
            yield letter
    for letter_id in choice.ids:
        yield await _find(letters, letter_id)


async def _selected(letters: DeadLetters, choice: Choice) -> AsyncIterator[DeadLetter]:
    async for letter in letters.all():
        if choice.is_for(letter.reason, letter.sender_id, letter.died_ms):
            yield letter


async def _find(letters: DeadLetters, letter_id: str) -> DeadLetter:
    first, dash, second = letter_id.partition("-")
    is_an_id = first.isdecimal() and (not dash or second.isdecimal())
    found = await letters.find(letter_id) if is_an_id else None
    if found is None:
        raise NotThere(f"there is no dead letter {shown(letter_id)}: hashee-agent dead list")
    return found


async def _shown(letter_id: str, with_content: bool) -> dict[str, object]:
    async with open_store() as store:
        letter = await _find(_letters(store), letter_id)
        row = _details(letter)
        if with_content:
            row["content"] = _content(letter, store.keys.bus, store.names.agent_id)
        return row


async def _retry(choice: Choice) -> RetryResult:
    async with open_store() as store:
        letters, revived, problems = _letters(store), 0, list[str]()
        async for letter in _chosen(store, choice):
            try:
                outcome = await letters.retry(letter)
            except BadRecord:
                problems.append(f"{letter.id} is not readable with this version, so it stays")
                continue
            revived += outcome == "revived"
            if outcome == "busy":
                problems.append(f"{letter.id} stays for now: {BUSY}")
        return RetryResult(revived, problems, await when_tried(store))


async def _drop(chosen: list[DeadLetter]) -> int:
    async with open_store() as store:
        return sum([await _letters(store).drop(letter) for letter in chosen])


def _letters(store: OpenStore) -> DeadLetters:
    return DeadLetters(store.client, store.names)


def _row(letter: DeadLetter) -> dict[str, object]:
    kind, conversation = "unreadable", None
    try:
        record = letter.decoded()
    except BadRecord:
        pass
    else:
        kind = {JobRecord: "job", ReplyRecord: "reply", OutboxRecord: "send"}[type(record)]
        conversation = record.conversation_id
    return {
        "id": letter.id,
        "kind": kind,
        "reason": letter.reason,
        "message_id": letter.job_id or None,
        "conversation_id": conversation,
        "died_ms": letter.died_ms,
    }


def _details(letter: DeadLetter) -> dict[str, object]:
    row = _row(letter)
    if row["kind"] == "job":
        row |= {
            "attempts": letter.attempt,
            "deliveries": letter.deliveries,
            "emitted_places": letter.places.split(),
        }
    elif row["kind"] in ("reply", "send"):
        row["place"] = letter.answers.partition(" ")[2] or None
    why = dead_remedy(letter.reason, is_committed=row["kind"] == "send")
    return {**row, "meaning": why.meaning, "remedy": why.remedy}


def _content(letter: DeadLetter, key: BusKey, agent_id: str) -> str:
    """Returns its payload as JSON. Raises NotThere if there is none to be shown."""
    try:
        record = letter.decoded()
        match record:
            case JobRecord():
                payload = open_job(letter.record, key=key, agent_id=agent_id).payload
            case ReplyRecord():
                payload = open_reply(record, key=key, agent_id=agent_id).payload
            case OutboxRecord():
                raise NotThere("a committed send is ciphertext for the person's devices only; there is nothing to show")
    except BadRecord:
        raise NotThere("its record does not open with this store secret and version") from None
    return json.dumps(payload, default=repr)
