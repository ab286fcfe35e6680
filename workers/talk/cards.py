"""Cards (PROTOCOL §4.1) as frozen values, by the platform's subtypes. What cannot be sent is refused where the card is made.

BadCard names the card, its field and the remedy; it shows no content.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Literal, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from bus.records.records import Payload
from host.unreadable import UNREADABLE, UNWRITABLE, json_to_keep
from workers.errors import BadCard
from workers.files.inbound import FormFile
from workers.files.outgoing import File
from workers.talk.lookalikes import lookalikes_in

MOST_PAYLOAD_BYTES = 64 * 1024  # PROTOCOL §1
MOST_DETAILS_CHARACTERS = 10_000  # what nobody reads to its end is approved unseen
FIELD_TYPES = (
    *("text", "textarea", "number", "boolean", "date", "time", "datetime", "email", "url"),
    *("select", "multiselect", "file"),
)
CHOICES = ("select", "multiselect")
STATUSES = ("starting", "running", "done", "failed", "cancelled")
SEVERITIES = ("low", "medium", "high")
MEDIA_KINDS = ("image", "video", "audio")
MOST_ITEMS = 16  # blocks of an artifact (PROTOCOL §1)
UNSENT = "unsent"
MOST_PERCENT = 100
CANCEL = "cancel"
"""The action of a progress card's Stop button."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOOL = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ATTACHMENT = re.compile(r"[A-Za-z0-9_-]{1,128}")
_QUESTION = b"hashee-approval-v1\x00"
_UNSEEN = frozenset(("Cc", "Cf", "Zl", "Zp"))
"""Categories of characters that nobody sees, or that change the order in which others are seen."""
_JOINER = "\u200d"  # within an emoji
_BLANK = re.compile(
    "[\u00a0\u034f\u115f\u1160\u1680\u17b4\u17b5\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show as nothing, though they are letters, marks or spaces: among what is run they could hide something, or hold it apart."""
_ESCAPE = re.compile(r"\\[\\nrtbf]")
_MOST_BLANKS = 3
_BLANKS = re.compile(rf"(?<=\S) {{{_MOST_BLANKS + 1},}}")
"""So many spaces push what stands behind them out of sight; those at the beginning of a line are the layout's."""


class Action(msgspec.Struct, frozen=True):
    """A button. Pressing it answers with its `id`; with a `url` it opens that."""

    id: str
    label: str
    url: str | None = None

    def __post_init__(self) -> None:
        _check_name("Action.id", self.id)
        _check_text("Action.label", self.label)
        if self.url is not None and not self.url.startswith(("https://", "http://")):
            raise BadCard("Action.url begins with https:// or http://")


class Option(msgspec.Struct, frozen=True):
    """One choice of a field: the value that is answered, and the label that is shown."""

    value: str
    label: str


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a form. `options`, for `select` and `multiselect`: texts, or Option where the label differs."""

    id: str
    label: str
    type: str = "text"
    required: bool = True
    placeholder: str | None = None
    default: object = None
    options: Sequence[str | Option] = ()
    min: object = None
    max: object = None

    def __post_init__(self) -> None:
        _check_name("Field.id", self.id)
        _check_text("Field.label", self.label)
        _check_one_of("Field.type", self.type, FIELD_TYPES)
        values = [one.value if isinstance(one, Option) else one for one in self.options]
        if self.type in CHOICES and (not values or len(set(values)) != len(values)):
            raise BadCard(f"Field {self.id!r}: a {self.type} has one or more options, each another value")
        if self.type not in CHOICES and values:
            raise BadCard(f"Field {self.id!r}: options are for the types select and multiselect, not for {self.type}")

    def built(self) -> Payload:
        """Returns the field as it is sent."""
        options = [one if isinstance(one, Option) else Option(one, one) for one in self.options]
        return _without_none(
            id=self.id,
            label=self.label,
            type=self.type,
            required=self.required,
            placeholder=self.placeholder,
            default=self.default,
            options=[{"value": one.value, "label": one.label} for one in options] or None,
            min=self.min,
            max=self.max,
        )


class MediaItem(msgspec.Struct, frozen=True):
    """A picture, film or sound that was uploaded. `kind`: image, video or audio; `alt`: what it shows, in words."""

    attachment_id: str
    kind: str = "image"
    alt: str | None = None

    def __post_init__(self) -> None:
        if not _ATTACHMENT.fullmatch(self.attachment_id):
            raise BadCard("MediaItem.attachment_id has 1 to 128 characters of A-Z, a-z, 0-9, '_', '-'")
        _check_one_of("MediaItem.kind", self.kind, MEDIA_KINDS)


class _Card(msgspec.Struct, frozen=True):
    """What all cards have: `content` and `payload`."""

    subtype: ClassVar[str] = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @property
    def kind(self) -> str:
        """What is kept of it in clear: its subtype, and for an app a space and its renderer."""
        return self.subtype

    def built(self, card_id: str) -> Payload:
        """Returns the inner payload of the card with this id."""
        raise NotImplementedError

    def payload(self, card_id: str, title: str | None) -> Payload:
        """Returns the message that shows it (PROTOCOL §4.1)."""
        artifact = _without_none(artifact_id=card_id, subtype=self.subtype, title=title, payload=self.built(card_id))
        return {"type": "artifact", "artifact": artifact}


class Info(_Card, frozen=True):
    """A text with buttons."""

    subtype = "info"
    body: str
    title: str | None = None
    icon: str | None = None
    actions: Sequence[Action] = ()

    def __post_init__(self) -> None:
        _check_text("Info.body", self.body)
        _check_actions("Info", self.actions)
        _check_size(self)

    def built(self, card_id: str) -> Payload:  # noqa: ARG002 - as _Card
        """Returns the inner payload."""
        return _without_none(body=self.body, icon=self.icon, actions=_actions(self.actions))


class Form(_Card, frozen=True):
    """Fields to be filled in. `fields`: a sequence of Field, or a msgspec.Struct class, whose fields they are then."""

    subtype = "form"
    fields: Sequence[Field] | type[msgspec.Struct]
    title: str | None = None
    submit_label: str | None = None

    def __post_init__(self) -> None:
        ids = [field.id for field in self.all_fields]
        if not ids or len(set(ids)) != len(ids):
            raise BadCard("Form.fields are one or more, each with another id")
        _check_size(self)

    @property
    def all_fields(self) -> Sequence[Field]:
        """Its fields, also where they come from a class."""
        return list(_fields_of(self.fields)) if isinstance(self.fields, type) else self.fields

    def built(self, card_id: str) -> Payload:  # noqa: ARG002 - as _Card
        """Returns the inner payload."""
        return _without_none(fields=[field.built() for field in self.all_fields], submit_label=self.submit_label)


class Approval(_Card, frozen=True):
    """A question that is answered with yes or no.

    `details`: Markdown. `arguments`: what would be done, shown whole, as JSON. Characters that nobody sees are shown as `\\u…`, so that
    what is approved is what is read.
    """

    subtype = "approval"
    is_said = True  # the history has it, with its answer
    body: str
    title: str | None = None
    details: str | None = None
    arguments: Mapping[str, object] | None = None
    severity: str | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        _check_text("Approval.body", self.body)
        if self.severity is not None:
            _check_one_of("Approval.severity", self.severity, SEVERITIES)
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise BadCard("Approval.expires_at needs a time zone: datetime.now(UTC) + timedelta(…)")
        if len(self._details() or "") > MOST_DETAILS_CHARACTERS:
            raise BadCard(
                f"Approval: details and arguments have more than {MOST_DETAILS_CHARACTERS} characters in all, "
                "which nobody reads: ask about less at a time"
            )
        _check_size(self)

    def _details(self) -> str | None:
        parts = [] if self.details is None else [_seen(self.details)]
        if self.arguments is not None:
            parts.append(_fenced(self.arguments))
        return "\n\n".join(parts) or None

    def question_hash(self, card_id: str) -> str:
        """Returns the hash of what is asked under this card id (PROTOCOL §4.1): of all that somebody reads who says yes."""
        question = [card_id, _seen(self.title or ""), _seen(self.body), self._details() or ""]
        return hashlib.sha256(_QUESTION + msgspec.msgpack.encode(question)).hexdigest()

    def built(self, card_id: str) -> Payload:
        """Returns the inner payload, with the hash of the question under this card id."""
        return _without_none(
            body=_seen(self.body),
            details=self._details(),
            severity=self.severity,
            question_hash=self.question_hash(card_id),
            expires_at=None if self.expires_at is None else self.expires_at.isoformat(),
        )


class Progress(_Card, frozen=True):
    """How far something is. `percent`: 0 to 100; `status`: starting, running, done, failed or cancelled."""

    subtype = "progress"
    percent: float = 0
    status: str = "running"
    title: str | None = None
    body: str | None = None
    eta_s: float | None = None
    actions: Sequence[Action] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= MOST_PERCENT:
            raise BadCard("Progress.percent is a number from 0 to 100")
        _check_one_of("Progress.status", self.status, STATUSES)
        _check_actions("Progress", self.actions)
        _check_size(self)

    def built(self, card_id: str) -> Payload:  # noqa: ARG002 - as _Card
        """Returns the inner payload."""
        return _without_none(
            percent=self.percent, status=self.status, body=self.body, eta_s=self.eta_s, actions=_actions(self.actions)
        )


class Media(_Card, frozen=True):
    """Pictures, films and sounds: `Image`, `Video` and `Audio`, which are uploaded when the card is sent, or what was uploaded (`MediaItem`)."""

    subtype = "media"
    items: Sequence[MediaItem | File]
    body: str | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        if not self.items or not all(isinstance(one, MediaItem | File) for one in self.items):
            raise BadCard("Media.items are one or more Image, Video, Audio, or MediaItem(attachment_id, kind)")
        if len(self.items) > MOST_ITEMS:
            raise BadCard(f"Media.items are at most {MOST_ITEMS}")
        if any(one.kind not in MEDIA_KINDS for one in self.files):
            raise BadCard("Media.items are pictures, films and sounds: send a File by itself, with chat.reply()")
        _check_size(self)

    @property
    def files(self) -> list[File]:
        """Returns what is to be uploaded, in its order."""
        return [one for one in self.items if isinstance(one, File)]

    def with_uploaded(self, attachment_ids: Sequence[str]) -> "Media":
        """Returns the card with the ids of what was uploaded in the places of `files`."""
        ids = iter(attachment_ids)
        items = [MediaItem(next(ids), one.kind, one.words) if isinstance(one, File) else one for one in self.items]
        return Media(items, self.body, self.title)

    def built(self, card_id: str) -> Payload:  # noqa: ARG002 - as _Card
        """Returns the inner payload; it names as unsent what is not uploaded yet."""
        items = [
            _without_none(attachment_id=UNSENT, kind=one.kind, alt=one.words)
            if isinstance(one, File)
            else _without_none(attachment_id=one.attachment_id, kind=one.kind, alt=one.alt)
            for one in self.items
        ]
        return _without_none(items=items, body=self.body)


class App(_Card, frozen=True):
    """A card that a renderer of the platform draws: `ui` is its name, `data` what it takes, a mapping or a msgspec.Struct."""

    subtype = "app"
    ui: str
    data: Mapping[str, object] | msgspec.Struct = {}
    title: str | None = None

    def __post_init__(self) -> None:
        _check_name("App.ui", self.ui)
        _check_size(self)

    @property
    def kind(self) -> str:
        """Returns `app`, a space, and the renderer."""
        return f"{self.subtype} {self.ui}"

    def built(self, card_id: str) -> Payload:  # noqa: ARG002 - as _Card
        """Returns the inner payload."""
        return app_payload(self.ui, self.data)


class ToolCall(_Card, frozen=True):
    """A call of a tool that the person's app has (`chat.call_tool`). `arguments`: JSON values by name."""

    subtype = "tool_call"
    tool_name: str
    arguments: Mapping[str, object]
    permission_scope: str
    timeout_ms: int
    title: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tool_name, str) or not _TOOL.fullmatch(self.tool_name):
            raise BadCard("call_tool: a tool's name has 1 to 64 characters of a-z, 0-9, '_', and begins with a letter")
        _check_name("call_tool(scope=…)", self.permission_scope)
        _check_size(self)

    def built(self, card_id: str) -> Payload:
        """Returns the inner payload."""
        return _without_none(
            call_id=card_id,
            tool_name=self.tool_name,
            arguments=_mapping("call_tool: the arguments", self.arguments),
            permission_scope=self.permission_scope,
            timeout_ms=self.timeout_ms,
        )


