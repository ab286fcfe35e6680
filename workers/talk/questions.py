"""What a handler may ask, and what an answer is made into. Pure.

A question has a name that is the same in each run that asks the same: made of what is asked, or the handler's key. So new code may ask more
or less before a question that is open.
"""

import hashlib
import re
from datetime import date, datetime, time
from typing import Any, cast

import msgspec

from bus.records.records import Payload
from workers.errors import BadHandler
from workers.kept.waits import AskedKind
from workers.talk.cards import App, Approval, Form, card_payload
from workers.talk.payloads import text_payload

MOST_MISFITS = 3
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HINTS = {
    int: "Please answer with a whole number.",
    float: "Please answer with a number.",
    date: "Please answer with a date, such as 2026-12-31.",
    time: "Please answer with a time, such as 18:30.",
    datetime: "Please answer with a date and a time, such as 2026-12-31T18:30:00+01:00.",
    bool: "Please answer with true or false.",
}


class Misfit(Exception):
    """An answer that is not of the type that was asked for; its text is for the person."""


class Question(msgspec.Struct, frozen=True):
    """One question. `what`: a text, or a card; `kind`: the type of its answer."""

    what: str | Approval | Form | App
    kind: Any

    @classmethod
    def of(cls, what: object, kind: object) -> "Question":
        """Returns the question. Raises BadHandler, BadCard."""
        if isinstance(what, str):
            return cls(what, kind)
        if isinstance(what, Approval):
            return cls(what, bool)
        if isinstance(what, Form):
            return cls(what, what.fields if isinstance(what.fields, type) else dict[str, object])
        if isinstance(what, App):
            return cls(what, dict[str, object])
        if isinstance(what, type) and issubclass(what, msgspec.Struct):
            return cls(Form(what), what)
        raise BadHandler(f"ask takes a text, an Approval, a Form, an App or a Struct class, not {type(what).__name__}")

    @property
    def asked(self) -> AskedKind:
        """Returns how it is answered."""
        if isinstance(self.what, str):
            return "text"
        return cast("AskedKind", self.what.subtype)

    def name(self, key: str | None) -> str:
        """Returns its name in the journal, before the count. Raises BadHandler."""
        if key is not None:
            if not _KEY.fullmatch(key):
                raise BadHandler("a question's key has 1 to 64 characters of A-Z, a-z, 0-9, '_', '.', '-'")
            return f"ask:{key}"
        shown = self.what if isinstance(self.what, str) else msgspec.json.encode(self.payload(""))
        said = shown.encode() if isinstance(shown, str) else shown
        told = msgspec.msgpack.encode([self.asked, said, getattr(self.kind, "__qualname__", str(self.kind))])
        return f"ask:~{hashlib.sha256(told).hexdigest()[:20]}"

    def payload(self, card_id: str) -> Payload:
        """Returns the message that asks it. Raises BadReply, BadCard."""
        if isinstance(self.what, str):
            return text_payload(self.what, markdown=False)
        return card_payload(self.what, card_id)

    def question_hash(self, card_id: str) -> str:
        """Returns the hash of an approval under this id (PROTOCOL §4.1), '' for all else."""
        return str(self.what.built(card_id)["question_hash"]) if isinstance(self.what, Approval) else ""

    def answer(self, said: Payload) -> object:
        """Returns the answer as what was asked for. Raises Misfit."""
        if self.asked == "approval":
            return said.get("decision") == "approved"
        if self.asked == "app":
            return said
        found = said.get("text") if self.asked == "text" else said.get("values")
        if isinstance(found, str) and self.kind is not str:
            found = found.strip()
        try:
            return msgspec.convert(found, type=self.kind, strict=False)
        except msgspec.ValidationError as error:
            raise Misfit(self._hint(error)) from None

    def _hint(self, error: Exception) -> str:
        if self.asked == "text":
            return _HINTS.get(self.kind, "Please answer in another way.")
        where = re.search(r"at `\$\.?([\w.]+)", str(error))
        return f"Please look at {where.group(1)!r} again." if where else "Please look at the form again."

    def asked_again(self, hint: str) -> "Question":
        """Returns what is asked after an answer that did not fit."""
        if isinstance(self.what, str):
            return Question(hint, self.kind)
        return self
