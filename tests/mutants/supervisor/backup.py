"""A backup and its restore: what is believed of a file, what is refused before anything is touched, and what takes whose place."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

BACKUP = (
    *of(
        module("backup/stream"), tests("supervisor/backup/test_stream"),
        ("a_signature_fits_all_before_it", "if not author.has_signed(SIGNED_PREFIX + author.pair + self._hash.digest(), signature):", "if False:"),
        ("nothing_stands_behind_the_signature", "if self._trailer is None or self._unread:", "if self._trailer is None:"),
        ("a_frame_that_says_it_is_huge", "kind == FRAME and size <= MOST_FRAME_BYTES", "kind == FRAME"),
        ("a_later_format_is_not_guessed", "if version > FORMAT_VERSION:", "if False:"),
    ),
    *of(
        module("backup/stream"), tests("supervisor/backup/test_hostile"),
        ("no_frame_is_written_that_none_reads", "if len(body) > MOST_FRAME_BYTES:", "if False:"),
    ),
    *of(
        module("backup/contents"), tests("supervisor/backup/test_making"),
        ("signed_with_the_keys_that_it_holds", " or self.keystore.identity.public != author:", ":"),
    ),
    *of(
        module("backup/contents"), tests("supervisor/backup/test_hostile"),
        ("a_time_that_has_a_date", "msgspec.Meta(ge=0, le=LATEST_MS)", "msgspec.Meta(ge=0)"),
    ),
    *of(
        module("backup/looking"), tests("supervisor/backup/test_hostile"),
        ("a_kind_that_would_not_come_back", "piece.kind not in SAVED_AS_VALUES:", "False:"),
        ("what_this_program_never_writes_is_damage", "except (ValueError, OverflowError):", "except OverflowError:"),
    ),
    *of(
        module("backup/reading"), tests("supervisor/backup/test_making"),
        ("made_by_the_agent_that_is_named", "if fingerprint not in (None, proven.fingerprint):", "if False:"),
    ),
    *of(
        module("backup/checking"), tests("supervisor/backup/test_hostile"),
        ("what_waits_from_outside_opens", "self._records(\"outside\", value.parts)", "pass"),
        ("what_was_placed_opens", "                    (\"placed\", saved.placed),\n", ""),
    ),
    *of(
        module("backup/checking"), tests("supervisor/backup/test_command_line"),
        ("the_log_of_grants_is_a_chain", "            or entry_mac(self.keys.ledger, self._previous, entry).hex().encode() != mac\n", ""),
    ),
    *of(
        module("backup/checking"), tests("supervisor/backup/test_making"),
        ("sealed_under_the_secret_that_it_holds", "        if keys is not None:\n            self.keys", "        if True:\n            keys = keys or StoreKeys.derive(bytes(32))\n            self.keys"),
    ),
    *of(
        module("backup/envelope"), tests("supervisor/backup/test_envelope"),
        ("what_failed_beside_it_is_no_damage", "if (own := reader.problem or writer.problem) is not None:", "if (own := None) is not None:"),
    ),
    *of(
        module("backup/making"), tests("supervisor/backup/test_making"),
        ("a_later_versions_store", "raise UnknownKinds(unknown)", "pass"),
        ("one_store_secret_from_its_beginning_to_its_end", "if await self._store() != store:", "if False:"),
        ("an_epoch_that_is_raised_meanwhile", "return seal, await self._here.command(\"GET\", self._names.epoch)", "return seal"),
        ("one_connection_from_its_beginning_to_its_end", "self._here = self._client.on_connection(self._client.connects)", "pass"),
    ),
    *of(
        module("backup/files"), tests("supervisor/backup/test_command_line"),
        ("a_backup_takes_nobodys_name", "        give_name(partial, path)\n", "        partial.replace(path)\n"),
        ("other_agents_backups_are_kept", "folder.glob(f\"{agent_id}-*{SUFFIX}\")", "folder.glob(f\"*-*{SUFFIX}\")"),
        ("a_clock_that_was_ahead_keeps_nothing", "key=lambda one: (one.name <= newest, one.name)", "key=lambda one: one.name"),
        ("the_newest_are_kept", "gone = made[:-keep]", "gone = made[keep:]"),
    ),
    *of(
        module("backup/restoring"), tests("supervisor/backup/test_refusals"),
        ("of_this_agent", "if agent_id != self._settings.agent_id:", "if False:"),
        ("no_other_identity_keys_beside_it", "if self._identity_given not in (None, proven.author.pair):", "if False:"),
        ("no_other_store_secret_beside_it", "if given is not None and given != proven.store_secret and wishes.store_key_file is None:", "if False:"),
        ("a_given_redis_has_a_store_secret", "if given is None and settings.redis_url is not None and wishes.store_key_file is None:", "if False:"),
        ("a_key_that_is_there_stays", "        if path.read_bytes() != data:\n", "        if False:\n"),
    ),
    *of(
        module("backup/restoring"), tests("supervisor/backup/test_given_redis"),
        ("newer_by_what_was_written", " or standing.writes > backup.writes", ""),
        ("newer_by_its_history", "standing.last_ms > backup.made_ms or ", ""),
        ("who_came_meanwhile", "                await _refuse_company(client, names, self._quiet)  # for a process that came before the store was locked\n", ""),
        ("what_did_not_come_to_its_end_is_taken_away", "                await _clean(switch, problem)\n", ""),
        ("one_that_fills_up_is_filled_no_further", "            _refuse_full(await self._backlog.server())\n        self._pieces += 1", "            pass\n        self._pieces += 1"),
        ("room_for_both_stores", "if used and limit and used > MOST_FULL * limit:", "if False:"),
    ),
    *of(
        module("backup/restoring"), tests("supervisor/backup/test_given_redis"),
        ("filled_over_one_connection", "filling = switch.on(here)", "filling = switch"),
        ("the_same_file_twice", "if again.digest != proven.digest:", "if False:"),
    ),
    *of(
        module("backup/restoring"), tests("supervisor/backup/test_restore_command"),
        ("the_new_store_is_prepared_apart", "async with server_on(prepared, settings, lock_fd) as layout", "async with server_on(state_dir, settings, lock_fd) as layout"),
        ("above_what_was_seen_of_the_former_store", "Standing(max(writes, seen.count), max(epoch, seen.epoch), last_ms, is_there)", "Standing(writes, epoch, last_ms, is_there)"),
    ),
    *of(
        module("backup/switching"), tests("supervisor/backup/test_switching"),
        ("a_rename_that_was_done_is_not_done_again", "if os.path.lexists(prepared / name):", "if True:"),
        ("nothing_is_completed_that_was_not_decided", "    if not is_decided(state_dir):\n        return None\n    try:", "    try:"),
        ("a_damaged_journal_is_said", "    except UNREADABLE:\n        raise JournalDamaged", "    except KeyError:\n        raise JournalDamaged"),
        ("nothing_is_completed_under_somebody_that_runs", "lock = take_lock(state_dir, patience_seconds=0.0)", "lock = os.open(os.devnull, os.O_RDONLY)"),
    ),
)  # fmt: skip