Card: TypeAlias = Info | Form | Approval | Progress | Media | App


def card_payload(card: Card | ToolCall, card_id: str) -> Payload:
    """Returns the message that shows a card under this id, certain to be JSON."""
    title = _seen(card.title) if isinstance(card, Approval) and card.title else card.title
    return _checked(type(card).__name__, card.payload(card_id, title))


def update_payload(
    card_id: str, kind: str, revision: int, new: Card | Mapping[str, object] | msgspec.Struct
) -> Payload:
    """Returns the message that puts `new` in the place of what the card shows. `kind`: what the card is. Raises BadCard."""
    if kind == Approval.subtype:
        raise BadCard("an approval stays as it was asked; say what became of it with chat.reply()")
    if kind == ToolCall.subtype:
        raise BadCard("a call of a tool stays as it was made; make another one with chat.call_tool()")
    if isinstance(new, _Card):
        if new.kind != kind:
            raise BadCard(
                f"this card is of kind {kind!r} and cannot become {new.kind!r}: send a new one with chat.reply()"
            )
        content = new.built(card_id)
    else:
        subtype, _, ui = kind.partition(" ")
        content = app_payload(ui, new) if subtype == App.subtype else _mapping("the payload", new)
    return _checked(
        "the update",
        {
            "type": "artifact",
            "ref_artifact": card_id,
            "based_on_revision": revision,
            "artifact": {"payload": content},
        },
    )


