"""The scripts as Redis gets them."""

import re

import pytest

from bus.records.keys import Keys
from bus.transport.lua import MOST_PACKED_BOARDS, Argument, Rights, Script, Scripts, packed

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("script", Scripts.load().all(), ids=lambda script: script.name)
def test_a_script_has_every_function_that_it_calls_and_none_that_it_does_not(script: Script) -> None:
    text = re.sub(r"--.*", "", script.text.decode())
    called = set(re.findall(r"(?<![.\w'])([a-z_]+)\(", text)) - set(re.findall(r"function (\w+)\(", text))
    assert called <= {"tonumber", "tostring", "unpack", "ipairs", "pairs", "type", "error", "function", "may"}
    for name in re.findall(r"^local function (\w+)\(", text, re.MULTILINE):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is never called"
    assert out_of_scope(text) == []


def out_of_scope(text: str) -> list[str]:
    """Lines that call a function which does not stand where they could see it: it is nil there, which a script says in its middle."""
    functions = set(re.findall(r"^local function (\w+)\(", text, re.MULTILINE))
    scopes: list[set[str]] = [set()]
    found = []
    for line in text.splitlines():
        if begun := re.match(r"(?:local )?function (\w+)\(", line):
            scopes[-1].add(begun[1])
            scopes.append(set())
        elif re.match(r"end\b", line):
            scopes.pop()
        elif re.match(r"(if|for|while)\b(?!.*\bend$)", line.rstrip()):
            scopes.append(set())
        if (functions & set(re.findall(r"(?<!')\b\w+", line))) - set().union(*scopes):
            found.append(line)
    assert len(scopes) == 1
    return found


def test_what_happens_seldom_is_made_only_then() -> None:
    text = Scripts.load()["finish"].text.decode()
    always, rarely = re.split(r"^function rarely\(", text, flags=re.MULTILINE)
    assert "rarely('recall_places', ARGV[4])" in rarely  # by the operation, behind
    assert "local function recall_places(" in rarely
    assert "local function recall_values(" in rarely  # which only that one uses
    assert "local function recall" not in always
    assert "local POLICY = " not in always  # nor is a key named there that only those use
    assert "local POLICY = " in rarely


def test_a_constant_stands_as_its_value() -> None:
    text = Scripts.load()["accept"].text.decode()
    assert "length < (1536 * 8)" in text
    assert not re.search(r"\b(IDS_TRIM_AT|ID_BYTES|JOBS_GROUP)\b", text)


def test_where_rights_stand_an_operation_is_the_same_without_its_look_at_them() -> None:
    looking, plain = Scripts.load(), Scripts.load(Rights.STAND)
    for script in looking.all():
        lines = script.text.decode().splitlines()
        kept = [line for line in lines if not line.startswith(("local may = ", "if not may("))]
        assert plain[script.name].text.decode().splitlines() == kept
        assert b"acl_check_cmd" not in plain[script.name].text


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
