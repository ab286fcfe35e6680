"""How fast the crypto core is, beside the floor of its bare primitives and beside two peers, in one run.

The floor of an operation is the time of the primitives that it cannot do without, called straight from the
libraries with everything prepared. Peers do 1 KiB through the ratchet alone, in order, with no storage.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench._crypto_floor import Floor
from bench._crypto_peers import double_ratchet_us, vodozemac_us
from bench._crypto_scene import Pair
from crypto.records import DeviceRecord
from crypto.sessions import unwrap_key, wrap_key

ROUNDS = 75
BATCH = 60
MESSAGE = os.urandom(1024)
KEY = os.urandom(32)
CONTENT_ID = os.urandom(32)

Figures = dict[str, float]


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """All figures, in µs but for `p99_ms`; medians over interleaved rounds."""
    argparse.ArgumentParser(prog="python -m bench crypto").parse_args(arguments)
    ours: dict[str, list[float]] = {}
    floor: dict[str, list[float]] = {}
    bare = Floor(MESSAGE)
    for _ in range(ROUNDS):
        for into, measured in ((ours, _ours_once()), (floor, _floor_once(bare))):
            for name, value in measured.items():
                into.setdefault(name, []).append(value)
    result: dict[str, Any] = _medians(ours)
    result["floor"] = _medians(floor)
    result["peers"] = {"doubleratchet": double_ratchet_us(MESSAGE), "vodozemac": vodozemac_us(MESSAGE)}
    result["p99_ms"] = _pipeline_p99_ms()
    result["ratios"] = _ratios(result)
    return result


def _medians(samples: dict[str, list[float]]) -> Figures:
    return {name: round(statistics.median(values), 2) for name, values in samples.items()}


def _ratios(result: dict[str, Any]) -> Figures:
    floor, peers = result["floor"], result["peers"]
    both = result["encrypt_us"] + result["decrypt_us"]
    peer_both = peers["doubleratchet"]["encrypt_us"] + peers["doubleratchet"]["decrypt_us"]
    return {
        "ratchet_to_floor": round(both / (floor["encrypt_us"] + floor["decrypt_us"]), 2),
        "key_to_floor": round(result["key_seal_open_us"] / floor["key_seal_open_us"], 2),
        "envelope_encrypt_to_floor": round(result["envelope_encrypt_us"] / floor["envelope_encrypt_us"], 2),
        "envelope_decrypt_to_floor": round(result["envelope_decrypt_us"] / floor["envelope_decrypt_us"], 2),
        "times_faster_than_doubleratchet": round(peer_both / both, 2),
        "encrypt_times_faster_than_vodozemac": round(peers["vodozemac"]["encrypt_us"] / result["encrypt_us"], 2),
    }


def _each_us(operation: Callable[[], object], count: int = BATCH) -> float:
    begin = time.perf_counter_ns()
    for _ in range(count):
        operation()
    return (time.perf_counter_ns() - begin) / count / 1000


def _ours_once() -> Figures:
    encrypt_us, decrypt_us = _ratchet_in_order(MESSAGE)
    key_seal_us, key_open_us = _ratchet_in_order(KEY)
    envelope_encrypt_us, envelope_decrypt_us = _envelopes()
    pair = Pair.talking()
    stored = pair.alice_record.encode()
    return {
        "encrypt_us": encrypt_us,
        "decrypt_us": decrypt_us,
        "key_seal_open_us": key_seal_us + key_open_us,
        "envelope_encrypt_us": envelope_encrypt_us,
        "envelope_decrypt_us": envelope_decrypt_us,
        "pingpong_us": _pingpong(),
        "state_load_save_us": _each_us(lambda: DeviceRecord.decode(stored).encode()),
    }


def _ratchet_in_order(content: bytes) -> tuple[float, float]:
    pair = Pair.talking()
    sealed = []
    record = pair.alice_record
    begin = time.perf_counter_ns()
    for _ in range(BATCH):
        record, wrap = wrap_key(
            record,
            pair.alice,
            pair.agent.device_id,
            content,
            CONTENT_ID,
            epoch=0,
            now_ms=pair.now_ms,
            random=os.urandom,
        )
        sealed.append(wrap)
    middle = time.perf_counter_ns()
    other = pair.agent_record
    for wrap in sealed:
        opened = unwrap_key(
            other,
            pair.agent,
            pair.alice.identity.public,
            wrap,
            CONTENT_ID,
            pair.agent_prekeys,
            epoch=0,
            now_ms=pair.now_ms,
        )
        other = opened.record
    end = time.perf_counter_ns()
    return (middle - begin) / BATCH / 1000, (end - middle) / BATCH / 1000


def _envelopes() -> tuple[float, float]:
    pair = Pair.talking()
    begin = time.perf_counter_ns()
    sealed = [pair.alice_says("a" * 1000) for _ in range(BATCH)]
    middle = time.perf_counter_ns()
    for one in sealed:
        pair.agent_reads(one)
    end = time.perf_counter_ns()
    return (middle - begin) / BATCH / 1000, (end - middle) / BATCH / 1000


def _pingpong() -> float:
    pair = Pair.talking()

    def there_and_back() -> None:
        record, wrap = wrap_key(
            pair.alice_record,
            pair.alice,
            pair.agent.device_id,
            MESSAGE,
            CONTENT_ID,
            epoch=0,
            now_ms=pair.now_ms,
            random=os.urandom,
        )
        opened = unwrap_key(
            pair.agent_record,
            pair.agent,
            pair.alice.identity.public,
            wrap,
            CONTENT_ID,
            pair.agent_prekeys,
            epoch=0,
            now_ms=pair.now_ms,
        )
        pair.alice_record, pair.agent_record = record, opened.record
        pair.swap()

    return _each_us(there_and_back)


def _pipeline_p99_ms() -> float:
    """One message through everything, state loaded and saved on both sides, each answered by the next."""
    pair = Pair.talking()
    times = []
    for number in range(2_000):
        begin = time.perf_counter_ns()
        pair.alice_record = DeviceRecord.decode(pair.alice_record.encode())
        sealed = pair.alice_says(f"{number} " + "a" * 1000)
        pair.agent_record = DeviceRecord.decode(pair.agent_record.encode())
        pair.agent_reads(sealed)
        times.append(time.perf_counter_ns() - begin)
        pair.swap()
    return round(sorted(times)[int(len(times) * 0.99)] / 1e6, 4)


def _floor_once(bare: Floor) -> Figures:
    return {
        "encrypt_us": _each_us(bare.encrypt),
        "decrypt_us": _each_us(bare.decrypt),
        "key_seal_open_us": _each_us(bare.key_seal_open),
        "envelope_encrypt_us": _each_us(bare.envelope_encrypt),
        "envelope_decrypt_us": _each_us(bare.envelope_decrypt),
        "pingpong_us": _each_us(bare.pingpong),
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])))
