"""Says what a backup does with each kind of key, and the shapes in which values are saved.

A test fails for a kind that is missing here. Values are saved as they lie in Redis, sealed under the store secret, which the backup
holds too. Each is a msgpack list that begins with its shape's name; a later version only appends to it, so that this one can read it.
"""

import enum
from collections.abc import Mapping

import msgspec


class Fate(enum.Enum):
    """What becomes of a kind of key in a backup and its restore."""

    SAVED = "saved"
    WITH_CONVERSATION = "saved with its conversation"
    REMADE = "made anew from what is saved"
    LEFT = "not saved"


class Kind(msgspec.Struct, frozen=True):
    """The fate of one kind of key. `why`: the reason, for people, if it is not just saved."""

    fate: Fate
    why: str = ""


def _kinds(fate: Fate, **whys: str) -> dict[str, Kind]:
    return {name: Kind(fate, why) for name, why in whys.items()}


KINDS: Mapping[str, Kind] = {
    **_kinds(
        Fate.SAVED,
        seal="which store secret opens it",
        session="of an older epoch from the restore on: read with, never sent with",
        owner="",
        member="",
        group="",
        grant_log="",
        signed_prekeys="into `restored_signed_prekeys`",
        one_time_prekeys="into `restored_one_time_prekeys`",
        quarantined="",
        dead="under their ids",
        ledger="",
        old="",
        policy="",
        first_sync="so that nothing counts as too old",
        store="after the conversations: what a job that runs again had changed may be changed twice, nothing is lost",
        cards="after the conversations, so that each card that was sent is known",
        placements="so that no event is handled twice",
        outside="in their order",
        send_keys="with its expiry",
        timers="what was due meanwhile fires once",
    ),
    **_kinds(
        Fate.WITH_CONVERSATION,
        conv="its entries under their new names",
        ids="",
        taken="",
        box="",
        parked="",
        placed="",
        together="",
        emitted="",
        waits="",
        out="",
        sent="the exact bytes, which go out again",
        load="",
        state="of the same moment as its jobs, so that nothing is counted twice",
        history="",
        jobs="the entry of each conversation",
        replies="the entry of each conversation",
    ),
    **_kinds(
        Fate.REMADE,
        held="the notes are saved, the counts are made from them",
        histories="from the histories",
        owners="from the rows",
        grant_head="from the log",
        quarantine="from each message in it",
        waiting_for="from each message in quarantine",
        kept="from each message in quarantine",
        busy="",
        waiting="",
        behind="",
        alarms="from the timers",
        due="what waited for its next run runs at once",
        outbox="what waited for its acknowledgement goes out at once",
        acks="",
        interrupted="",
        epoch="higher than any in the backup and in what is replaced",
        gen="goes on from what is replaced",
        prekey_state="ids begin at a random number",
        last_backup="it is the one that was restored, with its time",
    ),
    **_kinds(
        Fate.LEFT,
        continuity="nothing is proven of a restored store: its sessions are started anew",
        cursor="everything that the relay keeps is asked for",
        rate="",
        budget="what was used before counts no longer, and each day begins anew",
        outside_turn="the next of the line has it at once",
        probe="",
        wanted="what is in quarantine is tried again anyway",
        streams="a shown stream ends, its whole text comes",
        restored_signed_prekeys="prekeys of an earlier restore",
        restored_one_time_prekeys="prekeys of an earlier restore",
        restoring="while a store is restored no backup is made",
        dead_copy="while the store secret is rotated no backup is made",
        consumers="",
        presence="",
        reclaimer="",
        office="",
        slot="",
        slots="",
        ghosts="",
        ghost_poll="",
        standby="",
        live="a channel",
        interrupts="a channel",
    ),
}

SAVED_AS_VALUES = frozenset({name for name, kind in KINDS.items() if kind.fate is Fate.SAVED} | {"held"})
"""The kinds that stand in a backup as a `Value`. Of `held` the notes do, not the counts."""


class Value(msgspec.Struct, frozen=True, array_like=True, tag="value"):
    """A key's value or a part of it; further parts of the same key follow in order.

    `shape`: string, hash, list, zset or stream. `parts`: as the reading command answers (for a stream, entry by entry: id, number of
    words, words).
    """

    kind: str
    ids: str
    shape: str
    parts: list[bytes]

    def __repr__(self) -> str:
        return f"Value(kind={self.kind!r}, ids={self.ids!r}, shape={self.shape!r}, {len(self.parts)} parts)"


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag="waiting"):
    """A part of what waits in a conversation where very much does, saved before the conversation. `place`: box, parked, together, out.

    The conversation is read later: by then some of this may be under way or finished.
    """

    conversation_id: str
    place: str
    parts: list[bytes]

    def __repr__(self) -> str:
        return f"Waiting(conversation_id={self.conversation_id!r}, place={self.place!r}, {len(self.parts)} parts)"


class SavedConversation(msgspec.Struct, frozen=True, array_like=True, tag="conversation"):
    """A conversation, read in one moment. Flat lists as Redis answers them; `…_until_ms`: -1 for ever.

    `emitted`: names alone; `values`: names and values of those that have one. A former version saved neither `values` nor `waits`.
    """

    conversation_id: str
    row: list[bytes]
    ids: bytes
    ids_until_ms: int
    taken: list[bytes]
    taken_until_ms: int
    emitted: list[bytes]
    sent: list[bytes]
    load: list[bytes]
    job: list[bytes]
    reply: list[bytes]
    is_superseded: bool
    box: list[bytes]
    parked: list[bytes]
    together: list[bytes]
    out: list[bytes]
    state: bytes = b""
    placed: list[bytes] = []  # a former version did not save it
    values: list[bytes] = []
    waits: list[bytes] = []
    history: list[bytes] = []

    def __repr__(self) -> str:
        return f"SavedConversation(conversation_id={self.conversation_id!r}, …)"


Saved = Value | Waiting | SavedConversation


def pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Returns the items of a flat list in pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))
