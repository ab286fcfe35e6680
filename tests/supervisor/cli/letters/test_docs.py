"""docs/messages.md: a row for every reason that the code can produce, the words that the commands say, and commands that are there."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from bus.views.trace import WORDS
from crypto.errors import Reason
from supervisor.cli import dead, quarantine
from supervisor.observe.remedies import DEAD, HANDLER_REASON, QUARANTINE, REFUSED_CODE, Remedy
from workers.errors import Fail, HandlerError

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
SCRIPTS = ROOT / "bus" / "scripts"
# Where a reason of a dead letter is spelled: the calls, and the place of the reason among their arguments.
CALLS = {
    ("workers/process/runner.py", "_fail"): 1,
    ("bus/steps/jobs.py", "_fail"): 3,
    ("supervisor/outbound/outbound.py", "_drop"): 1,
    ("supervisor/outbound/outbound.py", "drop_reply"): 1,
    ("supervisor/outbound/acts.py", "ActRefused"): 0,
    ("supervisor/outbound/dispatch.py", "CannotSeal"): 0,
    ("supervisor/outbound/committing.py", "CannotSeal"): 0,
    ("supervisor/outbound/delivery.py", "drop_reply"): 1,
    ("supervisor/outbound/sealer.py", "CannotSeal"): 0,
}


def rows() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `?([a-zA-Z_ ]+?)`? \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    return {f"{name} {meaning}": (meaning, remedy) for name, meaning, remedy in found if name != "reason"}


def written(table: Mapping[str, Remedy] | Mapping[Reason, Remedy]) -> dict[str, tuple[str, str]]:
    return {f"{name} {row.meaning}": (row.meaning, row.remedy) for name, row in table.items()}


def test_the_page_has_a_row_for_each_reason_in_the_words_of_the_commands() -> None:
    assert rows() == {**written(QUARANTINE), **written(DEAD)}


def test_every_reason_for_which_a_message_cannot_be_read_has_a_row() -> None:
    assert set(QUARANTINE) == set(Reason) - {Reason.DUPLICATE}


def spelled(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from spelled(node.body)
            yield from spelled(node.orelse)
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            yield f"{text}CODE"


def reasons_in_python() -> Iterator[str]:
    for (name, function), place in CALLS.items():
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name_of(node.func) == function and len(node.args) > place:
                yield from spelled(node.args[place])
    for node in ast.walk(ast.parse((ROOT / "supervisor/recovery/reclaimer.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "ends_as":
            yield from spelled(node.value)


def name_of(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def reasons_of_errors(base: type[HandlerError]) -> Iterator[str]:
    """What a job is given up for that ends by an error of the worker's API."""
    yield base.reason
    for error in base.__subclasses__():
        yield from reasons_of_errors(error)


def reasons_in_lua() -> Iterator[str]:
    for path in SCRIPTS.rglob("*.lua"):
        text = path.read_text(encoding="utf-8")
        yield from re.findall(r"bury\([^,]+, '(\w+)'", text)
        yield from re.findall(r"reason = '(\w+)'", text)


def test_every_reason_for_which_something_is_given_up_has_a_row() -> None:
    found = {*reasons_in_python(), *reasons_in_lua(), *reasons_of_errors(HandlerError), Fail().reason}
    assert {"poison", "deliveries", "gone_at_relay", "timeout", "handler_error", "too_large", REFUSED_CODE} <= found
    assert found == set(DEAD) - {HANDLER_REASON}


def notes() -> Iterator[str]:
    for path in SCRIPTS.rglob("*.lua"):
        yield from re.findall(r"note(?:_in|_first)?\((?:KEYS\[\d\], )?'(\w+)'", path.read_text(encoding="utf-8"))
    yield from re.findall(
        r"'(\w+)'",
        (SCRIPTS / "intake" / "accept.lua").read_text(encoding="utf-8").partition("local event =")[2].splitlines()[0],
    )
    for name in ("finish", "settle"):
        outcomes = re.search(r"outcome: (.+)", (SCRIPTS / "jobs" / f"{name}.lua").read_text(encoding="utf-8"))
        assert outcomes is not None
        yield from re.split(r", | or ", outcomes[1])


def test_every_event_of_the_ledger_has_its_words_named() -> None:
    assert {note for note in notes() if note} == set(WORDS)


def commands(module: str, names: Iterable[str]) -> list[str]:
    return [f"hashee-agent {module} {name}" for name in names]


def test_every_command_stands_on_the_page() -> None:
    wanted = [*commands("quarantine", quarantine.COMMANDS), *commands("dead", dead.COMMANDS), "hashee-agent trace"]
    assert [command for command in wanted if command not in PAGE] == []
