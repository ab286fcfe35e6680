"""A backup into which somebody wrote what this program never does is refused as damaged, also by `backup verify`, and without much memory."""

import io
import re
from collections.abc import Sequence

import msgspec
import pytest

from bus.records.journal import JOURNAL_PREFIX
from bus.records.kinds import SEALED_KINDS
from bus.records.saved import KINDS, Fate, Saved, SavedConversation, Value, Waiting
from bus.records.sealing import StoreKeys
from bus.records.timers import Timer, pack_timer
from bus.steps.seal import CHECKED, STATE_CHECK
from bus.transport.lua import Argument
from bus.transport.wire import Value as Answer
from bus.whole.restoring import Restoring
from supervisor.backup.contents import BackupKeys, Manifest, encode_frame
from supervisor.backup.errors import BackupDamaged, NewerBackup
from supervisor.backup.looking import Inspection
from supervisor.backup.stream import MOST_FRAME_BYTES, BackupDecoder, FrameTooLarge, FrameWriter
from tests.supervisor.backup.builders import IDENTITY, KEYSTORE, LOCK, NAMES, SECRET, read
from tests.supervisor.settings.environment import AGENT_ID

pytestmark = pytest.mark.pure

MANIFEST = Manifest(AGENT_ID, 1, "1", 1, 1)
CONVERSATION = SavedConversation("c", [], b"", -1, [], -1, [], [], [], [], [], False, [], [], [], [])


def look_at(*pieces: Saved, manifest: Manifest = MANIFEST) -> Inspection:
    """Of a backup that is sealed and signed as one ought to be."""
    writer, sink = FrameWriter(), io.BytesIO()
    bodies = [encode_frame(one) for one in (manifest, BackupKeys.of(KEYSTORE, SECRET), *pieces)]
    whole = [writer.head(), *(writer.frame(body) for body in bodies), writer.trailer(IDENTITY)]
    LOCK.seal(io.BytesIO(b"".join(whole)), sink)
    return read(sink.getvalue())[1]


def conversation(**fields: list[bytes]) -> SavedConversation:
    return msgspec.structs.replace(CONVERSATION, **fields)


@pytest.mark.parametrize(
    "piece",
    [
        Value("seal", "", "hash", [b"check"]),
        Value("seal", "", "hash", [b"\xff", b"x"]),
        Value("session", "p:d", "hash", [b"v", b"1", b"b"]),
        Value("session", "p:d", "hash", [b"v", b"one", b"b", b"x"]),
        Value("one_time_prekeys", "", "hash", [b"first", b"x"]),
        Value("grant_log", "", "list", [b"no MAC at all" * 9]),
        Value("dead", "", "stream", [b"1-1", b"1", b"r"]),
        Value("old", "", "zset", [b"member"]),
        Waiting("c", "box", [b"record"]),
        Waiting("c", "parked", [b"record", b"first"]),
        conversation(row=[b"next"]),
        conversation(box=[b"record", b"1", b"record"]),
        conversation(parked=[b"record", b""]),
        conversation(job=[b"r"]),
        conversation(reply=[b"r"]),
        conversation(sent=[b"cmid"]),
        conversation(load=[b"out"]),
    ],
    ids=lambda piece: f"{piece!r:.60}",
)
def test_a_value_that_is_not_of_its_form_is_damage(piece: Saved) -> None:
    assert look_at(CONVERSATION).counts["conversations"] == 1
    with pytest.raises(BackupDamaged, match="not of the form"):
        look_at(piece)


def test_a_number_that_no_value_of_ours_has_is_damage_where_the_store_opens() -> None:
    """Too large for a place that is sealed to it."""
    look = Inspection()
    look.begin(MANIFEST, SECRET)
    look.take(Value("seal", "", "hash", [b"check", sealed_check()]))
    with pytest.raises(BackupDamaged, match="not of the form"):
        look.take(Value("session", "p:d", "hash", [b"v", b"9" * 40, b"b", sealed_check()]))


