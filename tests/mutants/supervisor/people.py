"""People: who may talk to the agent, alone and in groups."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

PEOPLE = (
    *of(
        module("peers/owners"), tests("supervisor/peers/test_owners"),
        ("a_frame_is_newer_than_the_answer", "lambda: relation.user_id in self._noted_meanwhile", "lambda: False"),
        ("an_unlisted_device_is_not_fetched_again", "if now < self._unlisted_until.get(owner_id, 0.0):", "if False:"),
        ("devices_are_fetched_again_after_a_day", "if listed and _is_younger(owner.devices_fetched_ms, DEVICES_FRESH_MS):", "if listed:"),
        ("a_list_of_days_to_come_is_fetched_again", "return -CLOCKS_APART_MS <= now_ms() - fetched_ms < than_ms", "return now_ms() - fetched_ms < than_ms"),
        ("devices_are_checked", "                check_bundle(bundle, owner.pinned)\n", ""),
        ("five_devices_count", "(await self._rest.devices(owner.owner_id))[:MOST_DEVICES]", "(await self._rest.devices(owner.owner_id))"),
        ("a_decoded_row_is_of_its_bytes", "(kept.owner.row_version, kept.sealed) == (version, sealed)", "True"),
        ("who_looked_again_reads_again", "and kept.verified_connection is verified_connection", ""),
        ("who_is_not_told_is_not_asked_for_by_each_message", "        if self.untold.is_paused(owner_id):\n            return self._untold_now(owner_id)\n", ""),
        ("devices_not_told_for_long_are_quarantined", "return Admission.UNLISTED if self.untold.is_long(owner_id) else", "return"),
        ("a_relation_not_told_is_not_asked_for_by_each_message", "if not self.untold.is_paused(owner_id):", "if True:"),
        ("a_relation_not_told_for_long_is_quarantined", "        if self.untold.is_long(owner_id):\n            return None\n", ""),
        ("a_no_is_no_waiting", "        if not error.is_final:\n            raise\n        return _Told(None)", "        raise"),
        ("a_frame_tells_a_relation", "        self.untold.told(relation.user_id)\n", ""),
    ),
    *of(
        module("peers/untold"), tests("supervisor/peers/test_owners"),
        ("not_told_is_waited_for_from_the_first_time_on", "_InVain(before.since,", "_InVain(now,"),
    ),
    *of(
        module("peers/untold"), tests("supervisor/peers/test_untold"),
        ("the_pauses_grow", "before.tries + 1, now", "max(1, before.tries), now"),
        ("so_many_are_remembered", "if before.tries or len(self._in_vain) < self._most:", "if True:"),
        ("a_group_holds_up_its_members", " or self.is_paused(self._group_of.get(person, person))", ""),
    ),
    *of(
        module("peers/owners"), tests("supervisor/recovery/test_upkeep_hostile"),
        ("an_unknown_status_suspends", "change = Change.SUSPENDED", "change = Change.RESTORED"),
    ),
    *of(
        module("peers/members"), tests("supervisor/peers/test_group_members"),
        ("one_pair_only", "if len(pairs) != 1:", "if not pairs:"),
        ("a_member_is_looked_up_once_a_minute", "if owner_id in self._looked_until:", "if False:"),
        ("a_changed_pair_is_held", "if known.held is not None and self._policy is KeyChangePolicy.HOLD:", "if False:"),
        ("a_changed_pair_is_refused", "or self._policy is KeyChangePolicy.REFUSE:", "or False:"),
    ),
    *of(
        module("peers/groups"), tests("supervisor/peers/test_group_bounds"),
        ("stale_is_refused", "if sent <= snapshot.dropped_ms:", "if False:"),
        ("versions_ahead_are_bounded", "0 < version - current.key_version <= MOST_VERSIONS_AHEAD", "0 < version - current.key_version"),
        ("asked_in_vain_is_not_asked_again", "if vain is not None and ago <", "if False and ago <"),
        ("a_key_not_told_is_waited_for", "        if not untold.is_long(group_id):  # nor is it told", "        if False:"),
    ),
    *of(
        module("peers/groups"), tests("supervisor/peers/test_groups"),
        ("a_day_ahead_is_refused", "if sent > now_ms() + MOST_AHEAD_MS:", "if False:"),
    ),
    *of(
        module("peers/groups"), tests("supervisor/peers/test_group_members"),
        ("suspended_members_are_refused", "if owner is not None and owner.grant.status is not Status.ACTIVE:", "if False:"),
        ("a_held_pair_is_refused", "if grant is not None and grant.held is not None:", "if False:"),
    ),
    *of(
        module("peers/groups"), tests("supervisor/peers/test_group_keys"),
        ("nobody_signs_in_our_name", "if envelope.sender_id == self._device.owner_id:", "if False:"),
    ),
    *of(
        module("peers/groups"), tests("supervisor/outbound/test_group_replies"),
        ("once_a_connection_is_enough", "if group_id in self._asked_since_connected and kept.current is not None:", "if False:"),
    ),
    *of(
        module("peers/grant_ledger"), tests("supervisor/peers/test_grant_ledger"),
        ("a_row_that_changed_has_no_entry", "        if not await self._vault.put_grant(owner_id, read, row, step):\n            return False\n", "        await self._vault.put_grant(owner_id, read, row, step)\n"),
        ("an_edited_log_is_found", "        if wrong is not None:\n", "        if False:\n"),
        ("a_cut_log_is_found", "        if ours != FIRST_PREVIOUS and ours not in", "        if False and ours not in"),
        ("who_knows_no_head_believes_the_log", "if ours != FIRST_PREVIOUS and ours not in", "if ours not in"),
        ("an_entry_that_does_not_open_is_said", "except (SealBroken, ValueError):\n            return", "except KeyError:\n            return"),
        ("head_and_log_are_of_one_moment", "if await self._vault.grant_head() == head:", "if True:"),
        ("a_garbled_head_is_no_head", "        except (OSError, ValueError):\n            return f\"{self._head_file} cannot be read\"", "        except (OSError, ValueError):\n            ours = FIRST_PREVIOUS"),
        ("half_a_head_is_none", "        if len(head) != len(FIRST_PREVIOUS):", "        if False:"),
        ("without_a_head_there_is_none_to_miss", "        except FileNotFoundError:\n            return FIRST_PREVIOUS\n", "        except FileNotFoundError:\n            raise\n"),
        ("what_others_wrote_is_our_head_too", "        self._write_head(head)\n        return None", "        return None"),
        ("a_full_disk_costs_no_grant", "        except OSError as error:  # a full", "        except KeyError as error:  # a full"),
    ),
    *of(
        module("peers/relations"), tests("supervisor/peers/test_relations"),
        ("one_too_many_has_the_list_read", "        except trio.WouldBlock:\n            self.read_all()", "        except trio.WouldBlock:\n            pass"),
        ("what_was_not_read_is_read_again", "                self.read_all()\n                await trio.sleep(pause_after(error, self._pauses.relations_retry))\n", "                await trio.sleep(pause_after(error, self._pauses.relations_retry))\n"),
        ("nor_before_the_relay_says", "pause_after(error, self._pauses.relations_retry)", "self._pauses.relations_retry"),
        ("not_at_once_again", "                await trio.sleep(pause_after(error, self._pauses.relations_retry))\n", ""),
        ("what_was_not_noted_is_read", "            except RedisFailed:\n                self.read_all()", "            except RedisFailed:\n                pass"),
        ("asked_meanwhile_is_read_once_more", "            self._to_read = trio.Event()\n            try", "            try"),
    ),
)  # fmt: skip
