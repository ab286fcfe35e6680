"""Whether a ratchet forked: two envelopes under one session, ratchet key and number, among all that the relay has stored.

Not among what people received: the relay stores what nobody was shown, and shows nobody what it has had before.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from crypto.envelope import read_envelope
from crypto.ratchet import decode_header
from crypto.wraps import RatchetWrap
from sandbox.relay.records import Message

Place = tuple[bytes, bytes, int]


def forks(encrypted_payloads: Iterable[str]) -> list[Place]:
    """Session, ratchet key and number of each ratchet position that carries more than one envelope."""
    places = Counter(place for payload in set(encrypted_payloads) for place in places_of(payload))
    return [place for place, count in places.items() if count > 1]


def places_of(encrypted_payload: str) -> Iterator[Place]:
    """Of each ratchet wrap."""
    for wrap in read_envelope(encrypted_payload, allow_v1=False).wraps:
        if isinstance(wrap, RatchetWrap):
            header = decode_header(wrap.header)
            yield wrap.session, header.ratchet_key, header.number


def stored(relay_state: Path) -> list[Message]:
    """Every message that the relay has stored, oldest first; read while it runs."""
    with closing(sqlite3.connect(f"file:{relay_state}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT body FROM records WHERE kind = ? ORDER BY place", (Message.__name__,))
        return [msgspec.msgpack.decode(body, type=Message) for (body,) in rows]
