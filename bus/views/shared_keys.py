"""Looks whether each key that the whole agent shares is of its type: a damaged disk or a command by hand may have put another there.

What stands under one conversation or person concerns these alone, and whoever meets it says so. One that all share keeps everybody waiting, and
the scripts that meet it only know that they were refused.
"""

from collections.abc import Mapping
from typing import cast

from bus.records.keys import Keys
from bus.records.numbers import can_be_counted
from bus.transport.client import RedisClient

COUNTERS = ("gen", "epoch", "waiting")
"""The strings that are whole numbers."""

TYPES: Mapping[str, str] = {
    **dict.fromkeys(
        (*COUNTERS, "cursor", "first_sync", "outside_turn", "reclaimer", "ghost_poll", "standby", "grant_head"),
        "string",
    ),
    **dict.fromkeys(("jobs", "replies", "ledger", "dead", "dead_copy"), "stream"),
    **dict.fromkeys(("outside", "grant_log"), "list"),
    **dict.fromkeys(("interrupted", "wanted", "owners"), "set"),
    **dict.fromkeys(("due", "busy", "placements", "behind", "alarms", "outbox"), "zset"),
    **dict.fromkeys(("quarantine", "waiting_for", "old", "ghosts", "consumers", "last_backup"), "zset"),
    **dict.fromkeys(("continuity", "load", "held", "streams", "policy", "acks", "rate", "kept", "slots"), "hash"),
    **dict.fromkeys(("store", "histories", "seal", "prekey_state"), "hash"),
    **dict.fromkeys(("signed_prekeys", "one_time_prekeys"), "hash"),
    **dict.fromkeys(("restored_signed_prekeys", "restored_one_time_prekeys"), "hash"),
}
"""The Redis type of each kind of key (bus/records/kinds.py) of which an agent has one."""

COUNTED: Mapping[str, tuple[str, ...]] = {
    "load": ("total", "out", "most_out", "outside", "waits", "waits_open"),
    "held": ("total",),
    "kept": ("total", "unsigned"),
    "store": ("",),
}
"""The fields of hashes that are whole numbers and that each message, or each job, counts on with."""


class SharedKeys:
    """The keys that all conversations of one agent share."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def faults(self) -> list[str]:
        """Returns for each key that is not as it must be what it is instead, with its name. Raises RedisFailed."""
        types = await self._client.together(*(("TYPE", self._keys.of(kind)) for kind in TYPES))
        found = {kind: cast(bytes, answer).decode() for kind, answer in zip(TYPES, types, strict=True)}
        faults = [
            f"{self._keys.of(kind)} is a {found[kind]} and must be a {wanted}"
            for kind, wanted in TYPES.items()
            if found[kind] not in (wanted, "none")
        ]
        return [*faults, *await self._no_numbers(found)]

    async def _no_numbers(self, found: Mapping[str, str]) -> list[str]:
        asked = [
            *((kind, "", ("GET", self._keys.of(kind))) for kind in COUNTERS if found[kind] == "string"),
            *(
                (kind, f", its field '{field}',", ("HGET", self._keys.of(kind), field))
                for kind, fields in COUNTED.items()
                if found[kind] == "hash"
                for field in fields
            ),
        ]
        values = await self._client.together(*(command for *_, command in asked)) if asked else []
        return [
            f"{self._keys.of(kind)}{which} must be a whole number and is none"
            for (kind, which, _), value in zip(asked, values, strict=True)
            if value is not None and not can_be_counted(cast(bytes, value))
        ]
