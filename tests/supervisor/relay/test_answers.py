"""The relay's answers, entry by entry: whatever one holds, the others come (PROTOCOL §1)."""

import json
import random

import httpx2
import msgspec
import pytest
import trio

from supervisor.relay import answers
from supervisor.relay.answers import NotTaken
from supervisor.relay.frames import MessageNew, Relation
from supervisor.relay.ids import id_in, is_id
from supervisor.relay.rest import NO_STATUS, Rest, RestFailed
from tests.supervisor.doubles import relations_of
from tests.supervisor.person import AGENT, message_frame

pytestmark = pytest.mark.pure

UNREADABLE = [
    rb'{"a": "\ud800"}',
    rb'{"\ud800": 1, "]": "}"}',
    b'{"a": 1e400}',
    b'{"a": NaN}',
    b'{"a": "\x01"}',
    b'{"a": "\xff"}',
    rb'{"a": "\q,\"]"}',
    b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"a": ' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
    b'{"a": ' + b"9" * 5000 + b"}",
]


def rest(body: bytes, status: int = 200) -> Rest:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(status, content=body))
    return Rest(httpx2.AsyncClient(transport=transport, base_url="http://relay"), AGENT)


def entry(seq: int, **other: object) -> bytes:
    frame = message_frame("sealed", seq=seq)
    fields = {name: getattr(frame, name) for name in MessageNew.__struct_fields__}
    return json.dumps({"type": "message.new", **fields, "message_id": f"m{seq}", **other}).encode()


@pytest.mark.parametrize("unreadable", UNREADABLE)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_entry_of_a_page_that_cannot_be_read_is_passed_over_alone(unreadable: bytes, place: int) -> None:
    entries = [entry(1), entry(2)]
    entries.insert(place, unreadable)
    page = await rest(b'{"data": [%b], "next_cursor": null}' % b" , ".join(entries)).poll(None)
    assert [frame.message_id for frame in page.frames if isinstance(frame, MessageNew)] == ["m1", "m2"]
    assert page.frames[place] is None
    assert page.last_id == "m2"


@pytest.mark.parametrize("unreadable", [rb'"\ud800"', b"1e400", b"[" * 3000 + b"]" * 3000])
async def test_a_page_ends_at_its_last_id_whatever_else_is_in_that_entry(unreadable: bytes) -> None:
    last = entry(2).replace(b'"sender_id": ', b'"sender_id": %b, "x": ' % unreadable)
    page = await rest(b'{"data": [%b, %b]}' % (entry(1), last)).poll(None)
    assert page.frames[1] is None
    assert page.last_id == "m2"


@pytest.mark.parametrize("message_id", ["x" * 70_000, "", "a\nb", "é", 7, None, "\ud800"])
async def test_what_is_no_id_never_becomes_the_cursor(message_id: object) -> None:
    page = await rest(b'{"data": [%b, %b]}' % (entry(1), entry(2, message_id=message_id))).poll(None)
    assert page.last_id == "m1"
    assert page.frames[1] is None


@pytest.mark.parametrize("unreadable", [*UNREADABLE, b"7", b"{}", b'{"user_id": "%b"}' % (b"u" * 129)])
async def test_one_relation_that_cannot_be_read_hides_no_other(unreadable: bytes) -> None:
    body = b'{"data": [{"user_id": "a"}, %b, {"user_id": "b", "display_name": "\\ud800"}]}' % unreadable
    assert await relations_of(rest(body)) == [Relation("a"), Relation("b")]


@pytest.mark.parametrize("unreadable", [*UNREADABLE, b"7", b'{"device_id": "%b"}' % (b"d" * 129)])
async def test_one_device_that_cannot_be_read_hides_no_other(unreadable: bytes) -> None:
    body = b'{"data": [%b, {"device_id": "phone", "public_key": "k"}]}' % unreadable
    assert await rest(body).devices("u") == [{"device_id": "phone", "public_key": "k"}]


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (b"42", 42),
        (b"-3000000", 0),
        (b"1" + b"0" * 300, 1_000_000),
        (b"1" + b"0" * 5000, 0),
        (b"9" * 18, 1_000_000),
        (b"1e400", 0),
        (b"42.5", 0),
        (b'"42"', 0),
        (b"true", 0),
    ],
)
async def test_how_many_prekeys_the_relay_holds_is_believed_within_bounds(told: bytes, left: int) -> None:
    assert await rest(b'{"data": {"one_time_prekeys_left": %b}}' % told).register_keys({}) == left


