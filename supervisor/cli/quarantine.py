"""`hashee-agent quarantine …`: lists, shows, retries and drops messages that could not be read.

Only their circumstances are shown. If a message could be decrypted but not used, its plaintext is kept sealed, and shown when asked for.
"""

import json
from collections.abc import Mapping

import click
import msgspec
import trio

from bus.records.sealing import SealBroken, StateKey
from bus.steps.letters import OldMessage, Quarantine, Quarantined
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
from supervisor.inbound.evidence import decode_evidence, kept_frame
from supervisor.observe.remedies import quarantine_remedy
from supervisor.relay.frames import MessageNew

COMMANDS: Mapping[str, str] = {
    name: f"supervisor.cli.quarantine:{name}_quarantined" for name in ("list", "show", "retry", "drop")
}
PLAINTEXT_WARNING = "what follows is the plaintext of somebody's message; nothing else of this program shows it"


@click.group(cls=LazyGroup, places=COMMANDS, short_help="Messages that could not be read.")
def quarantine() -> None:
    """Messages that could not be read: why, and what to do with them (docs/messages.md has every reason)."""


@click.command("list", short_help="Every message in quarantine, oldest first.")
@selection
@click.option(
    "--old", is_flag=True, help="Instead what came again long after its conversation went on, and was only noted."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_quarantined(
    reason: str | None, sender: str | None, older_than: float | None, old: bool, as_json: bool
) -> None:
    """Show every message in quarantine with its reason, sender and conversation, oldest first."""
    if old:
        if reason or sender:
            raise click.UsageError("of an old message neither reason nor sender is kept; --older-than goes with --old")
        _list_old(Choice((), False, None, None, older_than), as_json=as_json)
        return
    with told(*REFUSALS):
        found = trio.run(_listed, Choice((), False, reason, sender, older_than))
    if as_json:
        click.echo(json.dumps([_row(message) for message in found], indent=2))
        return
    for message in found:
        click.echo(
            f"{shown(message.message_id)}  {message.reason}  from {shown(message.sender_id)}"
            f"  in {shown(message.conversation_id)}  since {time_of(message.since_ms)}"
        )
    if not found:
        click.echo(
            f"nothing is in quarantine{' that was asked for' if reason or sender or older_than else ''}", err=True
        )


def _list_old(choice: Choice, *, as_json: bool) -> None:
    with told(*REFUSALS):
        found = trio.run(_old, choice)
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(message) for message in found], indent=2))
        return
    for message in found:
        click.echo(
            f"{shown(message.message_id)}  seq {message.seq}  in {shown(message.conversation_id)}"
            f"  since {time_of(message.since_ms)}"
        )
    if not found:
        click.echo("no old message is noted", err=True)


@click.command("show", short_help="One message: everything but its content.")
@click.argument("message_id")
@click.option("--plaintext", is_flag=True, help="Also the content, where it was decrypted (bad_payload, bad_padding).")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def show_quarantined(message_id: str, plaintext: bool, as_json: bool) -> None:
    """Show what is known of MESSAGE_ID, why it could not be read, and what helps."""
    with told(*REFUSALS):
        row = trio.run(_shown, message_id, plaintext)
    if "plaintext" in row:
        click.echo(f"WARNING: {PLAINTEXT_WARNING}", err=True)
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    row["since"] = time_of(int(str(row.pop("since_ms"))))
    facts(list(row.items()))


@click.command("retry", short_help="Have messages tried again.")
@click.argument("message_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one.")
@selection
def retry_quarantined(
    message_ids: tuple[str, ...], everything: bool, *, reason: str | None, sender: str | None, older_than: float | None
) -> None:
    """Have MESSAGE_IDS tried again. What still cannot be read stays in quarantine; what can goes to your handler.

    One that is not in quarantine, only noted as old (`list --old`), is asked for at the relay again. --all means none of these.
    """
    choice = Choice(message_ids, everything, reason, sender, older_than)
    choice.check()
    with told(*REFUSALS):
        count, old, when = trio.run(_retry, choice)
    if count or not old:
        click.echo(f"{count} to be tried again" + (f"; {when}" if count else ""))
    if old:
        click.echo(
            f"{old} only noted as old, to be asked for at the relay again; {when}\n"
            "what was answered before is not answered again, what still cannot be read stays noted: the log says which"
        )


@click.command("drop", short_help="Give messages up for good.")
@click.argument("message_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one.")
@selection
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop_quarantined(
    message_ids: tuple[str, ...],
    everything: bool,
    *,
    reason: str | None,
    sender: str | None,
    older_than: float | None,
    yes: bool,
) -> None:
    """Give MESSAGE_IDS up: the only copies that this agent has are deleted, and nobody is told."""
    choice = Choice(message_ids, everything, reason, sender, older_than)
    choice.check()
    with told(*REFUSALS):
        chosen = trio.run(_chosen_now, choice)
        if chosen:
            confirm(
                f"{len(chosen)} would be lost for good, unread and unanswered; their senders hear nothing of it:\n"
                + "\n".join(f"  {shown(one.message_id)}  {one.reason}  from {shown(one.sender_id)}" for one in chosen),
                yes=yes,
            )
        dropped = trio.run(_drop, chosen)
    click.echo(f"{dropped} dropped")