def app_payload(ui: str, data: object) -> Payload:
    """Returns the inner payload of an app. Raises BadCard."""
    fields = _mapping("App.data", data)
    if fields.get("ui", ui) != ui:
        raise BadCard("App.data has a field 'ui', which names the renderer: call it something else")
    return {"ui": ui, **fields}


# A form from a class


def _fields_of(cls: type[msgspec.Struct]) -> Iterator[Field]:
    try:
        info = msgspec.inspect.type_info(cls)
    except TypeError as error:
        raise BadCard(f"Form({cls.__name__}): {error}") from None
    if not isinstance(info, msgspec.inspect.StructType):
        raise BadCard(f"Form({cls.__name__}): fields come from a msgspec.Struct class, or are a list of Field")
    hints = get_type_hints(cls)
    for field in info.fields:
        kind, is_optional, shown = _without_options(field.type)
        yield _field(
            f"{cls.__name__}.{field.name}",
            field.encode_name,
            kind,
            label=str(shown.get("title") or field.name.replace("_", " ").capitalize()),
            placeholder=str(shown["description"]) if "description" in shown else None,
            required=field.required and not is_optional,
            default=_default_of(field),
            values=list(_literals_in(hints[field.name])),
        )


def check_files(cls: type[msgspec.Struct], taken: type[FormFile]) -> None:
    """Raises BadCard where a class of a form has a file of another kind than the handler that asks reads."""
    for name, hint in get_type_hints(cls).items():
        for one in (hint, *get_args(hint)):
            if isinstance(one, type) and issubclass(one, FormFile) and one is not taken:
                raise BadCard(
                    f"Form: {cls.__name__}.{name} is of {one.__name__}, and this handler reads {taken.__name__}: a `def` handler "
                    "takes BlockingFile, an `async def` handler InboundFile"
                )


