"""The store in a backup: all of it is read while the agent goes on, and what is put back raises the epoch and forgets what is one store's alone."""

from __future__ import annotations

from tests.mutants.bus.places import script
from tests.mutants.mutant import of

SNAPSHOT = ("tests/supervisor/backup/test_snapshot.py",)
RESTORING = ("tests/supervisor/backup/test_restored_counters.py", "tests/supervisor/backup/test_restoring.py")

OF_BACKUPS = (
    *of(
        "bus/whole/snapshot.py", SNAPSHOT,
        ("quarantine_is_read_after_the_conversations_too", "            self._quarantined(self._since(began_ms)),\n", ""),
        ("what_leaves_a_list_moves_its_pages", "if first and page[-1:] != [first]:", "if False:"),
        ("what_came_before_all_is_said_first", "if len(out) < said and out[:1] == [", "if False and out[:1] == ["),
        ("a_stream_to_its_end", "            if len(rows) < count:\n                return\n", "            return\n"),
    ),
    *of(
        script("save_conversation"), SNAPSHOT,
        ("no_more_at_once_than_was_asked_for", "if bytes > tonumber(ARGV[2]) then return { 'large' } end", ""),
        ("what_was_read_before_is_left_out", "if not read_before[redis.sha1hex(records[at])] then", "if true then"),
        ("an_entry_that_is_none", "if not entry or not string.find(entry, '^%d+%-%d+$') then return {} end", "if not entry then return {} end"),
    ),
    *of(
        "bus/records/saved.py", ("tests/supervisor/backup/test_hostile.py",),
        ("what_no_restore_brings_back_is_known", "if kind.fate is Fate.SAVED}", "}"),
    ),
    *of(
        "bus/whole/restoring.py", RESTORING,
        ("the_epoch_is_raised", "(\"SET\", epoch, self._epoch + 1)", "(\"SET\", epoch, self._epoch)"),
        ("above_the_epoch_of_the_backup", "self._epoch = max(self._epoch, epoch)", "pass"),
        ("above_the_epoch_of_each_session", "            self.seen_epoch(int(dict(pairs(value.parts)).get(b\"e\", 0)))\n", "            pass\n"),
        ("above_what_was_written", "(\"SET\", writes, self._writes + 1)", "(\"SET\", writes, 1)"),
        ("restored_prekeys_end_after_thirty_days", "            await self._do((\"EXPIRE\", key, PREKEYS_READ_SECONDS))\n", ""),
        ("restored_prekeys_stand_apart", "key = self._place(f\"restored_{value.kind}\", \"\")", "key = self._place(value.kind, \"\")"),
        ("new_prekeys_are_far_from_restored_ones", "if all(abs(first - taken) > FEWEST_ROOM for taken in self._prekey_ids):", "if True:"),
        ("a_job_under_way_was_delivered_once_more", "int(fields.get(b\"d\", b\"1\")) + 1", "int(fields.get(b\"d\", b\"1\"))"),
        ("a_message_in_quarantine_counts_once", "        if await self._client.command(\"EXISTS\", key) == 1:  # it was read twice\n            return\n        row, name", "        row, name"),
        ("a_conversation_counts_once", "        if await self._client.command(\"EXISTS\", key) == 1:  # it was read twice\n            return\n        row = dict", "        row = dict"),
        ("what_waits_counts_once", "            if await self._client.command(\"LPOS\", key, record) is None:\n", "            if True:\n"),
        ("what_is_handled_together_waits_no_more", "lambda record: _job_id(record) in under_way", "lambda record: False"),
        ("notes_are_counted_anew", "for name in (b\"began\", b\"held\"):", "for name in (b\"began\",):"),
    ),
    *of(
        "bus/whole/restore_switch.py", RESTORING,
        ("what_is_decided_is_not_given_up", "        if not step.startswith(FILLING):\n            return False\n", ""),
        ("what_was_given_up_is_not_decided", "return await self._in_step(self._filling, \"HSET\"", "return await self._in_step(await self._step(), \"HSET\""),
        ("done_is_looked_at", "if await self.has_begun():", "if False:"),
        ("anothers_attempt_is_left_alone", "        await self._forget(self._filling)\n", "        await self._forget(await self._step())\n"),
        ("clearing_spares_the_new_store", "{self._names.seal, *(key for key in keys if step == CLEARING and self._is_staged(key))}", "{self._names.seal}"),
    ),
    *of(
        script("in_step"), ("tests/supervisor/backup/test_scripts.py", *RESTORING),
        ("late_commands_change_nothing", "if (redis.call('HGET', KEYS[1], 'restoring') or '') ~= ARGV[1] then return 0 end", ""),
        ("a_key_may_have_been_moved_before", "elseif redis.call('EXISTS', KEYS[2]) == 1 then", "else"),
    ),
    *of(
        "bus/steps/last_backup.py", ("tests/supervisor/backup/test_last_backup.py",),
        ("one_note_is_kept", "    await client.command(\"ZREMRANGEBYRANK\", key, 0, -2)\n", ""),
        ("a_note_is_small", "place=place[-MOST_SHOWN:]", "place=place"),
    ),
)  # fmt: skip
