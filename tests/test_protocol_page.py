"""The protocol's page is what the program speaks: frames, calls, payloads, reasons, labels and numbers stand on it, and its example is true.

What fails here names what docs/protocol.md or docs/protocol-crypto.md has to say anew.
"""

import ast
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx2
import msgspec
import pytest

from crypto import envelope, files, handshake, wraps
from crypto.errors import Reason
from sandbox.relay.faults import BOTH_FORMS, FaultKind, FaultRequest
from sandbox.relay.rest import ProtocolRest
from sandbox.relay.rest_files import FilesRest
from sandbox.relay.rest_sandbox import SandboxRest
from supervisor.relay import frames
from supervisor.relay.rest import Rest
from tests.crypto.known_answers import derivations
from tests.crypto.worked_example import WORKED_EXAMPLE, page_lines, worked_example

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[1]
WIRE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CRYPTO = (ROOT / "docs" / "protocol-crypto.md").read_text(encoding="utf-8")
PAGE = WIRE + CRYPTO
ENDPOINT = ROOT / "tests" / "second_endpoint"


def section(title: str) -> str:
    """A section of the wire's page, up to the next title."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", WIRE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def fields_in(cell: str) -> dict[str, bool]:
    """Names in code spans, and whether a `?` stands behind: optional."""
    return {name: mark == "?" for name, mark in re.findall(r"`(\w+)`(\??)", cell)}


def frames_in(title: str) -> dict[str, dict[str, bool]]:
    return {row[0].strip("`"): fields_in(row[1]) for row in rows(section(title)) if row[0].startswith("`")}


def spoken(union: Any, *left_out: str, without: tuple[type, ...] = ()) -> dict[str, dict[str, bool]]:
    """By type, the fields of a union of frames, and whether each is optional."""
    kinds = [kind for kind in get_args(union) if kind not in without]
    return {str(kind.__struct_config__.tag): optional_fields(kind, *left_out) for kind in kinds}


def optional_fields(kind: type[msgspec.Struct], *left_out: str) -> dict[str, bool]:
    return {one.name: not one.required for one in msgspec.structs.fields(kind) if one.name not in left_out}


FRAMES = {
    "3.1 The relay to an agent": spoken(frames.FromRelay, without=(frames.PlatformEvent,)),
    "3.3 An agent to the relay": spoken(frames.FromAgent, "sender_id", "device_id"),
    "3.4 A person to the relay": spoken(frames.FromPerson, "sender_id", "agent_id"),
    "3.5 The relay to a person": spoken(frames.ToPerson, without=get_args(frames.FromRelay)),
}


@pytest.mark.parametrize("title", FRAMES)
def test_every_frame_stands_there_with_its_fields_and_no_other(title: str) -> None:
    assert frames_in(title) == FRAMES[title]


def test_what_is_passed_over_and_what_a_relation_has_stand_there() -> None:
    assert [name for name in frames.PASSED_ON if f"`{name}`" not in section("3.1 The relay to an agent")] == []
    described = {
        name: optional for row in rows(section("3.2 A relation")) for name, optional in fields_in(row[0]).items()
    }
    assert described == optional_fields(frames.Relation)
    assert "`relation.terminated`" in PAGE


def calls_on_page() -> set[str]:
    return set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)` \|", WIRE, re.MULTILINE))


def test_the_page_has_every_call_of_the_sandbox_relay_and_no_other() -> None:
    nobody: Any = None
    served = {
        f"{method} {route.path}"
        for kind in (ProtocolRest, FilesRest, SandboxRest)
        for route in kind(nobody).routes()
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert calls_on_page() == served


async def test_the_page_has_every_call_of_the_agent() -> None:
    asked: list[str] = []

    def note(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx2.Response(200, json={"data": []})

    async with httpx2.AsyncClient(base_url="http://relay", transport=httpx2.MockTransport(note)) as client:
        rest = Rest(client, "an-agent")
        methods = [name for name in vars(Rest) if not name.startswith("_")]
        arguments: dict[str, list[object]] = {"register_keys": [{}], "relations": [note], "poll": [None]}
        arguments |= {"manifest": [], "set_manifest": [{}]}
        for name in methods:
            await getattr(rest, name)(*arguments.get(name, ["an-id"]))
    assert len(asked) >= len(methods)
    patterns = [re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(call)) for call in calls_on_page()]
    assert [call for call in asked if not any(re.fullmatch(pattern, call) for pattern in patterns)] == []


def test_what_a_call_takes_and_answers_stands_there() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "sandbox" / "relay").glob("rest*.py")]
    words = {
        word for source in sources for word in re.findall(r'(?:query_params\.get\(|integer\(request, )"(\w+)"', source)
    }
    assert words == {"cursor", "limit", "after_seq", "signature"}
    for node in [node for source in sources for node in ast.walk(ast.parse(source))]:
        if isinstance(node, ast.Dict):
            words |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Body"):
            fields = [field.target for field in node.body if isinstance(field, ast.AnnAssign)]
            words |= {field.id for field in fields if isinstance(field, ast.Name)}
    assert {"one_time_prekeys_left", "upload_url", "members"} <= words
    assert sorted(word for word in words if not re.search(rf'[`"]{word}[`"]', WIRE)) == []


def test_the_errors_and_faults_of_the_sandbox_relay_stand_there() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "sandbox" / "relay").glob("*.py")]
    codes = {code for source in sources for code in re.findall(r'Refused\(\d+, "(\w+)"', source)}
    assert len(codes) > 10
    assert sorted(code for code in codes if f"`{code}`" not in PAGE and f" {code}`" not in PAGE) == []
    kinds = {*(kind.value for kind in FaultKind), *BOTH_FORMS}
    assert sorted(kind for kind in kinds if f"`{kind}`" not in section("8. The sandbox relay")) == []
    assert [one.name for one in msgspec.structs.fields(FaultRequest) if f'"{one.name}"' not in WIRE] == []


def test_every_reason_stands_there() -> None:
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in CRYPTO] == []


def product_sources() -> Iterator[str]:
    """All but what a language model is told: its parts have types of their own, and none of them is a payload."""
    for package in ("crypto", "host", "bus", "workers", "supervisor"):
        for path in (ROOT / package).rglob("*.py"):
            if path.parent != ROOT / "workers" / "llm":
                yield path.read_text(encoding="utf-8")


def test_every_payload_type_and_every_event_that_the_program_makes_or_reads_stands_there() -> None:
    types: set[str] = set()
    kinds: set[str] = set()
    for source in product_sources():
        types |= set(re.findall(r'"type": "(\w+)"', source))
        types |= set(re.findall(r'get\("type"\) [=!]= "(\w+)"', source))
        kinds |= set(re.findall(r'"(session\.\w+)"', source)) - frames.PASSED_ON
        kinds |= set(re.findall(r'"kind": "(\w+)"', source))
    assert {"text", "system", "stream", "delta"} <= types
    assert {"session.renewed", "session.ping", "session.pong", "group_key"} <= kinds
    assert sorted(one for one in types if f'"type":"{one}"' not in PAGE) == []
    assert sorted(one for one in kinds if f"`{one}`" not in PAGE) == []


def test_every_label_of_a_derivation_stands_there() -> None:
    at_rest = "keystore.py"  # no part of the protocol
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "crypto").glob("*.py") if path.name != at_rest]
    labels = {label for source in sources for label in re.findall(r'b?"(hashee-[a-z0-9.-]+)', source)}
    assert len(labels) > 12
    assert sorted(label for label in labels if label not in CRYPTO) == []


def test_every_field_of_an_envelope_a_wrap_a_handshake_and_a_file_stands_there() -> None:
    described = {row[0].strip("`"): fields_in(row[1]) for row in rows(CRYPTO) if re.fullmatch(r"`\w+`", row[0])}
    for kind in get_args(wraps.Wrap):
        assert described[str(kind.__struct_config__.tag)] == optional_fields(kind), kind
    for fields, mark in (
        (optional_fields(envelope.Body), '"{}"'),
        (optional_fields(handshake.Handshake), '"{}"'),
        (optional_fields(files.AttachmentEntry), '"{}"'),
    ):
        assert [name for name in fields if mark.format(name) not in CRYPTO] == []


@pytest.mark.parametrize("row", list(rows(section("10. Numbers")))[1:], ids=lambda row: row[2].strip("`"))
def test_the_numbers_are_those_of_the_code(row: list[str]) -> None:
    assert pkgutil.resolve_name(row[2].strip("`")) == float(row[0])


def test_the_worked_example_is_true_and_stands_there_whole() -> None:
    example = worked_example()
    assert json.loads(WORKED_EXAMPLE.read_text(encoding="utf-8")) == example
    for values in (*example.values(), derivations()["file"]):
        assert page_lines(values) in CRYPTO


def test_the_links_between_the_pages_lead_somewhere() -> None:
    titles = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", WIRE, re.MULTILINE)
    }
    assert [anchor for anchor in re.findall(r"\]\(#([^)]+)\)", WIRE) if anchor not in titles] == []
    for reference in re.findall(r"crypto §(\d+(?:\.\d+)?)", WIRE):
        assert re.search(rf"^#+ {re.escape(reference)}\.? ", CRYPTO, re.MULTILINE), reference
    for reference in re.findall(r"wire §(\d+(?:\.\d+)?)", CRYPTO):
        assert re.search(rf"^#+ {re.escape(reference)}\.? ", WIRE, re.MULTILINE), reference


def words_of(tree: ast.Module) -> Iterator[str]:
    """What the endpoint calls things on the wire: keys, paths, labels."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
        ):
            yield node.slice.value
        elif isinstance(node, ast.Compare):
            yield from (
                one.value for one in node.comparators if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes) and node.value.startswith(b"hashee"):
            yield node.value.rstrip(b"\0").decode()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("hashee"):
            yield node.value


def test_the_second_endpoint_uses_no_word_that_the_pages_do_not_have() -> None:
    names = [path for path in ENDPOINT.glob("*.py") if not path.name.startswith("test_")]
    words = {word for path in names for word in words_of(ast.parse(path.read_text(encoding="utf-8")))}
    assert len(words) > 60
    ours = {"", "content-type", "previous", "number", "Authorization", "Client", "a_field_of_next_year"}
    assert sorted(word for word in words - ours if not re.search(rf'[`"/]{re.escape(word)}[`"?/ ]', PAGE)) == []
