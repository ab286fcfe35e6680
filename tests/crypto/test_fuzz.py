"""Any bytes give a value or a reason of §5.10, in its order, within 4 MiB and 20 ms; see tests/trials/fuzz."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import msgpack, strict_base64
from crypto.envelope import Expected, parse_envelope
from crypto.errors import Reason
from tests.crypto.builders import CONVERSATION, only_wrap, reason_of, resign, talking_pair
from tests.trials.fuzz.decoders import MAX_MEMORY_BYTES, MAX_SECONDS, Target, run, run_prepared, targets
from tests.trials.fuzz.mutate import mutate

pytestmark = pytest.mark.pure

TARGETS = targets()


@pytest.mark.parametrize("name", TARGETS)
def test_genuine_samples_are_read(name: str) -> None:
    target = TARGETS[name]
    for sample in target.samples:
        assert run(target, sample) in (None, Reason.NOT_FOR_US, Reason.UNSUPPORTED_VERSION)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_samples_give_a_value_or_a_reason(name: str) -> None:
    target, chance = TARGETS[name], random.Random(name)
    for _ in range(1_500):
        data = mutate(chance.choice(target.samples), chance)
        run(target, data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_a_value_or_a_reason(name: str, data: bytes) -> None:
    run(TARGETS[name], data)


_MIB = 786_000
HEAVY = {
    "one-byte values": b"\xdd\x00\x0b\xf0\x00" + bytes(_MIB),
    "empty maps": b"\xdd\x00\x0b\xf0\x00" + b"\x80" * _MIB,
    "an unknown key with many values": b"\x81\xa1z\xdd\x00\x0b\xf0\x00" + bytes(_MIB),
    "nested arrays": b"\x91" * _MIB,
    "nested maps": b"\x81\xa1a" * (_MIB // 3),
    "a map of many keys": b"\xdf\x00\x00\x3f\xff"
    + b"".join(b"\xcd" + number.to_bytes(2, "big") + b"\x01" for number in range(16_383)),
    "distinct keys": b"\xdf\x00\x00\x3f\xff" + b"".join(b"\xa4%04x\x01" % number for number in range(16_383)),
    "long text": b"\xdb\x00\x0b\xf0\x00" + b"x" * 782_336,
    "one long binary": b"\xc6\x00\x0b\xf0\x00" + b"x" * 782_336,
    "open lists": b'{"a":' + b"[" * _MIB,
    "empty lists": b'{"a":[' + b"[]," * (_MIB // 3) + b"[]]}",
    "empty objects": b"[" + b"{}," * (_MIB // 3) + b"{}]",
    "quotes": b'{"a":"' + b'\\"' * (_MIB // 2) + b'"}',
    "open quotes": b'"\\' * (_MIB // 2),
    "commas in text": b'{"a":"' + b",[{" * (_MIB // 3) + b'"}',
    "a long number": b'{"a":' + b"9" * _MIB + b"}",
    "long numbers": b'{"a":[' + b",".join(b"9" * 4_300 for _ in range(180)) + b"]}",
    "escapes": b'{"a":"' + b"\\u0001" * (_MIB // 6) + b'"}',
    "backslashes": b'{"a":"' + b"\\\\" * (_MIB // 2) + b'"}',
    "spaces": b" " * _MIB,
    "zeros": bytes(_MIB),
    "0x80": b"\x80" * _MIB,
}


@pytest.mark.parametrize("heavy", HEAVY)
@pytest.mark.parametrize("name", ["body", "envelope", "msgpack", "header", "payload", "plaintext", "record"])
def test_heavy_inputs_cost_little(name: str, heavy: str) -> None:
    target = TARGETS[name]
    data = HEAVY[heavy][: target.max_bytes]
    run(target, data[:1000])
    prepared = target.prepare(data)
    assert min(_seconds(target, prepared) for _ in range(10)) < MAX_SECONDS
    tracemalloc.start()
    try:
        run_prepared(target, prepared)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES


def _seconds(target: Target, prepared: object) -> float:
    begin = time.thread_time()
    run_prepared(target, prepared)
    return time.thread_time() - begin


def test_1024_wraps_with_handshakes_are_read_within_the_bounds() -> None:
    alice, agent = talking_pair()
    alice.records.clear()
    sealed = alice.seal(agent, "x")
    wraps = (only_wrap(alice, sealed),) * 1_024
    full = resign(alice, sealed, wraps=wraps)
    expected = Expected(CONVERSATION, alice.device.owner_id)
    assert len(parse_envelope(full, expected).wraps) == 1_024
    times = []
    for _ in range(3):
        begin = time.thread_time()
        parse_envelope(full, expected)
        times.append(time.thread_time() - begin)
    assert min(times) < MAX_SECONDS
    one_more = resign(alice, sealed, wraps=(*wraps, wraps[0]))
    assert reason_of(lambda: parse_envelope(one_more, expected)) is Reason.MALFORMED


def test_the_first_check_that_fails_names_the_reason() -> None:
    alice, agent = talking_pair()
    sealed = alice.seal(agent, "x")
    expected = Expected(CONVERSATION, alice.device.owner_id)
    wrong_frame = Expected("another", "another")
    over = "A" * (1024 * 1024 + 4)
    assert reason_of(lambda: parse_envelope(over, expected)) is Reason.MALFORMED
    assert reason_of(lambda: parse_envelope(sealed + "=", wrong_frame)) is Reason.MALFORMED
    strange = strict_base64.encode(msgpack.encode([msgpack.encode({"v": "v9", "to": 7}), bytes(64)]))
    assert reason_of(lambda: parse_envelope(strange, wrong_frame)) is Reason.UNSUPPORTED_VERSION
    unknown = resign(alice, sealed, v="hashee-envelope-v9")
    assert reason_of(lambda: parse_envelope(unknown, wrong_frame)) is Reason.UNSUPPORTED_VERSION
    assert reason_of(lambda: parse_envelope(sealed, wrong_frame)) is Reason.NOT_FOR_US
    to_others = resign(alice, sealed, to="others", wraps=())
    tampered = parse_envelope(to_others, expected)
    assert tampered.to == "others"
    assert reason_of(lambda: agent.parse(alice, to_others)) is Reason.NOT_FOR_US
    left_out = resign(alice, sealed, wraps=())
    assert reason_of(lambda: agent.try_open(alice, left_out[:-4] + "AAAA")) in (
        Reason.BAD_SIGNATURE,
        Reason.MALFORMED,
    )
