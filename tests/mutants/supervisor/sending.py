"""What goes out: to whom, with which session, once, and what becomes of it."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

SENDING = (
    *of(
        module("rate_line"), tests("rate_line"),
        ("who_comes_now_waits_behind_the_others", "if not self._line.is_taken:", "if True:"),
        ("the_place_is_kept", "self._line.turn(place)", "self._line.turn(self.place())"),
        ("until_it_is_allowed", "                if commit.outcome is not Committed.WAIT:\n                    return made, commit\n                wait_ms", "                return made, commit\n                wait_ms"),
        ("the_turn_is_held", "        async with self._line.turn(place):\n", "        if True:\n"),
    ),
    *of(
        module("recipients"), tests("recipients", "outbound", "group_replies"),
        ("only_the_active_are_written_to", "return owner if owner is not None and owner.is_active else None", "return owner"),
    ),
    *of(
        module("recipients"), tests("recipients"),
        ("no_key_no_reply", "return kind, None if keys.current is None else keys", "return kind, keys"),
        ("the_pair_is_compared", "return one.grant.pinned == other.grant.pinned", "return True"),
    ),
    *of(
        module("recipients"), tests("group_replies"),
        ("no_streams_in_large_groups", "and len(recipient.current.members) <= MOST_MEMBERS_WITH_STREAMS", ""),
    ),
)  # fmt: skip