async def test_a_code_of_an_error_is_a_short_word() -> None:
    with pytest.raises(RestFailed) as failed:
        await rest(b'{"error": {"code": "A\\nB%b", "message": "\\ud800"}}' % (b"x" * 100), 400).poll("c")
    assert failed.value.code == "AB" + "x" * 61


@pytest.mark.parametrize(
    "error",
    [
        httpx2.InvalidURL("too long"),
        UnicodeError("idna"),
        ExceptionGroup("", [OSError()]),
        ValueError(),
        RuntimeError(),
    ],
)
async def test_whatever_a_call_raises_is_a_failed_call(error: Exception) -> None:
    def fail(_request: httpx2.Request) -> httpx2.Response:
        raise error

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(fail), base_url="http://relay")
    with pytest.raises(RestFailed, match=type(error).__name__):
        await Rest(client, AGENT).poll(None)


async def test_an_address_that_is_too_long_is_a_failed_call() -> None:
    with pytest.raises(RestFailed):
        await rest(b"{}").poll("x" * 70_000)


async def test_a_call_that_is_cancelled_is_cancelled() -> None:
    async def wait(_request: httpx2.Request) -> httpx2.Response:
        await trio.sleep_forever()
        raise AssertionError

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(wait), base_url="http://relay")
    with trio.move_on_after(0.05) as scope:
        await Rest(client, AGENT).poll(None)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "text", [b"", b"{", b"}", b'{"a":1', b"[]", b'{"a":1}{"a":2}', b"{]}", b'{"a":"\\ud800"} x', b"null"]
)
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(NotTaken):
        answers.members_of(text)


def test_cut_by_brackets_alone_an_object_has_the_same_members() -> None:
    rng = random.Random(14)

    def made(depth: int) -> object:
        kind = rng.randrange(6 if depth else 4)
        if kind == 4:
            return [made(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 5:
            return {made_text(): made(depth - 1) for _ in range(rng.randrange(4))}
        return (None, rng.random(), rng.randrange(-9, 9), made_text())[kind]

    def made_text() -> str:
        return "".join(rng.choice('ab"\\[]{},: é\n') for _ in range(rng.randrange(9)))

    for _ in range(2000):
        whole = [made(3) for _ in range(rng.randrange(5))]
        named = {f"n{number}": value for number, value in enumerate(whole)}
        named["half a character"] = "\ud800"  # which no decoder takes: so it is cut by brackets
        cut = answers.members_of(json.dumps(named, indent=rng.choice((None, 1))).encode())
        assert {name: json.loads(bytes(value)) for name, value in cut.items()} == named


def test_a_text_of_too_many_pieces_is_refused_and_not_worked_on_for_long() -> None:
    with pytest.raises(NotTaken):
        answers.members_of(b'{"a":"\\ud800"' + b",[]" * answers.MOST_TOKENS + b"}")


def test_an_id_is_found_and_judged_in_one_place() -> None:
    assert id_in(b'{"message_id": "m", "x": "\\ud800"}', "message_id") == "m"
    assert id_in(b'{"message_id": "\\ud800"}', "message_id") is None
    assert [is_id(value) for value in ("a b~", "", "x" * 129, "\x7f", 1)] == [True, False, False, False, False]


@pytest.mark.parametrize("misfit", [b"null", b"7", b"9223372036854775808", b"{}", b'[["pay"]]'])
async def test_what_a_relation_need_not_have_and_does_not_fit_is_absent(misfit: bytes) -> None:
    body = b'{"data": [{"user_id": "a", "display_name": %b, "scopes": %b, "conversation_id": %b}]}' % ((misfit,) * 3)
    assert await relations_of(rest(body)) == [Relation("a")]


@pytest.mark.parametrize("status", [b"7", b"{}", b"true", rb'"\ud800"', b"1e400"])
async def test_a_status_that_is_none_is_no_absent_one(status: bytes) -> None:
    """An absent one counts as active."""
    body = b'{"data": [{"user_id": "a", "status": %b}, {"user_id": "b", "status": null}]}' % status
    assert await relations_of(rest(body)) == [Relation("a", status=NO_STATUS), Relation("b")]


async def test_an_entry_with_very_many_misfits_is_given_up() -> None:
    """Each costs a decoding; no shape has so many members that it need not have."""
    asked = [0]

    def never(_text: bytes) -> None:
        asked[0] += 1
        raise msgspec.ValidationError(f"Expected `int`, got `str` - at `$.x{asked[0]}`")

    text = b"{%b}" % b",".join(b'"x%d":"7"' % number for number in range(1000))
    with pytest.raises(msgspec.ValidationError, match="x1`"):
        answers.without_misfits(never, text)
    assert asked[0] == answers.MOST_MISFITS + 1
