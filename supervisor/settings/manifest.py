"""The capability manifest (PROTOCOL §4): what the agent can do, and which tools of a person's app it may call. Read from a file of the owner's, and
checked whole: what is wrong is named by its place.

The input schemas are checked by `jsonschema` (2020-12), which is an extra (`manifest`) and imported only where there is a manifest.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from bus.settings.reader import Unusable
from host.unreadable import UNREADABLE

SCHEMA_VERSION: Final = "1.0"
MOST_BYTES: Final = 256 * 1024
MOST_TIMEOUT_MS: Final = 600_000
NO_JSONSCHEMA: Final = "the extra `manifest` beside a manifest: pip install 'hashee-agent[manifest]'"
JSON_OBJECT: Final = "object"
OBJECT: Final = 'the "type" object, and "additionalProperties" false'
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SEMVER: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")


class ToolDeclared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool that the agent may call. `timeout_ms`: how long it may take."""

    name: str
    description_i18n_key: str
    input_schema: dict[str, object]
    permission_scope: str
    timeout_ms: int = 10_000


class ScopeDeclared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A permission that a person gives."""

    id: str
    label_i18n_key: str
    sensitivity: Literal["low", "medium", "high"]


class Flags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent can do."""

    supports_streaming: bool = True
    supports_artifacts: bool = True
    supports_voice: bool = False
    supports_group_chat: bool = True


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A capability manifest. `agent_version`: SemVer."""

    agent_version: str
    schema_version: str = SCHEMA_VERSION
    tools: list[ToolDeclared] = []
    permission_scopes: list[ScopeDeclared] = []
    capability_flags: Flags = Flags()

    def as_json(self) -> dict[str, object]:
        """Returns it as it is registered."""
        found: dict[str, object] = msgspec.to_builtins(self)
        return found


def manifest_in(text: str) -> Manifest:
    """Returns the manifest in the file with this path. Raises Unusable, which says where it is wrong."""
    try:
        with Path(text).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError):
        raise Unusable from None
    if len(data) > MOST_BYTES:
        raise Unusable(f"a manifest of at most {MOST_BYTES // 1024} KiB")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise Unusable(f"a capability manifest, and in this file: {error}") from None
    for wrong in faults_in(manifest):
        raise Unusable(f"a capability manifest, in which {wrong}")
    return manifest


def faults_in(manifest: Manifest) -> Iterator[str]:
    """Yields what is wrong in a manifest that has all fields, as what should be. Raises Unusable without jsonschema."""
    if manifest.schema_version != SCHEMA_VERSION:
        yield f'schema_version is "{SCHEMA_VERSION}"'
    if not _SEMVER.fullmatch(manifest.agent_version):
        yield "agent_version is three numbers with dots between them, such as 1.4.0 (SemVer)"
    for what, names in (
        ("tools[].name", [tool.name for tool in manifest.tools]),
        ("permission_scopes[].id", [scope.id for scope in manifest.permission_scopes]),
    ):
        if len(set(names)) != len(names):
            yield f"each {what} is another"
    scopes = {scope.id for scope in manifest.permission_scopes}
    for at, tool in enumerate(manifest.tools):
        yield from _faults_of(tool, f"tools[{at}]", scopes)


def _faults_of(tool: ToolDeclared, at: str, scopes: set[str]) -> Iterator[str]:
    if not _NAME.fullmatch(tool.name):
        yield f"{at}.name is snake_case: a letter, then up to 63 of a-z, 0-9 and '_'"
    if tool.permission_scope not in scopes:
        yield f"{at}.permission_scope is the id of one of permission_scopes"
    if not 1 <= tool.timeout_ms <= MOST_TIMEOUT_MS:
        yield f"{at}.timeout_ms is 1 to {MOST_TIMEOUT_MS}"
    schema = tool.input_schema
    if schema.get("type") != JSON_OBJECT or schema.get("additionalProperties") is not False:
        yield f"{at}.input_schema has {OBJECT}"
    if (wrong := _schema_fault(schema)) is not None:
        yield f"{at}.input_schema is JSON Schema 2020-12: {wrong}"


def _schema_fault(schema: Mapping[str, object]) -> str | None:
    """Returns where a schema is none, None if it is one. Raises Unusable without jsonschema."""
    try:
        from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - an extra
    except ImportError:
        raise Unusable(NO_JSONSCHEMA) from None
    try:
        Draft202012Validator.check_schema(dict(schema))
    except (SchemaError, RecursionError) as error:
        place = getattr(error, "json_path", "$")
        return f"look at {place}"
    return None


def breaks(before: Mapping[str, object], now: Manifest) -> list[str]:
    """Returns in what a manifest breaks with the one that was registered before: what apps and people rely on. It reads that one leniently."""
    known = {tool.name: tool for tool in now.tools}
    found = list[str]()
    for tool in _listed(before, "tools"):
        name = str(tool.get("name"))
        if name not in known:
            found.append(f"the tool {name} is gone")
            continue
        found += [f"the tool {name} {what}" for what in _broken(tool, known[name])]
    levels = ("low", "medium", "high")
    scopes = {scope.id: scope for scope in now.permission_scopes}
    for scope in _listed(before, "permission_scopes"):
        name, level = str(scope.get("id")), scope.get("sensitivity")
        if name not in scopes:
            found.append(f"the scope {name} is gone")
        elif level in levels and levels.index(scopes[name].sensitivity) < levels.index(str(level)):
            found.append(f"the scope {name} is asked about less often")
    flags, mine = before.get("capability_flags"), msgspec.to_builtins(now.capability_flags)
    for flag, was in flags.items() if isinstance(flags, dict) else ():
        if was is True and not mine.get(flag, False):
            found.append(f"{flag} is no longer so")
    return found


def _broken(before: Mapping[str, object], now: ToolDeclared) -> Iterator[str]:
    if before.get("permission_scope") != now.permission_scope:
        yield "needs another scope"
    was = before.get("input_schema")
    old = was if isinstance(was, dict) else {}
    old_fields, fields = _mapping(old, "properties"), _mapping(now.input_schema, "properties")
    for name in sorted(old_fields.keys() - fields.keys()):
        yield f"takes no {name} any more"
    needed, was_needed = now.input_schema.get("required"), old.get("required")
    for name in sorted({*_texts(needed)} - {*_texts(was_needed)}):
        yield f"needs {name} by now"
    for name in sorted(old_fields.keys() & fields.keys()):
        if _kind(old_fields[name]) != _kind(fields[name]):
            yield f"takes another type for {name}"


def is_major(before: Mapping[str, object], now: Manifest) -> bool:
    """Returns whether the version says that something may break: its first number has been raised."""
    was = _SEMVER.fullmatch(str(before.get("agent_version")))
    mine = _SEMVER.fullmatch(now.agent_version)
    return was is not None and mine is not None and int(mine[1]) > int(was[1])


def _listed(value: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    found = value.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _mapping(value: Mapping[str, object], name: str) -> dict[str, object]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _kind(schema: object) -> object:
    return schema.get("type") if isinstance(schema, dict) else None
