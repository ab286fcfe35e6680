"""The rules of threads and waits, each taken out in turn: the model of threads has to find a fault.

The name of a mutant begins with its rule. Those of the bus are taken out of the bus in memory, which the conformance suite holds to the scripts.
"""

from __future__ import annotations

from tests.mutants.mutant import FOLDERS, Part, of

MODEL = ("tests/workers/model/test_model.py",)
WORLD, WORK, INBOUND, TIMERS = (f"bus/memory/{name}.py" for name in ("world", "work", "inbound", "timers"))
KEPT, TALK, HANDLING = (f"workers/{name}" for name in ("kept", "talk", "handling"))

OF_THE_BUS = (
    *of(
        WORLD, MODEL,
        ("rule_1_a_dead_letter_keeps_its_places", "            places=at.emitted,\n", "            places=set(),\n"),
        ("rule_1_a_dead_letter_keeps_its_journal", "values=joined(words),", "values=b\"\","),
        ("rule_1_no_thread_is_handed_anothers_journal", "at.journal, at.stopped = [], set(), {}, {}, \"\"", "at.stopped = [], set(), {}, \"\""),
        ("rule_1_a_journal_survives_who_hands_back_or_dies", "        at.job.interrupted = entry.interrupted\n", "        at.job.interrupted = entry.interrupted\n        at.journal = {}\n"),
        ("rule_8_a_stop_survives_the_worker", "        at.job.interrupted = entry.interrupted\n", "        at.job.interrupted = entry.interrupted\n        at.stopped = \"\"\n"),
    ),
    *of(
        WORK, MODEL,
        ("rule_1_a_journal_survives_a_failure", "        at.job, at.retry = None, Retry(", "        at.journal = {}\n        at.job, at.retry = None, Retry("),
        ("rule_1_places_survive_a_failure", "        at.job, at.retry = None, Retry(", "        at.emitted = set()\n        at.job, at.retry = None, Retry("),
        ("rule_2_the_first_answer_counts", "        at.waits_bound[wait_id] = job.job_id\n", ""),
        ("rule_3_what_waited_already_is_no_answer", "at.waits_from[wait_id] = at.next_seq", "at.waits_from[wait_id] = 0"),
        ("rule_7_a_change_is_written_with_its_entry", "        journal[name] = entry\n", "        if change is None:\n            journal[name] = entry\n"),
        ("rule_17_an_update_moves_the_revision", "revision=kept.revision + 1", "revision=kept.revision"),
    ),
    *of(
        INBOUND, MODEL,
        ("rule_4_an_answer_finds_room", "        if question not in at.waits or question in at.waits_let:", "        if True:"),
    ),
    *of(
        TIMERS, MODEL,
        ("rule_12_a_timer_fires_once", "        del world.timers[where]\n", ""),
    ),
)  # fmt: skip

OF_THE_WORKER = (
    *of(
        f"{HANDLING}/execution.py", MODEL,
        ("rule_1_a_wait_keeps_the_journal", "journal={**wait.journal, **run.journal, **read", "journal={**run.journal, **read"),
        ("rule_1_a_wait_keeps_the_places", "emitted=run.emitted | frozenset(wait.places)", "emitted=run.emitted"),
        ("rule_11_a_late_answer_is_told_so", "last=((\"0\", text_reply(environment.agent.words.not_open)),))", "last=())"),
        ("rule_9_an_answer_is_used", "            thread.check_answer_used()\n", ""),
        ("rule_10_a_handler_that_is_gone_is_missed", "        raise HandlerGone(run.resumed.handler)\n", "        return None\n"),
    ),
    *of(
        f"{KEPT}/waits.py", MODEL,
        ("rule_2_who_has_answered_goes_on_with_it", "    if mine is not None:\n        return _with_text(job, mine)\n", ""),
        ("rule_11_cancel_ends_a_question", "        return [wait for _, wait in theirs]\n", "        return []\n"),
        ("rule_11_of_two_open_questions_the_newest_is_answered", "theirs[-1] if theirs else None", "theirs[0] if theirs else None"),
        ("rule_11_only_who_is_asked_answers_a_card", "    if job.message.sender_id not in wait.who:\n        return Refused(\"not_asked\")\n", ""),
        ("rule_11_only_who_is_asked_answers_with_words", "if job.message.sender_id in wait.who and not one.bound_to", "if not one.bound_to"),
        ("rule_13_nobody_approves_what_was_not_shown", "wait.kind == \"approval\" and said", "wait.kind == \"never\" and said"),
    ),
    *of(
        f"{KEPT}/keeping.py", MODEL,
        ("rule_7_an_ask_behind_a_change_of_the_state_is_refused", "            raise StateBeforeAsk\n", "            return\n"),
        ("rule_16_a_thread_sees_of_the_history_what_it_saw_first", "if self._read is None or self._seen is not None:", "if True:"),
    ),
    *of(
        f"{TALK}/asks.py", MODEL,
        ("rule_9_code_that_asks_anew_has_diverged", "        if key is None and thread.left:\n            raise Diverged\n", ""),
        ("rule_11_so_many_questions_may_be_open", "if thread.open_waits >= MOST_OPEN_WAITS:", "if False:"),
        ("rule_16_a_question_is_said_by_its_thread", "        if question.is_said:", "        if False:"),
    ),
    *of(
        f"{TALK}/asks.py", MODEL,
        ("rule_3_a_card_that_asks_leaves_with_its_wait", "            sending.say_with_end(place, _shown(question, payload),", "            await sending.emit_card(place, card_id, question.asked, _shown(question, payload)) if question.asked != \"text\" else sending.say_with_end(place, _shown(question, payload),"),
    ),
    *of(
        f"{TALK}/progress.py", MODEL,
        ("rule_8_how_a_block_ended_is_noted", "self._ended = self._thread.known(self._name)", "pass"),
        ("rule_8_what_is_said_behind_a_stopped_block_has_a_place_of_its_own", "if how == CANCELLED and self._thread is not None:", "if False:"),
    ),
    *of(
        f"{TALK}/sending.py", MODEL,
        ("rule_5_who_waits_says_nothing_more", "        self._is_suspended = True\n", "        self._is_suspended = False\n"),
        ("rule_9_places_count_from_the_last_answer", "        self._counted_from = self._answered = f\"{name}/\"\n", ""),
    ),
    *of(
        f"{TALK}/reminding.py", MODEL,
        ("rule_12_what_was_set_is_passed_over_by_a_later_job", "if step.is_done and step.result(_set_by) != self._thread.job.job_id:\n            return  # an", "if False:\n            return  # an"),
        ("rule_12_a_key_replaces", "keyed_id(self._thread.job.conversation_id, key)", "keyed_id(self._thread.job.conversation_id, self._thread.name(key))"),
    ),
    *of(
        f"{HANDLING}/context.py", MODEL,
        ("rule_6_that_it_begins_is_noted_before_it_runs", "            await self.thread.note_begun(step)\n", "            pass\n"),
    ),
)  # fmt: skip

THREADS = Part("threads", (*OF_THE_BUS, *OF_THE_WORKER), FOLDERS)
