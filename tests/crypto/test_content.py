"""The payload's one reading, its padding, and what happens after the content's tag was good (§5.2, §5.4)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.content import content_id as content_id_of
from crypto.content import decode_payload, encode_payload, pad, padded_length, read_plaintext, unpad
from crypto.envelope import BadContent, Expected, open_ratchet, parse_envelope
from crypto.errors import ForgedContent, Reason
from crypto.primitives import aead_seal
from crypto.sessions import wrap_key
from tests.crypto.builders import CONVERSATION, NOW_MS, Peer, reason_of, resign, talking_pair

pytestmark = pytest.mark.pure

BAD_PAYLOADS = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "text": b'"x"',
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "invalid UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "a number that becomes infinite": b'{"a":1e999}',
    "a number of 401 digits": b'{"a":' + b"1" * 401 + b"}",
    "an integer over 2^64-1": b'{"a":18446744073709551616}',
    "an integer under -2^63": b'{"a":-9223372036854775809}',
    "a fraction of 401 characters": b'{"a":1.' + b"1" * 399 + b"}",
    "repeated names": b'{"a":1,"a":2}',
    "repeated names inside": b'{"x":{"a":1,"b":2,"a":2}}',
    "repeated names in two spellings": b'{"\\u0001":1,"\\u0001":2}',
    "an escaped letter": b'{"a":"\\u0041"}',
    "an escaped letter in upper case": b'{"a":"\\u00E9"}',
    "an escaped pair": b'{"a":"\\ud83d\\ude00"}',
    "half a pair": b'{"a":"\\ud83d"}',
    "nested over 32": b'{"a":' * 33 + b"1" + b"}" * 33,
    "lists nested far too deep": b'{"a":' + b"[" * 100_000,
    "too many values": b'{"a":[' + b"[]," * 40_000 + b"[]]}",
    "something after it": b"{}{}",
    "a control character": b'{"a":"\x01"}',
}


@pytest.mark.parametrize("name", BAD_PAYLOADS)
def test_bad_payloads(name: str) -> None:
    assert reason_of(lambda: decode_payload(BAD_PAYLOADS[name])) is Reason.BAD_PAYLOAD


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        (b'{"a":"\\u0007\\n\\""}', {"a": '\x07\n"'}),
        (b'{"a":"\\\\u0041"}', {"a": "\\u0041"}),
        (b'{"a":"\\u200b\\u2028"}', {"a": "\u200b\u2028"}),
        (b' {"a" : [1.5, -2, true, null] }\n', {"a": [1.5, -2, True, None]}),
        (b'{"a":' * 32 + b"1" + b"}" * 32, None),
        (b'{"a":"' + b"[{," * 30_000 + b'"}', {"a": "[{," * 30_000}),
        (b'{"a":"\\"' + b"[" * 50 + b'\\\\"}', {"a": '"' + "[" * 50 + "\\"}),
    ],
)
def test_good_payloads(data: bytes, payload: object) -> None:
    decoded = decode_payload(data)
    assert payload is None or decoded == payload


def test_what_has_no_strict_json_form_is_not_sent() -> None:
    cyclic: dict[str, object] = {}
    cyclic["a"] = cyclic
    refused: tuple[dict[str, object], ...] = (
        {"a": math.nan},
        {"a": math.inf},
        {"a": "\ud800"},
        {"a": b"x"},
        {"a": {1, 2}},
        cyclic,
    )
    for payload in refused:
        with pytest.raises(ValueError, match="JSON form"):
            encode_payload(payload)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=5))
def test_every_payload_is_read_as_it_was_sent(payload: dict[str, object]) -> None:
    assert read_plaintext(pad(encode_payload(payload))) == payload


@settings(deadline=None)
@given(st.binary(max_size=2_000))
def test_padding_comes_off_again(data: bytes) -> None:
    padded = pad(data)
    assert unpad(padded) == data
    assert len(padded) == padded_length(len(data) + 1)


def test_padded_lengths_are_padme() -> None:
    assert [padded_length(length) for length in (1, 256, 257, 300, 511, 513, 1_000, 100_000)] == [
        256, 256, 272, 304, 512, 544, 1024, 100_352,
    ]  # fmt: skip
    for length in range(257, 5_000):
        exponent = math.floor(math.log2(length))
        zeros = exponent - math.floor(math.log2(exponent)) - 1
        assert padded_length(length) == math.ceil(length / 2**zeros) * 2**zeros


@pytest.mark.parametrize("plaintext", [b"", bytes(256), b"{}", b"{}\x00\x00", b"{}\x80\x01"])
def test_bad_padding(plaintext: bytes) -> None:
    assert reason_of(lambda: unpad(plaintext)) is Reason.BAD_PADDING


def test_the_padded_length_is_not_checked() -> None:
    assert unpad(b"{}\x80") == b"{}"
    assert unpad(b"{}\x80\x80") == b"{}\x80"


def _sealed_with(sender: Peer, receiver: Peer, plaintext: bytes, *, spoiled: bytes = b"") -> str:
    """An envelope whose content is exactly this plaintext: what a bad peer can do."""
    sealed = sender.seal(receiver, "shape")
    shape = parse_envelope(sealed, Expected(CONVERSATION, sender.device.owner_id))
    content_key, nonce = sender.random(32), sender.random(12)
    ciphertext = aead_seal(content_key, nonce, plaintext, shape.aad) + spoiled
    record, wrap = wrap_key(
        sender.record(receiver),
        sender.device,
        receiver.id,
        content_key,
        content_id_of(shape.aad, nonce, ciphertext),
        epoch=0,
        now_ms=NOW_MS,
        random=sender.random,
    )
    sender.records[receiver.id] = record
    return resign(sender, sealed, nonce=nonce, ciphertext=ciphertext, wraps=(wrap,))


@pytest.mark.parametrize(
    ("plaintext", "reason"),
    [
        (bytes(256), Reason.BAD_PADDING),
        (b"not json\x80", Reason.BAD_PAYLOAD),
        (b'{"type":"delta","text":"x"}\x80', Reason.BAD_PAYLOAD),
    ],
)
def test_bad_content_moves_the_ratchet_and_hands_over_the_plaintext(plaintext: bytes, reason: Reason) -> None:
    alice, agent = talking_pair()
    sealed = _sealed_with(alice, agent, plaintext)
    envelope = agent.parse(alice, sealed)
    with pytest.raises(BadContent) as refused:
        open_ratchet(
            envelope,
            agent.device,
            alice.device.identity.public,
            agent.record(alice),
            agent.prekeys,
            epoch=0,
            now_ms=NOW_MS,
        )
    assert refused.value.reason is reason
    assert refused.value.opened_plaintext == plaintext
    for shown in (repr(refused.value), str(refused.value)):
        assert "not json" not in shown
        assert '"delta"' not in shown
    agent.records[alice.id] = refused.value.record
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.KEY_USED
    assert agent.open(alice, alice.seal(agent, "goes on")) == "goes on"


def test_a_content_that_does_not_open_under_a_good_wrap_commits_nothing() -> None:
    alice, agent = talking_pair()
    stored = agent.record(alice).encode()
    sealed = _sealed_with(alice, agent, b"{}\x80", spoiled=b"x")
    with pytest.raises(ForgedContent) as refused:
        agent.try_open(alice, sealed)
    assert refused.value.reason is Reason.BAD_CIPHERTEXT
    assert agent.record(alice).encode() == stored
    assert agent.open(alice, alice.seal(agent, "goes on")) == "goes on"
