"""A state is the owner's struct: what changed in it is kept whole, also what another version of the struct had put there."""

import enum
from datetime import UTC, datetime

import msgspec
import pytest

from workers.errors import BadHandler, BadState, StateTooLarge
from workers.kept.state import MOST_STATE_BYTES, StateShape

pytestmark = pytest.mark.pure


class Vote(msgspec.Struct):
    option: str = ""


class Lunch(msgspec.Struct):
    card: str = ""
    votes: dict[str, Vote] = {}


class LaterVote(msgspec.Struct):
    option: str = ""
    at: datetime | None = None


class LaterLunch(msgspec.Struct):
    card: str = ""
    votes: dict[str, LaterVote] = {}
    place: str = "canteen"
    winner: LaterVote | None = None


def lunch(body: bytes) -> Lunch:
    value = StateShape(Lunch).read(body).value
    assert isinstance(value, Lunch)
    return value


def test_a_conversation_begins_with_the_defaults_and_what_is_not_changed_is_not_written() -> None:
    running = StateShape(Lunch).begin()
    assert running.value == Lunch()
    assert running.changed() is None
    other = StateShape(Lunch).begin()
    other.value.votes["ann"] = Vote("soup")  # type: ignore[attr-defined]
    body = other.changed()
    assert body is not None
    assert lunch(body).votes == {"ann": Vote("soup")}
    assert StateShape(Lunch).begin().value == Lunch(), "no run sees another's"
    assert StateShape(Lunch).read(body).changed() is None


def test_what_a_later_version_added_survives_a_write_by_this_one() -> None:
    later = LaterLunch("c", {"ann": LaterVote("soup", datetime(2026, 1, 5, tzinfo=UTC))}, "garden", LaterVote("soup"))
    running = StateShape(Lunch).read(msgspec.msgpack.encode(later))
    assert isinstance(running.value, Lunch)
    assert running.changed() is None
    running.value.votes["ben"] = Vote("stew")
    running.value.votes["ann"].option = "salad"
    body = running.changed()
    assert body is not None
    later.votes["ben"], later.votes["ann"].option = LaterVote("stew"), "salad"
    assert msgspec.msgpack.decode(body, type=LaterLunch) == later


def test_what_the_code_itself_takes_away_goes_with_all_that_is_in_it() -> None:
    later = LaterLunch(votes={"ann": LaterVote("soup", datetime(2026, 1, 5, tzinfo=UTC)), "ben": LaterVote("stew")})
    running = StateShape(Lunch).read(msgspec.msgpack.encode(later))
    assert isinstance(running.value, Lunch)
    del running.value.votes["ann"]
    body = running.changed()
    assert body is not None
    assert msgspec.msgpack.decode(body, type=LaterLunch).votes == {"ben": LaterVote("stew")}


class Orders(msgspec.Struct):
    items: list[Vote] = []


class LaterOrders(msgspec.Struct):
    items: list[LaterVote] = []


def test_what_could_not_be_put_back_is_refused_and_named() -> None:
    stored = msgspec.msgpack.encode(LaterOrders([LaterVote("soup")]))
    with pytest.raises(BadState, match="field `at`, which this version does not know"):
        StateShape(Orders).read(stored)


class Brief(msgspec.Struct, omit_defaults=True):
    option: str = ""


class BriefOrders(msgspec.Struct):
    items: list[Brief] = []


def test_a_default_that_is_no_longer_written_is_nothing_unknown() -> None:
    stored = msgspec.msgpack.encode(Orders([Vote(), Vote("soup")]))
    assert StateShape(BriefOrders).read(stored).value == BriefOrders([Brief(), Brief("soup")])


class Kind(enum.Enum):
    SOUP = "soup"


class Chosen(msgspec.Struct):
    kind: Kind = Kind.SOUP


class Counted(msgspec.Struct):
    votes: int = 0


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    card: str = ""


@pytest.mark.parametrize(
    ("shape", "stored", "said"),
    [
        (Counted, {"votes": "four secret votes"}, r"Expected `int`, got `str` - at `\$.votes`"),
        (Lunch, {"votes": {"ann": {"option": 3}}}, r"Expected `str`, got `int` - at `\$.votes\[...\].option`"),
        (Chosen, {"kind": "secret"}, r"a value that this class does not allow - at `\$.kind`"),
        (Strict, {"card": "secret", "votes": {}}, r"Object contains unknown field `votes`"),
        (Lunch, [1], "Expected `object`"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_field_and_the_remedy(
    shape: type[msgspec.Struct], stored: object, said: str
) -> None:
    with pytest.raises(BadState, match=said) as raised:
        StateShape(shape).read(msgspec.msgpack.encode(stored))
    assert "former type" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_state_over_its_limit_is_refused_with_its_size() -> None:
    running = StateShape(Lunch).begin()
    assert isinstance(running.value, Lunch)
    running.value.card = "x" * (MOST_STATE_BYTES - 20)
    assert running.changed() is not None
    running.value.card += "x" * 20
    with pytest.raises(StateTooLarge, match=rf"at most {MOST_STATE_BYTES} bytes, this Lunch has \d+"):
        running.changed()


def test_what_cannot_be_encoded_is_refused_without_its_value() -> None:
    running = StateShape(Lunch).begin()
    running.value.card = object()  # type: ignore[attr-defined]
    with pytest.raises(BadState, match="holds something that msgpack does not have"):
        running.changed()
    assert "object" not in repr(running)


class Frozen(msgspec.Struct, frozen=True):
    card: str = ""


class AsList(msgspec.Struct, array_like=True):
    card: str = ""


class Needs(msgspec.Struct):
    card: str
    votes: dict[str, str] = {}


class HasNoForm(msgspec.Struct):
    anything: object = object()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (dict, "takes a msgspec.Struct class"),
        ("Lunch", "takes a msgspec.Struct class"),
        (Frozen, "take `frozen=True` off"),
        (AsList, "array_like"),
        (Needs, "give a default to card"),
        (HasNoForm, "cannot be stored"),
    ],
)
def test_a_class_that_cannot_be_a_state_is_refused_at_once(shape: type, said: str) -> None:
    with pytest.raises(BadHandler, match=said):
        StateShape(shape)
