"""Every rule of DESIGN §3 has a test that is named after it, or one that is named here.

Those of the bus: test_rules_inbound.py, test_rules_jobs.py, test_rules_repeats.py, test_rules_outbound.py and test_rules_time.py hold the bus in memory and the one in
Redis to the same; test_rules_of_redis.py has what only a real server shows.
"""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

TESTS = Path(__file__).parents[2]
RULES = range(1, 21)
OF_THE_SUPERVISOR = {
    4: "supervisor/inbound/test_inbound.py::test_while_redis_is_away_frames_are_dropped_and_polls_asked_for_and_then_all_goes_on",
    5: "bus/steps/test_slots_in_redis.py::test_who_went_without_giving_up_leaves_a_ghost_that_one_supervisor_polls_for",
    20: "supervisor/recovery/test_redis_check.py::test_an_eviction_policy_that_loses_messages_is_refused_also_when_trusted",
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_a_test(rule: int) -> None:
    file, _, name = OF_THE_SUPERVISOR.get(rule, f"bus::test_rule_{rule}_").partition("::")
    sources = [TESTS / file] if file.endswith(".py") else list((TESTS / file).rglob("test_*.py"))
    assert any(re.search(rf"^(async )?def {name}", path.read_text(encoding="utf-8"), re.MULTILINE) for path in sources)
