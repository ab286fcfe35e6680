"""What is sent of traces, and what a process keeps of them: guards without which memory grows, or what nobody asked for is told."""

from __future__ import annotations

from tests.mutants.mutant import of

SHIPPING = ("tests/telemetry/test_shipping.py",)
TRACES = ("tests/telemetry/test_traces.py",)

OF_TELEMETRY = (
    *of(
        "bus/telemetry/shipping.py", SHIPPING,
        ("spans_that_wait_are_bounded", "if len(self._waiting) >= self._most_waiting or self._is_closing:", "if self._is_closing:"),
        ("spans_wait_for_a_receiver_that_is_away", "is_kept = verdict.fate is RequestFate.LATER", "is_kept = False"),
        ("spans_that_are_refused_are_counted", "if not is_taken:", "if False:"),
        ("what_cannot_be_encoded_is_in_nobodys_way", "except Exception as error:", "except OSError as error:"),
        ("the_last_spans_leave_at_the_end", "self._thread.join(within_seconds)", "pass"),
        ("a_receiver_is_complained_of_rarely", "and time.monotonic() >= self._quiet_until", ""),
    ),
    *of(
        "bus/telemetry/traces.py", TRACES,
        ("only_sampled_spans_are_told", "if is_sampled(ended.span):", "if True:"),
        ("a_traceparent_is_checked", "return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else NONE", "return traceparent"),
        ("a_child_needs_a_parent", "if not parent:", "if False:"),
        ("a_ratio_is_heeded", "flag = int.from_bytes(drawn[8:16]) < self._below", "flag = True"),
    ),
)  # fmt: skip
