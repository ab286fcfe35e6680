"""Who is told that a message was given up."""

import msgspec
import pytest

from bus.records.apologies import is_owed_an_apology
from tests.bus.builders import AGENT, message_of


@pytest.mark.parametrize(
    ("of_the_message", "is_owed"),
    [
        ({}, True),
        ({"sender_type": "agent"}, True),
        ({"sender_type": "agent", "hop_count": 1}, False),
        ({"sender_type": "system"}, False),
        ({"conversation_type": "group"}, False),
        ({"conversation_type": "group", "mentions": ["somebody"]}, False),
        ({"conversation_type": "group", "mentions": ["somebody", AGENT]}, True),
        ({"conversation_type": "group", "mention_all": True}, True),
    ],
)
def test_whoever_spoke_to_this_agent_and_was_no_agent_that_answers_it_is_told(
    of_the_message: dict[str, object], is_owed: bool
) -> None:
    message = msgspec.structs.replace(message_of(1), **of_the_message)
    assert is_owed_an_apology(message, AGENT) is is_owed