async def _listed(choice: Choice) -> list[Quarantined]:
    async with open_store() as store:
        return await _chosen(store, choice)


async def _old(choice: Choice) -> list[OldMessage]:
    async with open_store() as store:
        noted = await Quarantine(store.client, store.names).old_messages.all()
        return [message for message in noted if choice.is_for("", "", message.since_ms)]


async def _chosen_now(choice: Choice) -> list[Quarantined]:
    async with open_store() as store:
        return await _chosen(store, choice)


async def _chosen(store: OpenStore, choice: Choice) -> list[Quarantined]:
    kept = Quarantine(store.client, store.names)
    if not choice.ids:
        return [one async for one in kept.all() if choice.is_for(one.reason, one.sender_id, one.since_ms)]
    return [one for message_id in choice.ids for one in await kept.rows(await _names(kept, message_id))]


async def _names(kept: Quarantine, message_id: str) -> list[str]:
    """Returns the names of all that came under this id. Raises NotThere."""
    names = await kept.named_after(message_id)
    if not names:
        raise NotThere(f"no message {shown(message_id)} is in quarantine: hashee-agent quarantine list, or trace")
    return names


async def _shown(message_id: str, with_plaintext: bool) -> dict[str, object]:
    async with open_store() as store:
        kept = Quarantine(store.client, store.names)
        names = await _names(kept, message_id)
        message = await kept.find(names[0])
        if message is None:
            raise NotThere(f"the message {shown(message_id)} has just left the quarantine: hashee-agent trace")
        row = _details(message, is_wanted=names[0] in await kept.wanted())
        if len(names) > 1:
            row["others_of_this_id"] = ", ".join(shown(name) for name in names[1:])
        if with_plaintext:
            row["plaintext"] = _plaintext(message, store.keys.state, store.names.agent_id)
        return row


async def _retry(choice: Choice) -> tuple[int, int, str]:
    async with open_store() as store:
        kept = Quarantine(store.client, store.names)
        old = await _only_noted(kept, choice.ids)
        rest = choice._replace(ids=tuple(one for one in choice.ids if one not in old))
        chosen = [] if old and not rest.ids else await _chosen(store, rest)
        await kept.want(one.message_id for one in chosen)
        await kept.old_messages.want(old)
        return len(chosen), len(old), await when_tried(store)


async def _only_noted(kept: Quarantine, message_ids: tuple[str, ...]) -> set[str]:
    """Returns those of these that are not in quarantine, but noted as old messages."""
    absent = {message_id for message_id in message_ids if not await kept.named_after(message_id)}
    return absent & {one.message_id for one in await kept.old_messages.all()} if absent else set()


async def _drop(chosen: list[Quarantined]) -> int:
    async with open_store() as store:
        kept = Quarantine(store.client, store.names)
        return sum([await kept.drop(one.message_id) for one in chosen])


def _row(message: Quarantined) -> dict[str, object]:
    return {
        "message_id": message.message_id,
        "reason": message.reason,
        "sender_id": message.sender_id,
        "conversation_id": message.conversation_id,
        "since_ms": message.since_ms,
    }


def _details(message: Quarantined, *, is_wanted: bool) -> dict[str, object]:
    row = _row(message)
    frame = kept_frame(message)
    if frame is not None:
        row |= {
            "sender_device_id": frame.sender_device_id,
            "conversation_seq": frame.conversation_seq,
            "created_at": frame.created_at,
            "encrypted_characters": len(frame.encrypted_payload),
        }
    elif (evidence := decode_evidence(message.evidence)) is not None:
        row |= msgspec.to_builtins(evidence)
    if isinstance(frame, MessageNew):
        row |= {"conversation_type": frame.conversation_type, "content_type": frame.content_type}
    why = quarantine_remedy(message.reason)
    return {
        **row,
        "signature": "verified" if message.is_signed else "not verified: the sender's name is the relay's word",
        "decrypted": "yes: --plaintext shows it" if message.plaintext else "no",
        "kept_whole": "yes" if frame is not None else "no: a retry asks the relay for it",
        "to_be_tried": is_wanted,
        "meaning": why.meaning,
        "remedy": why.remedy,
    }


def _plaintext(message: Quarantined, key: StateKey, agent_id: str) -> str:
    """Returns the plaintext as text. Raises NotThere if nothing was decrypted."""
    if not message.plaintext:
        why = quarantine_remedy(message.reason)
        raise NotThere(f"it was never decrypted ({message.reason}: {why.meaning}); what helps: {why.remedy}")
    try:
        opened = key.open(message.plaintext, "quarantine", agent_id, message.message_id)
    except SealBroken:
        raise NotThere("the kept plaintext does not open with this store secret") from None
    return opened.decode(errors="backslashreplace")
