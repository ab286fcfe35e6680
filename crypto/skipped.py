"""Message keys that were stepped over and are kept for late messages (PROTOCOL §5.4), packed.

A chain's keys lie in one byte string, fixed-size entries in rising order of number: a record with 2,000 of
them loads at the speed of a copy, finding one is a bisection over at most 2,000 entries, and the size is
known to the byte. A used key is cut out at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from crypto.ratchet import Parked

KEPT_DAYS: Final = 30
"""How long a late message stays readable. Days, since two bytes a key are what 80 KiB leave for the time."""

ENTRY_BYTES: Final = 4 + 2 + 32
"""u32 number ‖ u16 day since 1970 ‖ message key."""

_KEY_AT: Final = 6
_DAY_MS: Final = 86_400_000


class SkippedChain(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is left of one chain: its ratchet key and the packed entries. The repr shows no key."""

    ratchet_key: bytes
    entries: bytes

    def __repr__(self) -> str:
        return f"SkippedChain(count={self.count})"

    @property
    def count(self) -> int:
        """How many keys are kept."""
        return len(self.entries) // ENTRY_BYTES

    @property
    def first_day(self) -> int:
        """The day on which the oldest was parked."""
        return int.from_bytes(self.entries[4:6], "big")

    def find(self, number: int) -> int:
        """The place of `number`'s entry, or −1. A number is never further on than its distance to the first."""
        entries = self.entries
        wanted = number.to_bytes(4, "big")
        low, high = 0, len(entries) // ENTRY_BYTES
        while low < high:
            middle = (low + high) // 2
            start = middle * ENTRY_BYTES
            found = entries[start : start + 4]
            if found == wanted:
                return middle
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        return -1

    def message_key(self, place: int) -> bytes:
        """The key of the entry at `place`."""
        start = place * ENTRY_BYTES
        return self.entries[start + _KEY_AT : start + ENTRY_BYTES]

    def without(self, place: int) -> SkippedChain:
        """The chain with that entry erased."""
        start = place * ENTRY_BYTES
        return SkippedChain(self.ratchet_key, self.entries[:start] + self.entries[start + ENTRY_BYTES :])

    def without_first(self, count: int) -> SkippedChain:
        """The chain without its `count` oldest entries."""
        return SkippedChain(self.ratchet_key, self.entries[count * ENTRY_BYTES :])

    def count_before(self, day: int) -> int:
        """How many entries were parked before `day`; days rise with the entries."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            start = middle * ENTRY_BYTES + 4
            if int.from_bytes(self.entries[start : start + 2], "big") < day:
                low = middle + 1
            else:
                high = middle
        return low


SkippedChains = tuple[SkippedChain, ...]


def day_of(now_ms: int) -> int:
    """Days since 1970, as far as two bytes go."""
    return min(now_ms // _DAY_MS, 0xFFFF)


def find_chain(chains: SkippedChains, ratchet_key: bytes) -> int:
    """The index of the chain with this ratchet key, or −1."""
    for index, chain in enumerate(chains):
        if chain.ratchet_key == ratchet_key:
            return index
    return -1


def replace_chain(chains: SkippedChains, index: int, chain: SkippedChain) -> SkippedChains:
    """The chains with one replaced, or left out when nothing of it is left."""
    kept = (chain,) if chain.entries else ()
    return chains[:index] + kept + chains[index + 1 :]


def park(chains: SkippedChains, parked: Iterable[Parked], day: int) -> SkippedChains:
    """The chains with these keys added, as parked on `day`."""
    stamp = day.to_bytes(2, "big")
    for run in parked:
        entries = b"".join(
            (number.to_bytes(4, "big") + stamp + key) for number, key in enumerate(run.message_keys, start=run.first)
        )
        index = find_chain(chains, run.ratchet_key)
        if index < 0:
            chains = (*chains, SkippedChain(run.ratchet_key, entries))
        else:
            longer = SkippedChain(run.ratchet_key, chains[index].entries + entries)
            chains = replace_chain(chains, index, longer)
    return chains


def drop_expired(chains: SkippedChains, today: int) -> SkippedChains:
    """The chains without keys parked more than 30 days ago."""
    oldest_kept = today - KEPT_DAYS
    if all(chain.first_day >= oldest_kept for chain in chains):
        return chains
    trimmed = (chain.without_first(chain.count_before(oldest_kept)) for chain in chains)
    return tuple(chain for chain in trimmed if chain.entries)
