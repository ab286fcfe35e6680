"""What goes out: to whom, with which session, once, and what becomes of it."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

SENDING = (
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
