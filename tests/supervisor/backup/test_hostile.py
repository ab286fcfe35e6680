"""A backup into which somebody wrote what this program never does is refused as damaged, also by `backup verify`, and without much memory."""

import io

import msgspec
import pytest

from bus.records.saved import Saved, SavedConversation, Value, Waiting
from bus.records.sealing import StoreKeys
from bus.steps.seal import CHECKED, STATE_CHECK
from supervisor.backup.contents import BackupKeys, Manifest, encode_frame
from supervisor.backup.errors import BackupDamaged
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
