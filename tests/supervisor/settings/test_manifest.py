"""The capability manifest: what is wrong in one is named by its place, and in what one breaks with another is found."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bus.settings.reader import Unusable
from supervisor.settings.manifest import MOST_BYTES, Manifest, breaks, is_major, manifest_in

pytestmark = pytest.mark.pure

GOOD: dict[str, Any] = {
    "schema_version": "1.0",
    "agent_version": "1.4.0",
    "tools": [
        {
            "name": "free_slots",
            "description_i18n_key": "tool.free_slots",
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {"day": {"type": "string"}, "most": {"type": "integer"}},
                "required": ["day"],
                "additionalProperties": False,
            },
            "permission_scope": "calendar.read",
            "timeout_ms": 5000,
        }
    ],
    "permission_scopes": [
        {"id": "calendar.read", "label_i18n_key": "scope.calendar_read", "sensitivity": "medium"},
    ],
    "capability_flags": {"supports_voice": False, "supports_streaming": True},
}


def changed(*path: object, to: object) -> dict[str, Any]:
    """The good one with another value at a place; without it where that is `...`."""
    found = copy.deepcopy(GOOD)
    inner: Any = found
    for name in path[:-1]:
        inner = inner[name]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return found


def read(tmp_path: Path, value: object) -> Manifest:
    path = tmp_path / "manifest.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return manifest_in(str(path))


def test_a_good_one_is_read_with_what_it_leaves_out(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD).as_json()
    assert found["capability_flags"] == {
        "supports_streaming": True,
        "supports_artifacts": True,
        "supports_voice": False,
        "supports_group_chat": True,
    }
    assert found["tools"] == GOOD["tools"]


SCHEMA = ("tools", 0, "input_schema")
WRONG: dict[str, tuple[object, str]] = {
    "no JSON": (b"{", "in this file"),
    "too large": (b" " * (MOST_BYTES + 1), "KiB"),
    "an unknown field": ({**GOOD, "more": 1}, "more"),
    "no version": (changed("agent_version", to=...), "agent_version"),
    "no SemVer": (changed("agent_version", to="1.4"), "SemVer"),
    "another schema_version": (changed("schema_version", to="2.0"), "schema_version"),
    "a name that is no snake_case": (changed("tools", 0, "name", to="freeSlots"), r"tools\[0\]\.name"),
    "one name twice": (changed("tools", to=GOOD["tools"] * 2), "each tools"),
    "one scope twice": (changed("permission_scopes", to=GOOD["permission_scopes"] * 2), "each permission_scopes"),
    "a scope that is not there": (changed("tools", 0, "permission_scope", to="camera"), "permission_scope is"),
    "a sensitivity that is not there": (changed("permission_scopes", 0, "sensitivity", to="some"), "sensitivity"),
    "no time": (changed("tools", 0, "timeout_ms", to=0), "timeout_ms"),
    "no object": (changed(*SCHEMA, "type", to="array"), '"type" object'),
    "more properties": (changed(*SCHEMA, "additionalProperties", to=True), "additionalProperties"),
    "no JSON Schema": (changed(*SCHEMA, "properties", "day", to={"type": "txt"}), r"look at \$\.properties\.day"),
    "required is no list": (changed(*SCHEMA, "required", to="day"), r"look at \$\.required"),
}


@pytest.mark.parametrize(("value", "why"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(value: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=why):
        read(tmp_path, value)


def test_a_file_that_is_not_there_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(Unusable):
        manifest_in(str(tmp_path / "none.json"))


def day(to: object) -> dict[str, Any]:
    return changed(*SCHEMA, "properties", "day", to=to)


BROKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": (GOOD, []),
    "a tool more": (changed("tools", to=[*GOOD["tools"], {**GOOD["tools"][0], "name": "other"}]), []),
    "an argument more": (changed(*SCHEMA, "properties", "zone", to={"type": "string"}), []),
    "a scope that is asked about more often": (changed("permission_scopes", 0, "sensitivity", to="high"), []),
    "a tool is gone": (changed("tools", to=[]), ["the tool free_slots is gone"]),
    "an argument is gone": (
        changed(*SCHEMA, "properties", "most", to=...),
        ["the tool free_slots takes no most any more"],
    ),
    "an argument is needed": (
        changed(*SCHEMA, "required", to=["day", "most"]),
        ["the tool free_slots needs most by now"],
    ),
    "an argument has another type": (day({"type": "integer"}), ["the tool free_slots takes another type for day"]),
    "a scope is asked about less often": (
        changed("permission_scopes", 0, "sensitivity", to="low"),
        ["the scope calendar.read is asked about less often"],
    ),
    "a flag is taken back": (
        changed("capability_flags", to={"supports_streaming": False}),
        ["supports_streaming is no longer so"],
    ),
}


@pytest.mark.parametrize(("value", "found"), BROKEN.values(), ids=BROKEN)
def test_in_what_one_breaks_with_the_one_before_is_found(
    value: dict[str, Any], found: list[str], tmp_path: Path
) -> None:
    before = read(tmp_path, GOOD).as_json()
    assert breaks(before, read(tmp_path, value)) == found


@pytest.mark.parametrize("before", [{}, {"tools": None}, {"tools": [3, {"name": "free_slots", "input_schema": 3}]}])
def test_whatever_was_registered_before_is_read(before: dict[str, Any], tmp_path: Path) -> None:
    assert all("free_slots" in one for one in breaks(before, read(tmp_path, GOOD)))


@pytest.mark.parametrize(("version", "is_it"), [("2.0.0", True), ("1.5.0", False), ("1.4.0", False), ("0.9.0", False)])
def test_a_version_says_that_something_may_break_by_its_first_number(version: str, is_it: bool, tmp_path: Path) -> None:
    now = read(tmp_path, {**GOOD, "agent_version": version})
    assert is_major(GOOD, now) is is_it
    assert is_major({}, now) is False
