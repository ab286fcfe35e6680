"""Each example through relay, Redis, supervisor and workers: what its people hear. `make effects` kills a process at each of its effects."""

from pathlib import Path

import pytest

from tests.trials.effects.talks import EXAMPLES, Example
from tests.trials.effects.walk import stage


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_people_hear_what_the_example_says(tmp_path: Path, example: Example) -> None:
    async with stage(tmp_path, example) as one:
        seen = await one.talk()
    assert seen.heard == list(example.hears)
    assert seen.faults == []
