"""What follows from each answer of Redis and of the relay, as a table; no Redis, no relay, no clock."""

import pytest

from bus.records.records import SCHEMA_VERSION, OutboxRecord
from bus.steps.outbox import Commit, Committed
from supervisor.outbound.decisions import (
    NextStep,
    ends_former_stream,
    fetches_bundles,
    is_end_of_stream,
    is_temporary,
    next_step,
    refusal_code,
)

pytestmark = pytest.mark.pure

STORED = OutboxRecord(SCHEMA_VERSION, "cmid", "conversation", "text", "sealed", None, "h2a", "text", 1)

STEPS = {
    Commit(Committed.COMMITTED): NextStep.SEND,
    Commit(Committed.COMMITTED, stream_id="s1"): NextStep.SEND,
    Commit(Committed.ALREADY, stored=STORED): NextStep.SEND_STORED,
    Commit(Committed.ALREADY): NextStep.LEAVE,
    Commit(Committed.DONE_BEFORE): NextStep.LEAVE,
    Commit(Committed.NOT_HEAD): NextStep.LEAVE,
    Commit(Committed.FENCED): NextStep.LEAVE,
    Commit(Committed.STALE): NextStep.SEAL_AGAIN,
    Commit(Committed.EPOCH): NextStep.VERIFY_AND_SEAL_AGAIN,
    Commit(Committed.WENT_BACK): NextStep.VERIFY_AND_SEAL_AGAIN,
    Commit(Committed.WAIT, wait_ms=200): NextStep.WAIT_FOR_RATE,
}


@pytest.mark.parametrize(("commit", "step"), STEPS.items(), ids=lambda value: str(getattr(value, "outcome", value)))
def test_each_commit_has_its_next_step(commit: Commit, step: NextStep) -> None:
    assert next_step(commit) is step


def test_no_outcome_and_no_step_is_without_a_case() -> None:
    assert {commit.outcome for commit in STEPS} == set(Committed)
    assert {next_step(Commit(outcome, stored=STORED)) for outcome in Committed} == set(STEPS.values()) == set(NextStep)


def test_only_a_commit_lets_new_ciphertext_leave() -> None:
    """P4: whatever is stored with it, no other outcome does."""
    assert [outcome for outcome in Committed if next_step(Commit(outcome, stored=STORED)) is NextStep.SEND] == [
        Committed.COMMITTED
    ]


def test_bundles_are_fetched_once_and_only_where_no_device_could_be_written_to() -> None:
    cases = [(reason, done) for reason in ("no_usable_device", "too_large", "no_grant") for done in (False, True)]
    assert [case for case in cases if fetches_bundles(case[0], has_fetched=case[1])] == [("no_usable_device", False)]


@pytest.mark.parametrize(
    ("own", "shown", "is_ours", "ends_former", "is_end"),
    [
        (None, "", False, False, False),
        (None, "s0", False, True, False),
        ("s1", "", False, False, False),
        ("s1", "s1", False, False, True),
        ("s1", "s0", False, True, False),
        ("s1", "", True, False, True),
        ("s1", "s1", True, False, True),
        ("s1", "s0", True, True, True),
        (None, "", True, False, False),
    ],
)
def test_a_final_message_ends_the_stream_that_shows_it_and_no_other(
    own: str | None, shown: str, is_ours: bool, ends_former: bool, is_end: bool
) -> None:
    assert ends_former_stream(own, shown) is ends_former
    assert is_end_of_stream(own, shown, is_ours=is_ours) is is_end


@pytest.mark.parametrize(
    ("code", "temporary"),
    [
        ("429", True),
        ("rate_limited", True),
        ("too_many_requests", True),
        ("500", True),
        ("503", True),
        ("internal_error", True),
        ("unavailable", True),
        ("413", False),
        ("5", False),
        ("5000", False),
        ("forbidden", False),
        ("", False),
    ],
)
def test_only_too_many_and_the_relays_own_errors_are_tried_again(code: str, temporary: bool) -> None:
    assert is_temporary(code) is temporary


def test_a_refusals_code_is_made_of_the_characters_of_a_name() -> None:
    assert refusal_code("too_large-1.2") == "too_large-1.2"
    assert refusal_code("a b\n{c}é") == "a_b__c__"
