"""What a peer may send, by the heads of its frames alone (RFC 6455 §5.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Ping, Request, TextMessage
from wsproto.frame_protocol import FrameProtocol

from supervisor.relay.wire_guard import (
    CONTROL_FRAMES,
    CONTROL_FRAMES_PER_SECOND,
    FRAGMENT_BYTES,
    FREE_FRAGMENTS,
    POLICY_VIOLATION,
    PROGRESS_BYTES,
    TOO_BIG,
    UPGRADE_BYTES,
    WireGuard,
    WireRefused,
)

pytestmark = pytest.mark.pure

MOST = 2 << 20
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
FIN, CONTINUED, TEXT, PING = 0x80, 0x0, 0x1, 0x9


def guard(now: float = 0.0, most: int = MOST) -> WireGuard:
    fresh = WireGuard(most, now)
    fresh.feed(UPGRADED, now)
    return fresh


def frame(first: int, size: int) -> bytes:
    if size < 126:
        return bytes([first, size]) + b"x" * size
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + b"x" * size
    return bytes([first, 127]) + size.to_bytes(8, "big") + b"x" * size


@given(
    st.lists(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70_000]), max_size=6),
    st.lists(st.integers(1, 40_000), max_size=30),
)
def test_it_counts_what_another_implementation_has_written_however_it_comes(
    lengths: list[int], pieces: list[int]
) -> None:
    writer = FrameProtocol(client=False, extensions=[])
    wire = UPGRADED + b"".join(writer.send_data("x" * length) + writer.ping(b"?") for length in lengths)
    fed, at = WireGuard(MOST, 0.0), 0
    for piece in [*pieces, len(wire)]:
        fed.feed(wire[at : at + piece], 1.0)
        at += piece
    assert fed.unread_bytes == sum(lengths)
    for length in lengths:
        before = fed.unread_bytes
        fed.taken()
        assert before - fed.unread_bytes == length


def test_a_whole_conversation_of_the_librarys_server_passes() -> None:
    server, client = WSConnection(ConnectionType.SERVER), WSConnection(ConnectionType.CLIENT)
    server.receive_data(client.send(Request(host="h", target="/")))
    list(server.events())
    wire = server.send(AcceptConnection())
    for event in (TextMessage("a" * 70_000, message_finished=False), TextMessage("b"), Ping(b"?"), BytesMessage(b"c")):
        wire += server.send(event)
    fed = WireGuard(MOST, 0.0)
    fed.feed(wire, 0.0)
    assert fed.unread_bytes == 70_002


def test_a_message_that_announces_too_much_is_refused_by_its_head_alone() -> None:
    with pytest.raises(WireRefused, match=f"a message over {MOST} bytes") as refused:
        guard().feed(frame(FIN | TEXT, MOST + 1)[:10], 0.0)
    assert refused.value.code == TOO_BIG
    guard().feed(frame(FIN | TEXT, MOST), 0.0)
    pieces = guard()
    pieces.feed(frame(TEXT, MOST), 0.0)
    with pytest.raises(WireRefused):
        pieces.feed(frame(FIN | CONTINUED, 1), 0.0)


def test_fragments_are_bounded_by_what_they_bring() -> None:
    fed = guard()
    fed.feed(frame(TEXT, 0) + frame(CONTINUED, 0) * (FREE_FRAGMENTS - 1), 0.0)
    with pytest.raises(WireRefused, match="fragments") as refused:
        fed.feed(frame(CONTINUED, 0), 0.0)
    assert refused.value.code == POLICY_VIOLATION
    useful = guard()
    useful.feed(frame(TEXT, FRAGMENT_BYTES) + frame(CONTINUED, FRAGMENT_BYTES) * (MOST // FRAGMENT_BYTES - 1), 0.0)
    for _ in range(FREE_FRAGMENTS):  # each message has its own
        useful.feed(frame(FIN | CONTINUED, 0) + frame(TEXT, 0), 0.0)


def test_control_frames_are_bounded_in_the_long_run_and_the_relays_pings_never_are_too_many() -> None:
    fed = guard()
    fed.feed(frame(FIN | PING, 4) * CONTROL_FRAMES, 0.0)
    with pytest.raises(WireRefused, match="pings"):
        fed.feed(frame(FIN | PING, 4), 0.0)
    patient = guard()
    for number in range(10_000):
        patient.feed(frame(FIN | PING, 125), number / CONTROL_FRAMES_PER_SECOND)
    rested = guard()
    rested.feed(frame(FIN | PING, 4), 0.0)
    with pytest.raises(WireRefused, match="pings"):  # a day of silence saves up no more than so many
        rested.feed(frame(FIN | PING, 4) * (CONTROL_FRAMES + 1), 86_400.0)


def test_an_answer_to_the_upgrade_is_bounded_whatever_it_is() -> None:
    for answer in (b"HTTP/1.1 503 Later\r\n\r\n", b"HTTP/1.1 101 x\r\nNever-Ends: ", b"x"):
        fed = WireGuard(MOST, 0.0)
        fed.feed(answer, 0.0)
        fed.feed(b"x" * (UPGRADE_BYTES - len(answer)), 0.0)
        with pytest.raises(WireRefused, match="upgrade"):
            fed.feed(b"x", 0.0)


def test_whole_frames_are_heard_and_large_ones_while_they_come_but_no_byte_now_and_then() -> None:
    fed = guard()
    head = frame(FIN | TEXT, MOST)[:10]
    fed.feed(head, 0.0)
    for second in range(1, 100):
        fed.feed(b"x", float(second))
    assert fed.heard_at == 0.0
    fed.feed(b"x" * PROGRESS_BYTES, 100.0)
    assert fed.heard_at == 100.0
    fed.feed(b"x" * (MOST - 99 - PROGRESS_BYTES), 200.0)
    assert fed.heard_at == 200.0
    fed.feed(frame(FIN | PING, 0), 300.0)
    assert fed.heard_at == 300.0
    fed.feed(b"\x81", 400.0)
    assert fed.heard_at == 300.0
