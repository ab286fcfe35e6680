"""What a handler may ask, and what an answer is made into. Pure.

A question has a name that is the same in each run that asks the same: made of what is asked, or the handler's key. So new code may ask more
or less before a question that is open.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, cast, get_args

import msgspec

from bus.records.records import Payload
from workers.errors import BadAsk, BadHandler
from workers.files.files import RunFiles
from workers.files.inbound import FormFile, InboundFile
from workers.files.said import file_named
from workers.kept.waits import QUESTION, AskedKind, Given
from workers.talk.answers import Answer
from workers.talk.cards import App, Approval, Form, ToolCall, card_payload, check_files
from workers.talk.payloads import check_says_something, text_payload

MOST_MISFITS = 3
MOST_CHOICES = 20
"""That are told after an answer that is none of them."""
FILE = "file"
_LOOK_AGAIN = "Please look at {} again."
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HINTS = {
    int: "Please answer with a whole number.",
    float: "Please answer with a number.",
    date: "Please answer with a date, such as 2026-12-31.",
    time: "Please answer with a time, such as 18:30.",
    datetime: "Please answer with a date and a time, such as 2026-12-31T18:30:00+01:00.",
    bool: "Please answer with true or false.",
}


FROM_A_TEXT = (
    *(msgspec.inspect.StrType, msgspec.inspect.IntType, msgspec.inspect.FloatType, msgspec.inspect.DecimalType),
    *(msgspec.inspect.BoolType, msgspec.inspect.EnumType, msgspec.inspect.LiteralType, msgspec.inspect.UUIDType),
    *(msgspec.inspect.DateType, msgspec.inspect.TimeType, msgspec.inspect.DateTimeType, msgspec.inspect.TimeDeltaType),
    *(msgspec.inspect.NoneType, msgspec.inspect.BytesType),
)
"""What a text is converted to."""


def is_from_a_text(info: msgspec.inspect.Type) -> bool:
    """Returns whether a text is converted to this type, or to each of a union."""
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return all(isinstance(kind, FROM_A_TEXT) for kind in kinds)


class Misfit(Exception):
    """An answer that is not of the type that was asked for; its text is for the person."""


class Question(msgspec.Struct, frozen=True):
    """One question. `what`: a text, or a card; `kind`: the type of its answer. `file`: what the files of a form are given as."""

    what: str | Approval | Form | App | ToolCall
    kind: Any
    file: type[FormFile] = InboundFile

    @classmethod
    def of(cls, what: object, kind: object, file: type[FormFile] = InboundFile) -> "Question":
        """Returns the question. Raises BadHandler, BadAsk, BadCard."""
        if isinstance(what, str):
            _check_kind(kind)
            return cls(what, kind)
        if isinstance(what, Approval):
            return cls(what, Answer if kind is Answer else bool)
        if isinstance(what, Form) and isinstance(what.fields, type):
            check_files(what.fields, file)
            return cls(what, what.fields, file)
        if isinstance(what, Form):
            return cls(what, dict[str, object], file)
        if isinstance(what, App):
            return cls(what, Answer)
        if isinstance(what, ToolCall):
            return cls(what, dict)
        if isinstance(what, type) and issubclass(what, msgspec.Struct):
            return cls.of(Form(what), what, file)
        raise BadHandler(f"ask takes a text, an Approval, a Form, an App or a Struct class, not {type(what).__name__}")

    @property
    def asked(self) -> AskedKind:
        """Returns how it is answered."""
        if isinstance(self.what, str):
            return "text"
        return cast("AskedKind", self.what.subtype)

    @property
    def is_said(self) -> bool:
        """Returns whether the history has it, with its answer."""
        return not isinstance(self.what, Approval) or self.what.is_said

    def name(self, key: str | None) -> str:
        """Returns its name in the journal, before the count. Raises BadHandler."""
        if key is not None:
            if not _KEY.fullmatch(key):
                raise BadHandler("a question's key has 1 to 64 characters of A-Z, a-z, 0-9, '_', '.', '-'")
            return f"{QUESTION}{key}"
        told = msgspec.msgpack.encode([self.asked, *self._compared()])
        return f"{QUESTION}~{hashlib.sha256(told).hexdigest()[:20]}"

    def _compared(self) -> list[object]:
        """Returns what makes it the same question in each run. What is made anew in each (a form's default, when an approval expires) is none of it."""
        what = self.what
        if isinstance(what, str):
            return [what, getattr(self.kind, "__qualname__", str(self.kind))]
        if isinstance(what, Approval):
            return [what.question_hash("")]
        if isinstance(what, Form):
            shown = ("id", "label", "type", "required", "options")
            return [what.title, [[field.built().get(name) for name in shown] for field in what.all_fields]]
        return [msgspec.json.encode(self.payload(""))]

    def payload(self, card_id: str) -> Payload:
        """Returns the message that asks it. Raises BadReply, BadCard."""
        if isinstance(self.what, str):
            check_says_something(self.what)
            return text_payload(self.what, markdown=False)
        return card_payload(self.what, card_id)

    def question_hash(self, card_id: str) -> str:
        """Returns the hash of an approval under this id (PROTOCOL §4.1), '' for all else."""
        return self.what.question_hash(card_id) if isinstance(self.what, Approval) else ""

    def is_answered_by(self, given: Given) -> bool:
        """Returns whether that was answered: of an approval whether exactly this was read, under the card that was shown."""
        if not isinstance(self.what, Approval) or not given.card_id:
            return True
        return given.said.get("question_hash") == self.what.question_hash(given.card_id)

    def answer(self, given: Given, files: RunFiles | None = None) -> object:
        """Returns the answer as what was asked for. `files`: by which a run reads the files in it. Raises Misfit."""
        said = given.said
        if self.kind is Answer and not isinstance(self.what, str):
            kind = self.what.ui if isinstance(self.what, App) else self.asked
            return Answer(card_id=given.card_id, sender_id=given.sender_id, payload=said, kind=kind)
        if isinstance(self.what, Approval):
            return said.get("decision") == "approved"
        if isinstance(self.what, ToolCall):
            return said
        if isinstance(self.what, Form):
            return self._filled_in(self.what, given, files)
        found = said.get("text")
        if isinstance(found, str) and self.kind is not str:
            found = found.strip()
        return self._converted(found)

    def _filled_in(self, form: Form, given: Given, files: RunFiles | None) -> object:
        """Returns the values of a form, each file as one that can be read."""
        values, file_ids = given.said.get("values"), [field.id for field in form.all_fields if field.type == FILE]

        def file_in(value: object) -> FormFile:
            found = file_named(value, given.attachments)
            if found is None or found.attachment is None:
                raise ValueError("no file")  # which msgspec tells with its place
            return self.file.of(InboundFile(found, files))

        if not isinstance(values, dict) or not file_ids:
            return self._converted(values)
        values = {name: one for name, one in values.items() if name not in file_ids or one not in (None, "")}
        if isinstance(form.fields, type):
            return self._converted(values, lambda _kind, value: file_in(value))
        for name in values.keys() & set(file_ids):
            try:
                values[name] = file_in(values[name])
            except ValueError:
                raise Misfit(_LOOK_AGAIN.format(repr(name))) from None
        return values

    def _converted(self, found: object, hook: Callable[[type, Any], Any] | None = None) -> object:
        try:
            return msgspec.convert(found, type=self.kind, strict=False, dec_hook=hook)
        except msgspec.ValidationError as error:
            raise Misfit(self._hint(error)) from None

    def _hint(self, error: Exception) -> str:
        if self.asked == "text":
            return _HINTS.get(self.kind) or _choices_of(self.kind)
        where = re.search(r"(?:at `\$\.?|required field `)([\w.]+)", str(error))
        return _LOOK_AGAIN.format(repr(where.group(1)) if where else "the form")

    def asked_again(self, hint: str) -> "Question":
        """Returns what is asked after an answer that did not fit."""
        if isinstance(self.what, str):
            return Question(hint, self.kind)
        return self


def _check_kind(kind: Any) -> None:
    """Raises BadAsk for what no text is ever converted to: then no answer would fit."""
    if kind in (Any, object):
        return
    try:
        if is_from_a_text(msgspec.inspect.type_info(kind)):
            return
    except TypeError:
        pass
    name = getattr(kind, "__name__", None) or repr(kind)
    raise BadAsk(
        f"no text is converted to {name}: ask for str, int, float, bool, date, time, datetime, a Literal or an Enum, "
        "and for anything else with a form: ask(Booking), whose fields are those of a Struct"
    )


def _choices_of(kind: Any) -> str:
    info = msgspec.inspect.type_info(kind)
    choices: list[object] = []
    if isinstance(info, msgspec.inspect.LiteralType):
        choices = list(get_args(kind))  # in the order of the owner
    elif isinstance(info, msgspec.inspect.EnumType):
        choices = [one.value for one in info.cls]
    if not 0 < len(choices) <= MOST_CHOICES:
        return "Please answer in another way."
    return f"Please answer with one of these: {', '.join(map(str, choices))}."
