"""What handlers keep opens where it belongs, and what a later version wrote is left to that version."""

import msgspec
import pytest

from bus.records.kept import STATE, KeptRecord, open_kept, pack_kept
from bus.records.records import BadRecord, NewerRecord
from tests.bus.builders import AGENT, BUS_KEY, CONVERSATION

pytestmark = pytest.mark.pure


def opened(packed: bytes, kind: str, conversation: str, name: str = "") -> bytes:
    return open_kept(packed, kind, conversation, name, key=BUS_KEY, agent_id=AGENT)


def test_it_opens_in_its_own_place_alone() -> None:
    packed = pack_kept(b"what was kept", STATE, CONVERSATION, key=BUS_KEY, agent_id=AGENT)
    assert b"what was kept" not in packed
    assert opened(packed, STATE, CONVERSATION) == b"what was kept"
    for other in ((STATE, "another"), ("store", CONVERSATION), (STATE, CONVERSATION, "name")):
        with pytest.raises(BadRecord, match="does not open"):
            opened(packed, *other)
    assert "what was kept" not in repr(msgspec.msgpack.decode(packed, type=KeptRecord))


def test_what_a_later_version_wrote_is_no_damage() -> None:
    with pytest.raises(NewerRecord, match="of schema 9"):
        opened(msgspec.msgpack.encode((9, b"another form", 1)), STATE, CONVERSATION)
    for broken in (b"", b"\xc1", msgspec.msgpack.encode("text"), msgspec.msgpack.encode((1,)), b"\x91" * 100_000):
        with pytest.raises(BadRecord) as raised:
            opened(broken, STATE, CONVERSATION)
        assert not isinstance(raised.value, NewerRecord)
