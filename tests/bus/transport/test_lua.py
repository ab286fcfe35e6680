"""The scripts as Redis gets them."""

import re

import pytest

from bus.records.keys import Keys
from bus.transport.lua import MOST_PACKED_BOARDS, Argument, Script, Scripts, packed

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("script", Scripts.load().all(), ids=lambda script: script.name)
def test_a_script_has_every_function_that_it_calls_and_none_that_it_does_not(script: Script) -> None:
    text = re.sub(r"--.*", "", script.text.decode())
    called = set(re.findall(r"(?<![.\w'])([a-z_]+)\(", text)) - set(re.findall(r"function (\w+)\(", text))
    assert called <= {"tonumber", "tostring", "unpack", "ipairs", "pairs", "type", "error", "function", "may"}
    for name in re.findall(r"^local function (\w+)\(", text, re.MULTILINE):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is never called"


@pytest.mark.parametrize("name", ["accept", "finish", "confirm", "renew"])
@pytest.mark.parametrize("conversations", [1, MOST_PACKED_BOARDS + 2])
def test_a_call_is_the_command_that_hiredis_would_pack(name: str, conversations: int) -> None:
    scripts = Scripts.load()
    script = scripts[name]
    keys, arguments = Keys("agent"), ("text", b"\x00\xff\r\n", "", 7, 1.5, "ünicode")
    for number in [*range(conversations), 0]:
        given = [*keys.board(f"conversation {number}"), keys.session("owner", "device")]
        for some in (arguments, arguments[:2], ()):
            used = given if not script.board else [given[place] for place in script.board] + given[-1:]
            command: tuple[Argument, ...] = ("EVALSHA", script.sha1, len(used), *used, *some)
            assert scripts.call(name, given, some) == packed(command)
