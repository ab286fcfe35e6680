"""The strict reader: everything that PROTOCOL §5 "Bytes" calls malformed, and nothing that it does not."""

from __future__ import annotations

import msgspec
import pytest

from crypto import msgpack, strict_base64
from crypto.errors import Reason
from tests.crypto.builders import reason_of

pytestmark = pytest.mark.pure

MALFORMED = {
    "empty": b"",
    "cut short": b"\x82\xa1a\x01",
    "cut in text": b"\xa5ab",
    "cut in a length": b"\xc5\x01",
    "trailing bytes": b"\x01\x01",
    "duplicate keys": b"\x82\xa1a\x01\xa1a\x02",
    "duplicate keys in two encodings": b"\x82\xa1a\x01\xd9\x01a\x02",
    "float": b"\xcb" + bytes(8),
    "float 32": b"\xca" + bytes(4),
    "float in an unknown key": b"\x81\xa1z\xcb" + bytes(8),
    "negative": b"\xff",
    "negative int 8": b"\xd0\xff",
    "signed int 64": b"\xd3" + bytes(8),
    "ext": b"\xd4\x01\x00",
    "ext in an unknown key": b"\x81\xa1z\xc7\x01\x01\x00",
    "timestamp": b"\xd6\xff" + bytes(4),
    "reserved": b"\xc1",
    "integer key": b"\x81\x01\x01",
    "binary key": b"\x81\xc4\x01a\x01",
    "nil key": b"\x81\xc0\x01",
    "map as key": b"\x81\x80\x01",
    "nested over 4": b"\x91\x91\x91\x91\x91\x01",
    "nested far too deep": b"\x91" * 100_000,
    "maps nested over 4": b"\x81\xa1a\x81\xa1a\x81\xa1a\x81\xa1a\x81\xa1a\x01",
    "invalid UTF-8": b"\xa1\xff",
    "surrogate in UTF-8": b"\xa3\xed\xa0\x80",
    "over 2**32-1": b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
    "started over 2**63-1": b"\x81\xa7started\xcf\x80" + bytes(7),
    "an array longer than the data": b"\xdd\xff\xff\xff\xff",
    "a map longer than the data": b"\xdf\xff\xff\xff\xff",
    "binary longer than the data": b"\xc6\xff\xff\xff\xff",
    "too many values": b"\xdd\x00\x01\x00\x00" + bytes(65_536),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    assert reason_of(lambda: msgpack.decode(MALFORMED[name])) is Reason.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        0,
        127,
        128,
        65_536,
        2**32 - 1,
        "",
        "ü" * 40,
        "x" * 300,
        b"",
        b"x" * 70_000,
        [],
        [1, [2, [3, [4]]]],
        {"a": {"b": {"c": {"d": 1}}}},
        {"started": 2**63 - 1},
        {"unknown": [True, False, None]},
        {str(number): number for number in range(20)},
        list(range(20)),
    ],
)
def test_what_we_write_is_read_back_and_is_what_msgspec_reads(value: object) -> None:
    data = msgpack.encode(value)
    assert msgpack.decode(data) == value
    assert msgspec.msgpack.decode(data) == value


def test_longer_encodings_are_read() -> None:
    assert msgpack.decode(b"\xcf" + (5).to_bytes(8, "big")) == 5
    assert msgpack.decode(b"\xda\x00\x01a") == "a"
    assert msgpack.decode(b"\xdb\x00\x00\x00\x01a") == "a"
    assert msgpack.decode(b"\xc6\x00\x00\x00\x01a") == b"a"
    assert msgpack.decode(b"\xdc\x00\x01\x05") == [5]
    assert msgpack.decode(b"\xde\x00\x01\xa1a\x05") == {"a": 5}


def test_str_8_is_used_from_32_bytes_on() -> None:
    assert msgpack.encode("x" * 31)[0] == 0xBF
    assert msgpack.encode("x" * 32)[:2] == b"\xd9\x20"
    assert msgpack.encode("x" * 255)[:2] == b"\xd9\xff"


class _Two(msgspec.Struct, frozen=True, omit_defaults=True):
    one: msgpack.Bytes16
    two: msgpack.Unsigned32
    one_time_prekey_id: msgpack.Unsigned32 | None = None


def test_both_paths_of_a_typed_reader_agree() -> None:
    typed = msgpack.Typed(_Two)
    good = {"one": bytes(16), "two": 7, "one_time_prekey_id": 3}
    expected = _Two(bytes(16), 7, 3)
    reordered = dict(reversed(good.items()))
    for fields in (good, reordered, good | {"later": [1, {"x": b"y"}]}):
        assert typed.read(msgpack.encode(fields)) == expected
    refused: tuple[object, ...] = (
        good | {"one": bytes(15)},
        good | {"one": "x" * 16},
        good | {"two": True},
        good | {"two": "7"},
        good | {"one_time_prekey_id": None},
        {"two": 7},
        [],
    )
    for bad in refused:
        assert reason_of(lambda bad=bad: typed.read(msgpack.encode(bad))) is Reason.MALFORMED  # type: ignore[misc]
    for unsafe in (1.0, -1, 2**40):
        data = msgspec.msgpack.encode(good | {"two": unsafe})
        assert reason_of(lambda data=data: typed.read(data)) is Reason.MALFORMED  # type: ignore[misc]


def test_ids_have_at_most_128_bytes() -> None:
    msgpack.check_ids("x" * 128, "ü" * 64, "\U0001f600" * 32)
    for long in ("x" * 129, "ü" * 65, "\U0001f600" * 33):
        assert reason_of(lambda long=long: msgpack.check_ids(long)) is Reason.MALFORMED  # type: ignore[misc]


@pytest.mark.parametrize(
    "text", ["YQ", "YQ=", "YR==", "YQ==\n", " YQ==", "YQ==YQ==", "Y Q==", "YQ-_", "=", "ü", "YQ==="]
)
def test_base64_with_another_spelling_is_malformed(text: str) -> None:
    assert reason_of(lambda: strict_base64.decode(text)) is Reason.MALFORMED


def test_base64_round_trips_and_checks_the_length() -> None:
    for size in range(5):
        assert strict_base64.decode(strict_base64.encode(bytes(size)), size) == bytes(size)
    assert reason_of(lambda: strict_base64.decode("YQ==", 2)) is Reason.MALFORMED
