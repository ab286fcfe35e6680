"""A soak in small: everything is answered, and no kind of key becomes more with the messages that were."""

from pathlib import Path

import pytest

from tests.trials.soak.__main__ import what_is_bad
from tests.trials.soak.run import Order, run

PASSING = frozenset(
    {"acks", "busy", "due", "emitted", "interrupted", "out", "outbox", "sent", "box", "waiting", "streams"}
)
"""There while something is under way, gone when it has ended."""


@pytest.mark.long
async def test_nothing_grows_with_messages_that_were_answered(tmp_path: Path) -> None:
    order = Order(seconds=8, rate=25, people=8, sample_seconds=1, base_seconds=2, ledger_entries=0)
    outcome = await run(order, tmp_path)
    assert outcome.sent > order.seconds * order.rate / 10, "it said hardly anything"
    assert outcome.answered == outcome.sent
    assert [bad for bad in what_is_bad(outcome) if "grew" not in bad] == []
    base, end = (
        {kind: count for kind, count in census.keys.items() if kind not in PASSING}
        for census in (outcome.base, outcome.end)
    )
    assert end == base
    assert outcome.end.ledger_entries > outcome.base.ledger_entries, "the two were weighed at the same moment"
