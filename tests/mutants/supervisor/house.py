"""The house: whether it is ready, who speaks, how many work, and what the dead leave behind."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

HOUSE = (
    *of(
        module("health"), tests("health"),
        ("a_stuck_loop_is_not_alive", "ok=behind < STUCK_SECONDS", "ok=True"),
    ),
    *of(
        module("redis_watch"), tests("redis_watch"),
        ("nearly_full_holds", "most > 0 and used > most * (HOLD_UNTIL if was_full else HOLD_FROM)", "False"),
    ),
    *of(
        module("redis_check"), tests("redis_check", "redis_watch"),
        ("too_old", "and _numbers(version) < OLDEST_VERSION:", "and False:"),
    ),
    *of(
        module("time_guard"), tests("time_guard"),
        ("back_is_told", "                self.on_back()\n", ""),
    ),
    *of(
        module("twins"), tests("twins"),
        ("one_sighting_is_no_proof", "self._is_twin = self._is_twin or self._answered", "self._is_twin = True"),
    ),
    *of(
        module("recycling"), tests("pool/test_replacing", "pool/test_pool"),
        ("not_within_its_rest", "if age_seconds < self.rest_seconds:", "if False:"),
    ),
    *of(
        module("autoscale"), tests("pool/test_scaling"),
        ("up_only_when_all_are_busy", "0 < load.slots <= load.busy and", "0 < load.slots and"),
    ),
)  # fmt: skip
