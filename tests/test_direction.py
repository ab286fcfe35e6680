"""The direction of imports between the rooms of the product (tests/rooms.py): down, without a circle, deferred only for a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.rooms import DEFERRED, KEY_TYPES, MAY, NEVER, RECORDS_KNOWN, ROOMS

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[1]
PACKAGES = ("crypto", "host", "bus", "workers", "supervisor", "sandbox")


@dataclass(frozen=True)
class Arrow:
    """`module` imports `name`, a module of ours; `is_deferred`: within a function, or for the type checker alone."""

    module: str
    name: str
    is_deferred: bool


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def arrows() -> tuple[Arrow, ...]:
    return tuple(arrow for module, path in modules().items() for arrow in arrows_of(module, path.read_bytes()))


def arrows_of(module: str, source: bytes | str) -> Iterator[Arrow]:
    """What a module of this name and source imports of ours."""
    yield from _within(module, ast.parse(source), is_deferred=False)


def _within(module: str, node: ast.AST, *, is_deferred: bool) -> Iterator[Arrow]:
    for child in ast.iter_child_nodes(node):
        names: list[str] = []
        match child:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(base), names=aliases):
                names = [f"{base}.{alias.name}" for alias in aliases]
        yield from (
            Arrow(module, ours, is_deferred) for name in names if (ours := _module_of(name)) not in ("", module)
        )
        is_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from _within(module, child, is_deferred=is_deferred or is_later)


def _module_of(name: str) -> str:
    """The module of ours that an imported name stands in; '' for a library's."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def room_of(module: str) -> str:
    """The room that a module stands in; '' for the doors of a package (`supervisor/__main__.py`)."""
    return max((room for room in ROOMS if is_within(module, (room,))), key=len, default="")


def is_within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def rule_of(room: str) -> str:
    """The first line of what the room says of itself."""
    said = ast.get_docstring(ast.parse(modules()[room].read_bytes()))
    assert said, f"{room} says nothing of itself"
    return said.splitlines()[0]


def complaint(arrow: Arrow) -> str | None:
    """Why this import must not be; None where it may."""
    importer, imported = room_of(arrow.module), room_of(arrow.name)
    text = f"{arrow.module} imports {arrow.name}"
    if importer and imported and ROOMS.index(imported) < ROOMS.index(importer):
        return f"{text}: {imported} stands above {importer} (ROOMS in tests/rooms.py)"
    known = RECORDS_KNOWN.get(importer)
    if known is not None and imported == "bus.records" and not is_within(arrow.name, known):
        return f"{text}, which is about messages (RECORDS_KNOWN in tests/rooms.py)"
    if (importer, arrow.name) in MAY:
        return None
    never = tuple(place for room, places in NEVER.items() if is_within(arrow.module, (room,)) for place in places)
    return f"{text}, which it must not know of (NEVER in tests/rooms.py)" if is_within(arrow.name, never) else None


def test_every_module_stands_in_a_room() -> None:
    homeless = [name for name, path in modules().items() if not room_of(name) and path.name != "__init__.py"]
    assert homeless == ["supervisor.__main__"]
    assert [room for room in ROOMS if not any(room_of(module) == room for module in modules())] == []


def test_imports_point_down() -> None:
    assert [wrong for arrow in arrows() if (wrong := complaint(arrow)) is not None] == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("supervisor.inbound.reading", "supervisor.outbound.sealer"),
        ("supervisor.outbound.delivery", "supervisor.inbound.lanes"),
        ("supervisor.keeper.keeper", "supervisor.settings.key_settings"),
        ("supervisor.keeper.redis_server", "crypto.keystore"),
        ("supervisor.keeper.supervision", "bus.records.sealing"),
        ("supervisor.keeper.notify", "supervisor.settings.secrets"),
        ("supervisor.keeper.answering", "supervisor.pool.pool"),
        ("supervisor.pool.process", "bus.records.records"),
        ("supervisor.pool.roster", "bus.records.cards"),
        ("supervisor.keeper.keeper", "bus.records.timers"),
        ("supervisor.pool.pool", "supervisor.relay.frames"),
        ("supervisor.pool.places", "bus.steps.jobs"),
        ("supervisor.peers.owners", "supervisor.inbound.lanes"),
        ("bus.transport.client", "bus.steps.store"),
        ("supervisor.settings.parsers", "supervisor.pool.autoscale"),
        ("host.lines", "bus.records.keys"),
        ("crypto.ratchet", "bus.records.ulid"),
        ("workers.process.runner", "supervisor.observe.metrics"),
        ("workers.process.runner", "workers.testing"),
        ("workers.handling.execution", "workers.process.slots"),
        ("workers.talk.chat", "workers.handling.context"),
        ("workers.kept.keeping", "workers.talk.sending"),
        ("workers.errors", "workers.kept.outlet"),
        ("workers.files.upload", "crypto.ratchet"),
        ("workers.files.upload", "crypto.keystore"),
        ("workers.talk.chat", "crypto.files"),
        ("workers.process.worker", "crypto.files"),
        ("workers.kept.thread", "workers.files.spool"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(module: str, imported: str) -> None:
    for source in (f"import {imported}", f"from {imported} import *", f"def later():\n    import {imported}"):
        [arrow] = arrows_of(module, source)
        assert complaint(arrow) is not None


def test_there_is_no_circle() -> None:
    """Deferred imports count: what may only be imported later stands in the wrong place."""
    below: dict[str, set[str]] = {module: set() for module in modules()}
    for arrow in arrows():
        below[arrow.module].add(arrow.name)
    while ends := {module for module, names in below.items() if not names & below.keys()}:
        below = {module: names for module, names in below.items() if module not in ends}
    assert below == {}


def test_an_import_is_deferred_only_for_a_reason_that_is_named() -> None:
    deferred = {(arrow.module, arrow.name) for arrow in arrows() if arrow.is_deferred}
    assert deferred == DEFERRED.keys()


def test_the_keeper_reaches_nothing_that_can_hold_a_key() -> None:
    """By whatever way: what it imports imports no such thing either."""
    reached, ahead = set[str](), ["supervisor.keeper.keeper", "supervisor.keeper.supervision"]
    now = {(arrow.module, arrow.name) for arrow in arrows() if not arrow.is_deferred}
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += [name for importer, name in now if importer == module]
    never = tuple(place for place in NEVER["supervisor.keeper"] if place not in KEY_TYPES)
    assert [module for module in sorted(reached) if is_within(module, never)] == []


def test_the_page_shows_the_rooms() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = page.partition("## The rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+)(?:/|\.py)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(room.replace(".", "/"), rule_of(room)) for room in ROOMS]