BROKEN = b"no record, and sealed by nobody"
UNREADABLE: dict[str, Saved] = {
    **{kind: Value(kind, "p", "hash", [b"v", b"1", b"b", BROKEN]) for kind in ("session", "owner", "member", "group")},
    **{kind: Value(kind, "", "hash", [b"7", BROKEN]) for kind in ("signed_prekeys", "one_time_prekeys", "store")},
    "quarantined": Value("quarantined", "q", "hash", [b"plaintext", BROKEN]),
    "timers": Value("timers", "c", "hash", [b"digest", BROKEN]),
    "outside": Value("outside", "", "list", [BROKEN]),
    "grant_log": Value("grant_log", "", "list", [b"0" * 64 + BROKEN]),
    "dead": Value("dead", "", "stream", [b"1-1", b"2", b"r", BROKEN]),
    "conv": conversation(row=[b"retry", BROKEN]),
    "emitted": conversation(values=[JOURNAL_PREFIX.encode() + b"start", BROKEN]),
    "waits": conversation(waits=[b"card", BROKEN]),
    "jobs": conversation(job=[b"r", BROKEN]),
    "replies": conversation(reply=[b"r", BROKEN]),
    "state": msgspec.structs.replace(CONVERSATION, state=BROKEN),
    "history": conversation(history=[BROKEN]),
    **{place: conversation(**{place: [BROKEN, b"1"]}) for place in ("box", "parked", "placed")},
    **{place: conversation(**{place: [BROKEN]}) for place in ("together", "out")},
}
"""Of each kind of what is sealed, one that does not open."""


@pytest.mark.parametrize("kind", UNREADABLE)
def test_each_kind_of_value_that_does_not_open_is_counted(kind: str) -> None:
    seal = Value("seal", "", "hash", [b"check", sealed_check()])
    checking = look_at(seal, UNREADABLE[kind]).checking
    assert checking is not None
    assert (checking.keys is not None, sum(checking.unreadable.values())) == (True, 1)


def test_nothing_that_is_sealed_and_saved_is_left_out_but_the_texts_that_workers_publish_anew() -> None:
    saved = {kind for kind in SEALED_KINDS if KINDS[kind].fate in (Fate.SAVED, Fate.WITH_CONVERSATION)}
    assert saved - UNREADABLE.keys() == {"seal", "policy"}


class Noted:
    """A Redis that only notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Argument, ...]] = []

    async def command(self, *command: Argument) -> Answer:
        self.asked.append(command)
        return None

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Answer:
        raise NotImplementedError


async def test_a_reminder_that_nobody_can_read_ends_no_restore() -> None:
    """It was in the store that was saved, and would have fired there as little."""
    key = StoreKeys.derive(SECRET.reveal())
    timer = Timer(id="digest", conversation_id="c", due_ms=7, kind="reminder", name="digest")
    packed = pack_timer(timer, key=key.bus, agent_id=AGENT_ID)
    noted = Noted()
    restoring = Restoring(noted, NAMES, key.state, place=NAMES.of)
    await restoring.take(Value("timers", "c", "hash", [b"broken", BROKEN]))
    assert noted.asked == []
    await restoring.take(Value("timers", "c", "hash", [b"broken", BROKEN, b"digest", packed]))
    assert sorted(noted.asked) == [
        ("HSET", NAMES.timers("c"), b"digest", packed),
        ("ZADD", NAMES.alarms, 7, b"c\0digest"),
    ]


@pytest.mark.parametrize(("kind", "shown"), [("novelty\x1b", "novelty\\x1b"), ("budget", "budget")])
def test_a_kind_that_a_restore_would_pass_over_is_told_before_one_begins(kind: str, shown: str) -> None:
    with pytest.raises(NewerBackup, match=re.escape(f"would not bring back ('{shown}'): restore it with the version")):
        look_at(Value(kind, "", "hash", []))


def sealed_check() -> bytes:
    keys = StoreKeys.derive(SECRET.reveal())
    return keys.state.seal(CHECKED, NAMES.seal, STATE_CHECK)


@pytest.mark.parametrize("made_ms", [-1, 1 << 60])
def test_a_time_that_has_no_date_is_damage(made_ms: int) -> None:
    with pytest.raises(BackupDamaged):
        look_at(manifest=msgspec.structs.replace(MANIFEST, made_ms=made_ms))


def test_a_frame_that_says_it_is_huge_is_refused_before_it_comes_and_none_is_written() -> None:
    reader, writer = BackupDecoder(), FrameWriter()
    with pytest.raises(BackupDamaged):
        list(reader.feed(writer.head() + b"F" + (MOST_FRAME_BYTES + 1).to_bytes(4, "big")))
    with pytest.raises(FrameTooLarge):
        writer.frame(bytes(MOST_FRAME_BYTES + 1))
