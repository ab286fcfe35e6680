"""The scripts as Redis gets them."""

import re

import pytest

from bus.lua import Script, Scripts

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("script", Scripts.load().all(), ids=lambda script: script.name)
def test_a_script_has_every_function_that_it_calls_and_none_that_it_does_not(script: Script) -> None:
    text = re.sub(r"--.*", "", script.text.decode())
    called = set(re.findall(r"(?<![.\w'])([a-z_]+)\(", text)) - set(re.findall(r"function (\w+)\(", text))
    assert called <= {"tonumber", "tostring", "unpack", "ipairs", "pairs", "type", "error", "function"}
    for name in re.findall(r"^local function (\w+)\(", text, re.MULTILINE):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is never called"
