"""The house: whether it is ready, who speaks, how many work, and what the dead leave behind."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

HOUSE = (
    *of(
        module("health"), tests("health"),
        ("a_stuck_loop_is_not_alive", "ok=behind < STUCK_SECONDS", "ok=True"),
        ("an_ended_thread_is_not_alive", "if latest.dead_threads:", "if False:"),
    ),
    *of(
        module("readiness"), tests("deploy/test_health"),
        ("unconnected_is_not_ready", "return Check(\"relay\", ok=False,", "return Check(\"relay\", ok=True,"),
    ),
    *of(
        module("redis_watch"), tests("redis_watch"),
        ("nearly_full_holds", "most > 0 and used > most * (HOLD_UNTIL if was_full else HOLD_FROM)", "False"),
        ("no_limit_is_never_full", "most > 0 and used >", "used >"),
        ("held_until_there_is_room", "(HOLD_UNTIL if was_full else HOLD_FROM)", "HOLD_FROM"),
        ("without_a_limit_ours_counts", "if facts.limit_bytes or not self._own_limit_bytes or self._kept_bytes is None:", "if True:"),
    ),
    *of(
        module("redis_check"), tests("redis_check", "redis_watch"),
        ("too_old", "and _numbers(version) < OLDEST_VERSION:", "and False:"),
    ),
    *of(
        module("redis_check"), tests("redis_check"),
        ("must_not_evict", "if policy != \"noeviction\" and", "if False and"),
        ("eviction_is_trusted_only_where_hidden", "not (policy is None and TRUST_EVICTION in trust)", "TRUST_EVICTION not in trust"),
        ("must_append", "if appendonly != \"yes\" and", "if False and"),
    ),
    *of(
        module("redis_check"), tests("redis_watch"),
        ("a_changed_policy_is_a_fault", "evicts = self.policy != \"noeviction\"", "evicts = False"),
        ("a_broken_disk_is_a_fault", "failed = \"\" if self.is_written else", "failed = \"\" if True else"),
    ),
    *of(
        module("overflow"), tests("letters/test_bounds"),
        ("quarantine_is_bounded", "        if over <= 0:\n            return 0\n        oldest = await self._quarantine", "        if True:\n            return 0\n        oldest = await self._quarantine"),
    ),
    *of(
        module("slots"), tests("slots/test_slots"),
        ("abandoned_only_after_a_while", "if now - since >= ABANDONED_SECONDS]", "]"),
        ("the_dead_of_this_host_are_freed", "if name == self._me.holder or not self._instance.knows_dead(name):", "if True:"),
        ("the_lowest_connected_speaks", "return self.number > 0 and not any(holder is not None and holder.connected for holder in lower)", "return self.number > 0"),
        ("a_successor_does_not_leave", "holder.connected and not holder.leaves", "holder.connected"),
        ("a_standby_waits_for_what_is_held", "return self._wanted and self.number == 0 and self._seen is not None", "return False"),
    ),
    *of(
        module("reclaimer"), tests("reclaimer"),
        ("one_lease_of_connection", "since is not None and now - max(since, self._jumped_at) >= LEASE_SECONDS", "since is not None"),
        ("a_jump_gives_time", "max(since, self._jumped_at)", "since"),
        ("the_dead_of_this_host_wait_for_no_lease", "if self._instance.knows_dead(consumer):", "if False:"),
    ),
    *of(
        module("time_guard"), tests("time_guard"),
        ("back_is_told", "            self._metrics.went_back.inc()\n            self.on_back()\n", "            self._metrics.went_back.inc()\n"),
        ("another_may_have_seen_it_first", "self._has_begun and self._generation.epoch > epoch", "False"),
        ("another_boot_is_certain", "self._is_private and seen.boot not in (\"\", _boot_id())", "False"),
        ("what_was_seen_counts", "self._generation.seen(self._seen.count)", "pass"),
        ("unreadable_is_the_worst", "        return None\n\n\ndef _boot_id", "        return Seen()\n\n\ndef _boot_id"),
    ),
    *of(
        module("time_guard"), tests("witness", "continuity"),
        ("what_was_witnessed_counts", "Proof(server.name, testimony.servers, testimony.commits)", "Proof(server.name, testimony.servers)"),
        ("a_server_is_named_before_it_is_asked", "        self._witness.looks_at(server.name)\n", ""),
        ("another_history_within_a_minute", "if is_lately and goes_on(", "if goes_on("),
        ("who_has_no_witness_raises_no_alarm", "and self._is_private and not proof.may_follow", "and False"),
    ),
    *of(
        module("witness"), tests("witness"),
        ("the_highest_of_all", "max(one.commits for one in found)", "self._own.commits"),
        ("a_witness_is_of_this_boot", "if (form, boot) != (FORMAT, _boot()):", "if form != FORMAT:"),
        ("its_folder_is_ours_alone", " or stat.S_IMODE(found.st_mode) & 0o077", ""),
        ("it_stands_in_memory", "return after.split(\" \")[0] in MEMORY_FILE_SYSTEMS", "return True"),
        ("its_count_only_rises", "if commits > self._own.commits:", "if True:"),
        ("its_names_are_bounded", "[-MOST_SERVERS:]", "[:MOST_SERVERS]"),
    ),
    *of(
        module("continuity"), tests("continuity"),
        ("a_former_history_is_doubt", " and now.former == NO_REPLICATION", ""),
        ("another_process_is_doubt", " and seen.run_id == now.run_id", ""),
    ),
    *of(
        module("twins"), tests("twins"),
        ("one_sighting_is_no_proof", "self._is_twin = self._is_twin or self._answered", "self._is_twin = True"),
        ("a_second_one_is", "self._is_twin = self._is_twin or self._answered", "pass"),
        ("a_twin_that_is_gone", "and self._ago(now) < self._times.gone", ""),
        ("closer_after_a_sighting", "if self._ago(now) < self._times.closer_for else", "if False else"),
        ("a_sighting_is_forgotten", "if self._ago(now) >= self._times.remembered:", "if False:"),
        ("another_device_of_ours_is_known", "if await self._prekeys.recognises(await self._shown()):", "if False:"),
        ("of_our_own_making", "        check_bundle(shown, self._device.identity.public)\n", ""),
        ("only_the_one_that_speaks_looks", "if self._speaks():", "if True:"),
    ),
    *of(
        module("crash_loop"), tests("pool/test_limits"),
        ("so_many_deaths", "or len(self._deaths) < limits.deaths:", "or False:"),
        ("within_the_window", "if now - self._deaths[0] > limits.window_seconds:", "if False:"),
        ("quiet_ends_it", "if now - self._deaths[-1] > self._limits.quiet_seconds:", "if False:"),
        ("a_loop_begins_once", "if was_on or", "if"),
    ),
    *of(
        module("recycling"), tests("pool/test_limits"),
        ("not_within_its_rest", "if age_seconds < self.rest_seconds:", "if False:"),
        ("by_memory", "if self.soft_bytes and beat.rss_bytes > self.soft_bytes:", "if False:"),
        ("by_jobs", "if self.jobs and beat.jobs_done + beat.jobs_failed >= self.jobs:", "if False:"),
        ("failed_jobs_count", "beat.jobs_done + beat.jobs_failed", "beat.jobs_done"),
        ("by_age", "if self.age_seconds and age_seconds >= self.age_seconds:", "if False:"),
        ("not_all_at_once", "part = uniform(1 - SPREAD, 1.0)", "part = 1.0"),
    ),
    *of(
        module("autoscale"), tests("pool/test_autoscale"),
        ("up_only_when_all_are_busy", "0 < load.slots <= load.busy and", "0 < load.slots and"),
        ("up_only_when_none_starts", "and not load.starting", ""),
        ("up_only_after_a_while", "and now - memory.much_since >= self.times.up_after_seconds", ""),
        ("down_only_after_a_while", "and now - memory.little_since >= self.times.down_after_seconds", ""),
        ("down_only_when_nothing_waits", "little = load.waiting == 0 and", "little ="),
        ("within_the_bounds", "return min(max(count, self.least), self.most)", "return count"),
        ("as_many_as_wait", "more = max(1, -(-load.waiting // concurrency))", "more = 1"),
        ("never_none", "min(max(1, end + by), MOST_WORKERS)", "min(end + by, MOST_WORKERS)"),
        ("bounds_in_their_order", "if bounds.least > bounds.most or", "if"),
        ("a_pause_begins_anew", "    if not holds:\n        return None\n", ""),
    ),
)  # fmt: skip