def _default_of(field: msgspec.inspect.Field) -> object:
    default = field.default_factory() if callable(field.default_factory) else field.default
    return None if default is msgspec.NODEFAULT or default == [] else msgspec.to_builtins(default)


def _literals_in(hint: object) -> Iterator[object]:
    """Yields the values of a Literal in the order in which its owner wrote them, which msgspec does not keep."""
    for one in get_args(hint):
        if get_origin(hint) is Literal:
            yield one
        else:
            yield from _literals_in(one)


def _without_options(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, bool, Mapping[str, object]]:
    """Returns the type within `Annotated` and `| None`, whether there was the latter, and what Meta says for people."""
    if isinstance(kind, msgspec.inspect.Metadata):
        within, is_optional, shown = _without_options(kind.type)
        return within, is_optional, {**shown, **(kind.extra_json_schema or {})}
    if isinstance(kind, msgspec.inspect.UnionType):
        left = [one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)]
        if len(left) == 1:
            within, _, shown = _without_options(left[0])
            return within, True, shown
    return kind, False, {}


_PLAIN: Mapping[type[msgspec.inspect.Type], str] = {
    msgspec.inspect.StrType: "text",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.DateType: "date",
    msgspec.inspect.TimeType: "time",
    msgspec.inspect.DateTimeType: "datetime",
}


def _field(
    name: str,
    field_id: str,
    kind: msgspec.inspect.Type,
    *,
    label: str,
    placeholder: str | None,
    required: bool,
    default: object,
    values: Sequence[object],
) -> Field:
    field_type, options = _PLAIN.get(type(kind)), tuple[Option, ...]()
    least = most = None
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        field_type = "number"
        least, most = (kind.ge if kind.ge is not None else kind.gt), (kind.le if kind.le is not None else kind.lt)
    elif isinstance(kind, msgspec.inspect.LiteralType | msgspec.inspect.EnumType):
        field_type, options = "select", _options(name, kind, values)
    elif isinstance(kind, msgspec.inspect.CustomType) and issubclass(kind.cls, FormFile):
        field_type = "file"
    elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.SetType | msgspec.inspect.VarTupleType):
        inner = kind.item_type
        if isinstance(inner, msgspec.inspect.LiteralType | msgspec.inspect.EnumType):
            field_type, options = "multiselect", _options(name, inner, values)
        elif isinstance(inner, msgspec.inspect.CustomType) and issubclass(inner.cls, FormFile):
            raise BadCard(
                f"Form: {name} is a list of files, and a field takes one: give each a field of its own, `InboundFile | None` where "
                "it may be left out, or ask for a message with them and read message.files"
            )
    if field_type is None:
        raise BadCard(
            f"Form: {name} has a type that no field has: str, int, float, bool, date, time, datetime, InboundFile, Literal, an Enum of "
            "texts, or a list of one of the last two"
        )
    return Field(
        id=field_id,
        label=label,
        type=field_type,
        required=required,
        placeholder=placeholder,
        default=default,
        options=options,
        min=least,
        max=most,
    )


