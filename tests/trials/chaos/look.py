"""What Redis still holds: whether everything has come to its end, and what ended badly. Only reads."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import redis

from bus.records.keys import Keys

ID_BYTES = 8
ANSWER_SECONDS = 2.0


class RedisAway(Exception):
    """It does not answer now."""


class Look:
    """One agent's keys in the private Redis."""

    def __init__(self, socket: Path, keys: Keys) -> None:
        self._socket = socket
        self._keys = keys

    def unfinished(self, said: dict[str, int]) -> list[str]:
        """What is still under way, or was never taken in; `said`: messages by conversation. Raises `RedisAway`."""
        keys = self._keys
        with closing(self._client()) as client, _away():
            found = [
                f"{name} {count}"
                for name, count in (
                    ("jobs", client.xlen(keys.jobs)),
                    ("replies", client.xlen(keys.replies)),
                    ("due", client.zcard(keys.due)),
                    ("outbox", client.zcard(keys.resend_times)),
                )
                if count
            ]
            for conversation, count in said.items():
                found += self._unfinished_in(client, conversation, count)
            return found

    def _unfinished_in(self, client: redis.Redis, conversation: str, said: int) -> list[str]:
        keys = self._keys
        fields = cast("list[bytes | None]", client.hmget(keys.conversation(conversation), ["entry", "reply"]))
        facts: Sequence[tuple[str, object]] = (
            ("entry", fields[0]),
            ("reply", fields[1]),
            ("mailbox", client.zcard(keys.mailbox(conversation))),
            ("out-box", client.llen(keys.out_box(conversation))),
            ("never taken in", max(0, said - client.strlen(keys.ids(conversation)) // ID_BYTES)),
        )
        return [f"{conversation}: {name} {value!r}" for name, value in facts if value]

    def dead(self) -> list[str]:
        """Reasons of dead letters and of what stands in quarantine. Raises `RedisAway`."""
        keys = self._keys
        with closing(self._client()) as client, _away():
            letters = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(keys.dead))
            quarantined = cast("list[bytes]", client.zrange(keys.quarantine, 0, -1))
            return [f"dead letter: {fields[b'why'].decode()}" for _, fields in letters] + [
                f"quarantine: {cast(bytes, client.hget(keys.quarantined(message.decode()), 'why')).decode()}"
                for message in quarantined
            ]

    def quarantined(self) -> frozenset[str]:
        """The message_ids of what stands in quarantine. Raises `RedisAway`."""
        with closing(self._client()) as client, _away():
            return frozenset(one.decode() for one in cast("list[bytes]", client.zrange(self._keys.quarantine, 0, -1)))

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self._socket), protocol=2, socket_timeout=ANSWER_SECONDS)


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise RedisAway from error
