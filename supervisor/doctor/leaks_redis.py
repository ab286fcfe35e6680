"""Searches for secrets in all keys and values of this agent in Redis, in pages: no answer is larger than a few of the largest values.

Values are read by the commands of their types: the result of DUMP is compressed, and nothing would be found in it.
"""

from collections.abc import Callable, Iterator

from redis.exceptions import ResponseError

from bus.records.keys import Keys
from bus.transport.lua import Argument, Scripts
from bus.transport.wire import Answer, RedisFailed, Wire, failure, needs_new_connection
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, ok, unknown
from supervisor.doctor.leaks import SUBJECT, told
from supervisor.doctor.needles import CHUNK_BYTES, Needles
from supervisor.doctor.redis import redis_url_of

KEYS_AT_ONCE = 500
ENTRIES_AT_ONCE = 10  # of a megabyte each at most
FIRST = b"0"

Ask = Callable[..., Answer]


def look_into_redis(case: Case, needles: Needles) -> Iterator[Finding]:
    """Searches each key of this agent that exists throughout, once."""
    url = redis_url_of(case)
    if url is None or case.agent_id is None:
        yield unknown(SUBJECT, "Redis", "the settings do not say where it is")
        return
    wire = Wire(url, Scripts({}), answer_timeout_seconds=case.search_answer_seconds)

    def ask(*command: Argument) -> Answer:
        answer = wire.call([command])[0]
        if isinstance(answer, ResponseError) and needs_new_connection(
            answer
        ):  # in a cluster: to the node that has our keys
            answer = wire.call([command])[0]
        if isinstance(answer, ResponseError):
            raise failure(answer)
        return answer

    count = 0
    try:
        ask("EXISTS", Keys(case.agent_id).epoch)  # what follows names no key, and is asked of the node that has ours
        for key in _keys(ask, Keys(case.agent_id).pattern):
            count += 1
            found = needles.find(key) | needles.find_in(_value(ask, key))
            yield from told(f"Redis key {needles.without(key)}", found)
    except RedisFailed as error:
        yield unknown(SUBJECT, "Redis", f"{count} keys were searched, then: {error.reason}", "hashee-agent doctor")
    else:
        yield ok(SUBJECT, "Redis", f"{count} keys with their values were searched")
    finally:
        wire.close()


def _keys(ask: Ask, pattern: str) -> Iterator[bytes]:
    cursor = FIRST
    while True:
        cursor, found = ask("SCAN", cursor, "MATCH", pattern, "COUNT", KEYS_AT_ONCE)  # type: ignore[misc,assignment]
        yield from found  # type: ignore[misc]
        if cursor == FIRST:
            return


def _value(ask: Ask, key: bytes) -> Iterator[bytes]:
    """Yields all of a key's value, in pieces."""
    kind = ask("TYPE", key)
    if kind == b"string":
        yield from _text(ask, key)
    elif kind == b"list":
        yield from _list(ask, key)
    elif kind == b"stream":
        yield from _stream(ask, key)
    elif kind in SCANS:
        yield from _scan(ask, SCANS[kind], key)


SCANS: dict[Answer, str] = {b"hash": "HSCAN", b"set": "SSCAN", b"zset": "ZSCAN"}


def _text(ask: Ask, key: bytes) -> Iterator[bytes]:
    at = 0
    while piece := ask("GETRANGE", key, at, at + CHUNK_BYTES - 1):
        yield flat(piece)
        at += CHUNK_BYTES


def _list(ask: Ask, key: bytes) -> Iterator[bytes]:
    at = 0
    while page := ask("LRANGE", key, at, at + ENTRIES_AT_ONCE - 1):
        yield flat(page)
        at += ENTRIES_AT_ONCE


def _stream(ask: Ask, key: bytes) -> Iterator[bytes]:
    start = b"-"
    while page := ask("XRANGE", key, start, "+", "COUNT", ENTRIES_AT_ONCE):
        yield flat(page)
        start = b"(" + page[-1][0]  # type: ignore[index,operator]


def _scan(ask: Ask, command: str, key: bytes) -> Iterator[bytes]:
    cursor = FIRST
    while True:
        cursor, page = ask(command, key, cursor, "COUNT", ENTRIES_AT_ONCE)  # type: ignore[misc,assignment]
        yield flat(page)
        if cursor == FIRST:
            return


def flat(answer: Answer) -> bytes:
    """Returns all bytes in an answer, with a separator that belongs to none of them."""
    if isinstance(answer, list):
        return b"\0".join(map(flat, answer))
    return answer if isinstance(answer, bytes) else b""
