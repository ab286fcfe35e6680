"""What a handler is given, and which one gets a message: guards of workers/."""

from __future__ import annotations

from tests.mutants.mutant import of

ROUTED = ("tests/workers/handling/test_routing.py",)
APPROVED = ("tests/workers/tools/test_approvals.py",)
STORED = ("tests/workers/kept/test_store.py",)
ASKED = ("tests/workers/handling/test_asking.py", "tests/workers/handling/test_agent.py")

HANDLERS = (
    *of(
        "workers/handling/routing.py",
        ROUTED,
        ("nobody_can_send_an_event", "if one.registration.on in OF_MESSAGES and (", "if ("),
        (
            "what_would_never_be_called_is_refused",
            "                _refuse_a_second(known.registration, handler.registration)\n",
            "                pass\n",
        ),
        ("a_router_is_included_once", "        if router._parent is not None:\n", "        if False:\n"),
        ("a_router_is_not_in_itself", "        if router in self._upwards():\n", "        if False:\n"),
        ("named_before_unnamed", "sorted(takers, key=lambda one: one.registration.rank)", "takers"),
    ),
    *of(
        "workers/handling/routing.py",
        ASKED,
        (
            "a_whole_text_matches",
            "self.pattern.fullmatch(message.text.strip())",
            "self.pattern.search(message.text)",
        ),
    ),
    *of(
        "workers/handling/asking.py",
        ASKED,
        (
            "what_nobody_can_give_is_refused",
            "        if parameter.default is parameter.empty:\n            raise BadHandler(",
            "        if False:\n            raise BadHandler(",
        ),
        (
            "a_class_that_nobody_knows_is_no_message",
            "if not is_it and (parameter not in left or _is_a_class(parameter.annotation)):",
            "if not is_it and parameter not in left:",
        ),
        (
            "what_cannot_be_converted_is_no_match",
            "            except msgspec.ValidationError:\n                return None\n",
            "            except msgspec.ValidationError:\n                pass\n",
        ),
    ),
    *of(
        "workers/process/runner.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("what_was_overheard_and_answers_nothing_is_no_handlers", " if not one.is_overheard)", ")"),
        (
            "what_may_be_an_answer_is_not_interrupted_before_that_is_known",
            "if hand.job.is_first_run or hand.is_known:",
            "if True:",
        ),
        ("whose_text_may_be_the_answer_is_nobodys_company", "is_alone=is_alone, asked=asked))", "is_alone=is_alone))"),
        ("what_answers_something_forgotten_is_no_text", "if started.is_answer and", "if False and"),
        ("another_version_may_go_on_with_it", "isinstance(error, Diverged | HandlerGone) and", "False and"),
        ("without_another_version_it_is_given_up", "and await self._is_beside_another_version():", "and True:"),
    ),
    *of(
        "workers/kept/waits.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("the_newest_question_is_answered", "return sorted(read, key=", "return sorted(read, reverse=True, key="),
        ("a_quote_says_which_question_is_answered", "if wait.id == quoted)", "if False)"),
    ),
    *of(
        "supervisor/run/announcing.py",
        ("tests/supervisor/run/test_announcing.py",),
        ("a_manifest_that_breaks_is_warned_of", "if broken and not is_major(before, manifest):", "if False:"),
        ("what_the_relay_has_is_not_set_again", "if before != manifest.as_json():", "if True:"),
    ),
    *of(
        "workers/tools/calls.py",
        APPROVED,
        (
            "a_days_yes_counts_in_no_group",
            "may_ride and self.message.conversation_type != GROUP",
            "may_ride",
        ),
        (
            "what_another_tool_returned_ends_a_days_yes",
            " and self._seen <= {tool.name}",
            "",
        ),
        (
            "a_days_yes_is_of_one_person",
            "(self.message.sender_id, tool.fingerprint) in granted",
            "any(tool.fingerprint == fingerprint for _, fingerprint in granted)",
        ),
        (
            "a_days_yes_is_to_one_tool",
            "(self.message.sender_id, tool.fingerprint) in granted",
            "any(self.message.sender_id == by for by, _ in granted)",
        ),
    ),
    *of(
        "workers/talk/lookalikes.py",
        ("tests/workers/talk/test_lookalikes.py",),
        (
            "a_letter_of_another_script_is_seen_among_latin_ones",
            "looks_latin and (is_latin or script in alone)",
            "looks_latin and script in alone",
        ),
        (
            "a_name_of_another_script_alone_is_seen",
            "looks_latin and (is_latin or script in alone)",
            "looks_latin and is_latin",
        ),
        ("a_text_of_another_script_is_left", "looks_latin and (is_latin or script in alone)", "looks_latin"),
        (
            "a_name_is_read_as_one_whatever_else_is_said",
            "has_latin = any(map(_is_latin, name[0]))",
            "has_latin = False",
        ),
        ("wide_forms_among_wide_letters_are_left", "return not (has_wide_letters and", "return not (False and"),
        ("marks_upon_marks_are_seen", "if marks > MOST_MARKS or", "if"),
    ),
    *of(
        "workers/kept/history.py",
        APPROVED,
        ("a_days_yes_ends", "return now_ms - GRANTED_FOR_MS < self.at_ms <= now_ms", "return True"),
        ("a_days_yes_lasts_a_day_however_much_is_said", "return sorted(older, key=", "return sorted([], key="),
    ),
    *of(
        "workers/handling/execution.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("a_late_answer_is_given_to_nobody", "return not kept.place.startswith(QUESTION)", "return True"),
        (
            "an_answer_to_no_card_is_given_to_nobody",
            'course.handler.registration.on == "message" and bool(course.handler.payload_types)',
            "True",
        ),
    ),
    *of(
        "workers/talk/asks.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("what_was_approved_is_what_was_read", "not question.is_answered_by(given)", "False"),
        ("no_answer_is_left_behind", "if key is None and thread.left:", "if False:"),
    ),
    *of(
        "workers/talk/asks.py",
        ("tests/workers/kept/test_thread_rules.py",),
        (
            "a_question_leaves_with_its_wait",
            "            sending.say_with_end(place, _shown(question, payload),",
            '            await sending.emit(place, _shown(question, payload)) if question.asked == "text" '
            "else sending.say_with_end(place, _shown(question, payload),",
        ),
        (
            "a_card_that_asks_leaves_with_its_wait",
            "            sending.say_with_end(place, _shown(question, payload),",
            "            await sending.emit_card(place, card_id, question.asked, _shown(question, payload)) "
            'if question.asked != "text" else sending.say_with_end(place, _shown(question, payload),',
        ),
        ("what_was_asked_and_answered_is_kept_as_said", "        if question.is_said:", "        if False:"),
        (
            "what_is_said_after_an_answer_names_it",
            "counted_from(name, entry)",
            "name",
        ),
        (
            "what_is_asked_after_an_answer_names_it",
            'f"{name}@{thread.job.short_id}" if thread.job.continues else name',
            "name",
        ),
    ),
    *of(
        "workers/talk/progress.py",
        ("tests/workers/kept/test_thread_rules.py", "tests/workers/talk/test_progress.py"),
        ("a_block_ends_as_in_an_earlier_run", "self._ended = self._thread.known(self._name)", "pass"),
        ("a_block_that_was_stopped_is_left_at_once", "        if self._ended == CANCELLED:", "        if False:"),
        ("what_has_ended_is_stopped_no_more", "elif self._actions and not self._ended:", "elif self._actions:"),
        (
            "a_card_of_an_earlier_job_is_shown_anew",
            "if self._sending.job.continues and self._sending.was_emitted(self._place):",
            "if False:",
        ),
        ("places_count_anew_behind_a_stopped_block", "if how == CANCELLED and self._thread is not None:", "if False:"),
        ("an_end_is_shown_once", 'place=f"{self._place}:end"', 'place=""'),
    ),
    *of(
        "workers/kept/keeping.py",
        ("tests/workers/kept/test_thread_rules.py",),
        (
            "a_wait_says_up_to_where_the_history_was_read",
            "if self._read is None or self._seen is not None:",
            "if True:",
        ),
    ),
    *of(
        "workers/handling/execution.py",
        ("tests/workers/kept/test_thread_rules.py",),
        (
            "an_answer_that_was_a_dead_letter_sees_what_its_thread_saw",
            "**read, wait.entry: answered.entry",
            "wait.entry: answered.entry",
        ),
        (
            "an_answer_that_comes_too_late_was_not_said",
            'return Ended(handled=True, last=(("0", text_reply(environment.agent.words.not_open)),))',
            'return Ended(handled=True, last=(("0", text_reply(environment.agent.words.not_open)),), effects=tuple(keeping.exchange()))',
        ),
    ),
    *of(
        "workers/talk/questions.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("only_what_a_text_is_converted_to_is_asked_for", "            _check_kind(kind)\n", ""),
    ),
    *of(
        "workers/handling/context.py",
        ("tests/workers/kept/test_steps.py",),
        ("a_step_takes_a_function", "    if callable(function):\n        return\n", "    return\n"),
    ),
    *of(
        "bus/steps/kept_steps.py",
        ("tests/bus/steps/test_rules_kept.py",),
        (
            "what_came_after_the_first_read_is_left_out",
            "if until is not None and until == exchange_name(one.at_ms, one.thread_id):",
            "if False:",
        ),
        ("nothing_newer_stands_for_what_was_dropped", "return found if until is None else []", "return found"),
    ),
    *of(
        "workers/handling/execution.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("the_card_of_a_question_is_known", "            *shows,\n", ""),
    ),
    *of(
        "workers/handling/execution.py",
        ROUTED,
        (
            "retry_is_no_error",
            "None if isinstance(present.error, Outcome) else course.taker_of(present.error)",
            "course.taker_of(present.error)",
        ),
    ),
    *of(
        "workers/process/start_errors.py",
        ("tests/supervisor/pool/test_worker_process.py",),
        (
            "only_the_environments_key_error_is_a_setting",
            'innermost.f_locals.get("self") is not os.environ',
            'innermost.f_locals.get("self") is os.environ',
        ),
    ),
    *of(
        "workers/process/start_errors.py",
        ("tests/workers/process/test_start_errors.py",),
        (
            "what_a_library_raises_may_be_a_service_that_is_away",
            "return bool(places) and _is_the_owners(places[-1], directory)",
            "return True",
        ),
    ),
    *of(
        "workers/kept/thread.py",
        ("tests/workers/kept/test_steps.py",),
        (
            "a_full_redis_has_the_job_given_back",
            "if trio.current_time() >= gives_up_at:",
            "if False:",
        ),
        ("what_was_done_once_is_not_given_back", "until_it_is_full=not once", "until_it_is_full=True"),
        ("a_run_that_is_left_does_nothing_more", "        self._close()\n        tell()", "        tell()"),
        (
            "nothing_once_after_redis_went_back",
            "if noted in (Noted.ALREADY, Noted.RAISED):",
            "if noted is Noted.ALREADY:",
        ),
    ),
    *of(
        "workers/kept/thread.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("no_step_begins_while_an_ask_waits", "while self._suspending and not self.is_in_a_step():", "while False:"),
        (
            "what_belongs_to_a_step_goes_on",
            "while self._suspending and not self.is_in_a_step():",
            "while self._suspending:",
        ),
    ),
    *of(
        "workers/handling/execution.py",
        ("tests/workers/kept/test_thread_rules.py",),
        (
            "who_catches_what_unwinds_it_is_told_of",
            "            self.environment.tell_caught(self.run.job, thread.suspended)",
            "            pass",
        ),
        (
            "who_raises_on_its_way_out_has_caught_nothing",
            " or isinstance(one, Exception) for one in _leaves(error))",
            " for one in _leaves(error))",
        ),
        ("who_hangs_is_ended", "        if self.environment.hangs is not None:\n", "        if False:\n"),
    ),
    *of(
        "workers/process/runner.py",
        ("tests/workers/kept/test_thread_rules.py",),
        ("where_a_handler_hangs_the_worker_is_replaced", "        self._replace_worker(at)\n", ""),
    ),
    *of(
        "workers/kept/thread.py",
        STORED,
        (
            "a_change_that_was_made_is_passed_over",
            "        return name, bytes(entry.value)\n",
            "        return name, None\n",
        ),
        ("a_change_is_made_anew_of_what_others_set", "return noted is not Noted.CHANGED", "return True"),
    ),
    *of(
        "workers/kept/store.py",
        STORED,
        ("a_key_is_not_set_where_it_was_changed", "        if key in self._changed:\n", "        if False:\n"),
        (
            "a_key_is_not_changed_where_it_was_set",
            "if value is not None and (value.is_set or value.added):",
            "if False:",
        ),
    ),
    *of(
        "workers/kept/thread.py",
        ("tests/workers/kept/test_thread_rules.py",),
        (
            "what_has_no_room_to_wait_is_not_shown",
            "        if there.bytes + more > MOST_WAITS_BYTES:\n",
            "        if False:\n",
        ),
    ),
    *of(
        "workers/llm/reading.py",
        ("tests/workers/llm/test_reading.py",),
        ("an_answer_is_whole_at_its_end", "        if not (self.is_done or is_whole):\n", "        if False:\n"),
        ("an_error_is_a_failure", "        if self.failure is not None:\n            raise self.failure\n", ""),
        ("an_answer_has_words", "if not completion.text.strip() and", "if False and"),
        (
            "a_whole_message_behind_its_deltas_is_no_more_text",
            "isinstance(message, dict) and not self._comes_in_deltas:",
            "isinstance(message, dict):",
        ),
        ("an_answer_has_a_bound", "            self.is_done, self.finish = True, LENGTH\n", "            pass\n"),
    ),
    *of(
        "workers/llm/endpoint.py",
        ("tests/workers/llm/test_endpoint.py",),
        (
            "a_body_that_says_no_end_is_not_whole_at_it",
            '    return "content-length" in said or',
            '    return True or "content-length" in said or',
        ),
        (
            "a_finish_reason_with_text_behind_it_ends_nothing",
            "if reader.finish and not reader.goes_on_after_finish:",
            "if reader.finish:",
        ),
    ),
    *of(
        "workers/llm/failures.py",
        ("tests/workers/llm/test_endpoint.py",),
        ("a_wait_has_bounds", "min(max(seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)", "seconds"),
        ("so_many_tokens_a_minute_is_not_too_long", "if status != 429 and _TOO_LONG", "if _TOO_LONG"),
        ("no_credit_is_not_busy", "if status == 429 and _OUT_OF_CREDIT", "if False and _OUT_OF_CREDIT"),
    ),
    *of(
        "workers/llm/finish.py",
        ("tests/workers/llm/test_reading.py",),
        ("what_was_stopped_is_no_answer", '.rpartition(" ")[2] in _BROKEN', '.rpartition(" ")[2] == "error"'),
        ("a_limit_is_known_by_any_word", "if word in _LIMITS:", "if word == LENGTH:"),
    ),
    *of(
        "workers/llm/unpacking.py",
        ("tests/workers/llm/test_endpoint.py",),
        ("half_of_a_packed_body_is_none", "self._inner is None or self._inner.eof", "True"),
        ("a_bomb_is_not_unpacked", "            if len(found) > MOST_AT_ONCE_BYTES:\n", "            if False:\n"),
        ("every_member_is_unpacked", "            data = self._inner.unused_data\n", "            break\n"),
    ),
    *of(
        "workers/llm/calls.py",
        ("tests/workers/tools/test_functions.py",),
        ("what_has_no_name_begins_no_call", "        if not self.name:\n            return False\n", ""),
        ("another_id_begins_another_call", "if self.id and one.id and self.id != one.id:", "if False:"),
    ),
    *of(
        "workers/llm/turn.py",
        ("tests/workers/llm/test_model.py",),
        ("a_turn_is_paid_once", "        if step.is_done:\n            return self._noted(step)\n", ""),
        ("a_busy_endpoint_is_waited_for_so_long", "    if left <= 0:\n        return None\n", ""),
        (
            "a_failing_endpoint_is_asked_three_times_more",
            "    if tries.failures >= len(AGAIN_AFTER_SECONDS):\n        return None\n",
            "    tries = Tries()\n",
        ),
    ),
    *of(
        "workers/llm/turn.py",
        ("tests/workers/llm/test_budgets.py",),
        ("what_was_written_in_vain_is_paid_for", "            if written:\n", "            if False:\n"),
        ("a_turn_is_paid_for", "once=False, tokens=_total(usage))", "once=False)"),
    ),
    *of(
        "workers/process/runner.py",
        ("tests/workers/llm/test_budgets.py",),
        ("an_answer_is_never_beyond_a_budget", "if not hand.job.continues and (beyond", "if (beyond"),
        (
            "what_is_built_in_is_never_beyond_a_budget",
            "or ADMITTED in started.journal or agent.has_built_in(message):",
            "or ADMITTED in started.journal:",
        ),
    ),
    *of(
        "workers/process/stalls.py",
        ("tests/workers/process/test_stalls.py",),
        ("a_stall_is_said_once", " and not self._is_told and ", " and "),
        ("a_stall_after_another_is_said", "            self._is_told = False\n", "            pass\n"),
    ),
    *of(
        "workers/process/runner.py",
        ("tests/workers/llm/test_stop.py",),
        ("what_was_stopped_says_so", "if hand.sending is None or not hand.sending.says_that_it_stopped:", "if False:"),
        (
            "what_was_stopped_answers_its_question",
            "effects = (*keeping.exchange(), *dropped(hand.answers))",
            "effects = tuple(keeping.exchange())",
        ),
    ),
    *of(
        "workers/process/runner.py",
        ("tests/workers/kept/test_thread_rules.py",),
        (
            "a_question_whose_answer_is_gone_ends",
            "self._bus.bind_wait(job, wait.id, instead_of=gone)",
            "self._bus.bind_wait(job, wait.id)",
        ),
        (
            "an_answer_that_may_come_back_is_waited_for",
            "if await until_redis_answers(lambda: self._bus.may_come_back(job, answered_by)):",
            "if False:",
        ),
        (
            "a_deadline_is_looked_at_again",
            "return Ended(handled=True, effects=(effect,))",
            "return Ended(handled=True)",
        ),
    ),
    *of(
        "bus/steps/thread_steps.py",
        ("tests/bus/steps/test_rules_threads.py",),
        ("all_letters_are_looked_through", "if len(rows) < LETTERS_PAGE:", "if True:"),
        ("a_letter_of_a_later_version_may_be_it", "    except NewerRecord:\n        return True\n", ""),
        ("what_came_back_may_still_run", "        return kept == 1\n", "        return False\n"),
    ),
    *of(
        "workers/process/runner.py",
        ("tests/workers/process/test_runner.py",),
        (
            "what_cannot_be_mended_by_another_run_gets_none",
            "None if isinstance(error, HandlerError) and error.is_final else",
            "",
        ),
        ("beside_suspects_nothing_more_is_taken_while_others_wait", "return 0 if self._others_wait else", "return"),
        ("what_may_not_run_with_suspects_is_handed_back", "if not hand.begun and hand not in next_few:", "if False:"),
    ),
    *of(
        "workers/process/slots.py",
        ("tests/workers/process/test_runner.py",),
        ("what_runs_at_once_is_alike", "strikes != self._strikes or ", ""),
        ("suspects_are_few", "isqrt(self._count)", "self._count"),
        ("what_is_struck_is_alone", "return 1 if strikes > 0", "return 2 if strikes > 0"),
    ),
)
