"""What the typed half of bus/ decides by itself."""

from __future__ import annotations

from tests.mutants.bus.places import TIME
from tests.mutants.mutant import of

TYPED = (
    *of(
        "bus/steps/opened.py", ("tests/bus/steps/test_opened.py",),
        ("what_was_read_is_known_by_its_last", "if read is None or read.last not in records:\n            return None\n        at = records.index(read.last)", "if read is None:\n            return None\n        at = 0"),
        ("what_stands_before_the_last_is_known", "        if gone < 0:\n            return None\n", ""),
        ("what_has_gone_is_not_there", "[*read.exchanges[gone:], *came]", "[*read.exchanges, *came]"),
        ("what_is_full_loses_its_oldest", "may_lose = read.has_lost or known >= MOST_EXCHANGES", "may_lose = read.has_lost"),
        ("what_has_lost_loses_more", "may_lose = read.has_lost or known >= MOST_EXCHANGES", "may_lose = known >= MOST_EXCHANGES"),
        ("what_was_read_has_a_bound", "if self._bytes + read.size <= self.most_bytes:", "if True:"),
        ("what_has_gone_takes_no_room", "size = read.size + _size_of(came) - (_size_of(went) if went else 0)", "size = read.size + _size_of(came)"),
        ("what_is_busy_stays", "self._drop_unused_since(read.used_at - self._busy_seconds,", "self._drop_unused_since(read.used_at + 1,"),
        ("what_was_read_is_kept_for_a_while", "self._drop_unused_since(time.monotonic() - self._kept_seconds)", "self._drop_unused_since(0)"),
    ),
    *of(
        "bus/control/client.py", ("tests/workers/test_outside.py",),
        ("what_was_never_asked_is_known_not_to_be_done", "return self in (Why.NO_AGENT, Why.NOT_OURS, Why.TOO_LARGE)", "return False"),
        ("what_no_line_holds_is_not_asked", "if len(line) > LINE_LIMIT_BYTES:", "if False:"),
    ),
    *of(
        "bus/records/outside.py", ("tests/bus/steps/test_rules_outside.py", "tests/supervisor/outbound/test_from_outside.py"),
        ("our_own_words_have_no_turn", "return place == PLACE and job_id.startswith(OUTSIDE)", "return job_id.startswith(OUTSIDE)"),
        ("what_was_said_is_in_its_digest", "digest(said))", "digest())"),
    ),
    *of(
        "bus/steps/write_count.py", TIME,
        ("what_is_certain_went_back", "if certainly_back or self.is_doubted", "if self.is_doubted"),
        ("commits_are_told_before_they_leave", "        self.on_commit(commits)\n", ""),
        ("the_highest_only_rises", "self.highest = max(self.highest, count)", "self.highest = count"),
    ),
    *of(
        "bus/records/apologies.py", ("tests/bus/records/test_apologies.py",),
        ("two_agents_do_not_apologize_to_each_other", "message.hop_count or ", ""),
        ("a_group_that_did_not_ask_hears_no_apology", "if message.conversation_type != GROUP:", "if True:"),
    ),
    *of(
        "bus/records/cards.py", ("tests/bus/steps/test_cards.py",),
        ("a_card_has_four_parts", "if not revision.isdecimal() or 1 + len(rest) != _PARTS:", "if not revision.isdecimal():"),
        ("a_cards_revision_is_a_number", "if not revision.isdecimal() or 1", "if 1"),
    ),
    *of(
        "bus/records/kept.py", ("tests/bus/records/test_kept.py",),
        ("what_is_kept_opens_in_its_place_alone", "return open_sealed(decode_kept(packed).sealed, (kind, agent_id, conversation_id, name), key)", "record = decode_kept(packed); return open_sealed(record.sealed, record.place(agent_id), key)"),
        ("what_a_later_version_kept_is_no_damage", "if schema > KEPT_SCHEMA:", "if False:"),
    ),
    *of(
        "bus/steps/recovery.py", ("tests/supervisor/recovery/test_reclaimer.py",),
        ("a_far_try_is_shown_only_to_who_writes_meanwhile", "if is_soon or await", "if True or await"),
        ("a_far_try_is_shown_to_who_writes_meanwhile", "if is_soon or await self._client.command(\"EXISTS\", mailbox):", "if is_soon:"),
    ),
    *of(
        "bus/records/ulid.py", ("tests/bus/records/test_ulid.py",),
        ("a_ulid_has_so_many_characters", "len(text) != CHARS or", ""),
        ("a_ulid_has_48_bits_of_time", "or text[0] > \"7\"", ""),
        ("a_ulid_has_its_alphabet", " or not _CHARACTERS.issuperset(text)", ""),
        ("a_ulid_is_made_of_its_bytes", "or len(randomness) != RANDOM_BYTES", ""),
    ),
    *of(
        "host/proc.py", ("tests/host/test_proc.py",),
        ("a_zombie_is_gone", "return None if fields[_STATE] in (\"Z\", \"X\") else", "return"),
        ("a_name_with_brackets_moves_no_field", ".rpartition(\")\")", ".partition(\")\")"),
        ("a_variable_has_its_whole_name", "prefix = f\"{name}=\".encode()", "prefix = name.encode()"),
    ),
    *of(
        "host/budgets.py", ("tests/host/test_budgets.py", "tests/bus/steps/test_rules_bounds.py"),
        ("at_most_so_much", "return max(least, min(wanted, most))", "return max(least, wanted)"),
        ("the_lowest_limit_counts", "return min(_limits(proc, cgroups, process),", "return max(_limits(proc, cgroups, process),"),
        ("no_limit_is_the_machines", "and 0 < int(text) < machine", ""),
        ("the_levels_above_count", "        yield level\n        level = level.parent\n", "        level = level.parent\n"),
    ),
    *of(
        "bus/steps/write_count.py", ("tests/bus/steps/test_write_count.py", "tests/bus/steps/test_rules_outbound.py"),
        ("what_is_doubted_went_back", "certainly_back or self.is_doubted", "certainly_back"),
        ("ids_leap_far", "return FEWEST_IDS + secrets.randbelow(FEWEST_IDS)", "return 0"),
    ),
    *of(
        "bus/steps/outbox.py", ("tests/bus/steps/test_rules_outbound.py",),
        ("nothing_is_committed_in_doubt", "if self._write_count.is_doubted:", "if False:"),
        ("what_is_remembered_of_sends_is_bounded", "while len(self._conversations) > self._most_remembered:", "while False:"),
    ),
    *of(
        "bus/steps/held.py", ("tests/bus/steps/test_rules_bounds.py",),
        ("held_come_when_half_is_free", "if theirs > (budgets.waiting_bytes - total) / 8:", "if False:"),
        ("held_come_when_half_of_a_mailbox_is_free", "return waiting <= int(most or MOST_IN_MAILBOX) // 2", "return True"),
    ),
    *of(
        "host/budgets.py", ("tests/bus/steps/test_rules_bounds.py",),
        ("at_least_so_much", "return max(least, min(wanted, most))", "return min(wanted, most)"),
    ),
)  # fmt: skip
