"""People: who may talk to the agent, alone and in groups."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

PEOPLE = (
    *of(
        module("owners"), tests("owners"),
        ("a_frame_is_newer_than_the_answer", "lambda: relation.user_id in self._noted_meanwhile", "lambda: False"),
    ),
    *of(
        module("groups"), tests("group_bounds"),
        ("stale_is_refused", "if sent <= look.dropped_ms:", "if False:"),
        ("versions_ahead_are_bounded", "0 < version - current.key_version <= MOST_VERSIONS_AHEAD", "0 < version - current.key_version"),
    ),
    *of(
        module("groups"), tests("groups"),
        ("a_day_ahead_is_refused", "if sent > now_ms() + MOST_AHEAD_MS:", "if False:"),
    ),
    *of(
        module("groups"), tests("group_members"),
        ("suspended_members_are_refused", "if owner is not None and owner.grant.status is not Status.ACTIVE:", "if False:"),
        ("a_held_pair_is_refused", "if grant is not None and grant.held is not None:", "if False:"),
    ),
    *of(
        module("groups"), tests("group_keys"),
        ("nobody_signs_in_our_name", "if envelope.sender_id == self._device.owner_id:", "if False:"),
    ),
    *of(
        module("groups"), tests("group_replies"),
        ("once_a_connection_is_enough", "if group_id in self._asked_since_connected and kept.current is not None:", "if False:"),
    ),
)  # fmt: skip
