"""People: who may talk to the agent, alone and in groups."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

PEOPLE = (
    *of(
        module("owners"), tests("owners"),
        ("a_frame_is_newer_than_the_answer", "lambda: relation.user_id in self._noted_meanwhile", "lambda: False"),
        ("an_unlisted_device_is_not_fetched_again", "if now < self._unlisted_until.get(owner.owner_id, 0.0):", "if False:"),
        ("devices_are_fetched_again_after_a_day", "if listed and now_ms() - owner.devices_fetched_ms < DEVICES_FRESH_MS:", "if listed:"),
        ("devices_are_checked", "                check_bundle(bundle, owner.pinned)\n", ""),
        ("five_devices_count", "(await self._rest.devices(owner.owner_id))[:MOST_DEVICES]", "(await self._rest.devices(owner.owner_id))"),
        ("a_decoded_row_is_of_its_bytes", "(kept.owner.row_version, kept.sealed) == (version, sealed)", "True"),
        ("who_looked_again_reads_again", "and kept.looked_at is looked_at", ""),
        ("asked_in_vain_waits", "        if owner_id in self._unanswered:\n            return None\n", ""),
    ),
    *of(
        module("owners"), tests("upkeep_hostile"),
        ("an_unknown_status_suspends", "change = Change.SUSPENDED", "change = Change.RESTORED"),
    ),
    *of(
        module("members"), tests("group_members"),
        ("one_pair_only", "if len(pairs) != 1:", "if not pairs:"),
        ("a_member_is_looked_up_once_a_minute", "if owner_id in self._looked_until:", "if False:"),
        ("a_changed_pair_is_held", "if known.held is not None and self._policy is KeyChangePolicy.HOLD:", "if False:"),
        ("a_changed_pair_is_refused", "or self._policy is KeyChangePolicy.REFUSE:", "or False:"),
    ),
    *of(
        module("groups"), tests("group_bounds"),
        ("stale_is_refused", "if sent <= look.dropped_ms:", "if False:"),
        ("versions_ahead_are_bounded", "0 < version - current.key_version <= MOST_VERSIONS_AHEAD", "0 < version - current.key_version"),
        ("asked_in_vain_is_not_asked_again", "if vain is not None and ago <", "if False and ago <"),
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