def _options(
    name: str, kind: msgspec.inspect.LiteralType | msgspec.inspect.EnumType, values: Sequence[object]
) -> tuple[Option, ...]:
    if isinstance(kind, msgspec.inspect.EnumType):
        pairs = [(one.value, one.name.replace("_", " ").capitalize()) for one in kind.cls]
    else:
        pairs = [(one, str(one)) for one in values]
    options = tuple(Option(value, label) for value, label in pairs if isinstance(value, str))
    if len(options) < len(pairs):
        raise BadCard(f"Form: the choices of {name} are texts")
    return options


# What is approved is what is read


def _seen(text: str, *, but: str = "\n\t" + _JOINER, unseen: Collection[str] = _UNSEEN) -> str:
    """Returns the text with each character that nobody sees, or that moves others, as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in unseen and one not in but else one for one in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _without_letters(escape: re.Match[str]) -> str:
    """Returns something as long as an escape: the n of a line's end belongs to no word. A backslash still stands between words."""
    return "//" if escape[0] == r"\\" else "  "


def _fenced(arguments: Mapping[str, object]) -> str:
    """Returns the arguments as canonical JSON, in a fence that is longer than any in it."""
    try:
        text = json.dumps(dict(arguments), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except UNWRITABLE:
        raise BadCard("Approval.arguments hold something that JSON does not have") from None
    text = _BLANK.sub(lambda one: _escaped(one[0]), _seen(text, but="\n", unseen=(*_UNSEEN, "Cs", "Co", "Cn")))
    text = _BLANKS.sub(lambda many: _escaped(" ") * len(many[0]), text)
    taken_for_others = lookalikes_in(_ESCAPE.sub(_without_letters, text))
    text = "".join(_escaped(one) if at in taken_for_others else one for at, one in enumerate(text))
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}json\n{text}\n{fence}"


# Checks


def _without_none(**fields: object) -> Payload:
    return {name: value for name, value in fields.items() if value is not None}


def _actions(actions: Sequence[Action]) -> list[Payload] | None:
    return [_without_none(id=one.id, label=one.label, url=one.url) for one in actions] or None


def _mapping(what: str, value: object) -> Payload:
    plain = msgspec.to_builtins(value, str_keys=True) if isinstance(value, msgspec.Struct) else value
    if not isinstance(plain, Mapping) or not all(isinstance(key, str) for key in plain):
        raise BadCard(f"{what} is a mapping of texts to JSON values, or a msgspec.Struct, not {type(value).__name__}")
    return dict(plain)


def _checked(what: str, payload: Payload) -> Payload:
    """Returns a copy that is certain to be JSON and small enough. Raises BadCard."""
    try:
        packed = json_to_keep(payload)
        packed.decode()
        copy: Payload = msgspec.json.decode(packed, type=dict[str, object])
    except (*UNREADABLE, *UNWRITABLE):
        raise BadCard(
            f"{what} holds something that JSON does not have, or a number of over 64 bits"
        ) from None  # the cause may quote the value
    if len(packed) > MOST_PAYLOAD_BYTES:
        raise BadCard(f"{what} has {len(packed)} bytes, and a card at most {MOST_PAYLOAD_BYTES}: show less in it")
    return copy


def _check_size(card: _Card) -> None:
    _checked(type(card).__name__, card.built("0" * 26))


def _check_actions(card: str, actions: Sequence[Action]) -> None:
    if not all(isinstance(one, Action) for one in actions):
        raise BadCard(f"{card}.actions are Action(id, label)")
    if len({one.id for one in actions}) != len(actions):
        raise BadCard(f"{card}.actions have each another id")


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadCard(f"{what} has 1 to 64 characters of A-Z, a-z, 0-9, '_', '.', '-'")


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise BadCard(f"{what} is a text that is not empty")


def _check_one_of(what: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise BadCard(f"{what} is one of {', '.join(known)}")
