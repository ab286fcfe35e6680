"""The cards that a person's device has (PROTOCOL §4.1): each with its revision, and as a text for a terminal."""

import hashlib
from collections.abc import Callable, Mapping
from typing import cast

import msgspec

TOOL_CALL = "tool_call"
QUESTION = b"hashee-approval-v1\x00"


class ShownCard(msgspec.Struct, frozen=True):
    """A card as it is shown now."""

    card_id: str
    subtype: str
    title: str
    payload: Mapping[str, object]
    revision: int = 0

    @property
    def text(self) -> str:
        """The card as lines of text: what it is, its title and body, its fields and buttons."""
        head = f"[{self.payload.get('ui', self.subtype)}]"
        if self.revision:
            head += f" (update {self.revision})"
        said = self.said
        said += [_field(one) for one in _list(self.payload.get("fields"))]
        if self.subtype == "approval":
            said.append("(approve) (reject)")
        said += [f"({one.get('label')}: {one['id']})" for one in _list(self.payload.get("actions")) if "id" in one]
        return " ".join([head, "\n".join(said)]).strip()

    @property
    def said(self) -> list[str]:
        """What it says, without fields and buttons."""
        said = [str(part) for part in (self.title, self.payload.get("body"), self.payload.get("details")) if part]
        if "percent" in self.payload:
            said.append(f"{self.payload['percent']:g} % {self.payload.get('status', '')}".rstrip())
        if self.subtype == TOOL_CALL:
            arguments = msgspec.json.encode(self.payload.get("arguments")).decode()
            said.append(f"{self.payload.get('tool_name')} {arguments}")
        if self.subtype == "app":
            said += [f"{name}: {value}" for name, value in self.payload.items() if name != "ui"]
        return said

    @property
    def question_hash(self) -> str:
        """The hash of what this approval shows: what its answer is an answer to."""
        question = [self.card_id, self.title, self.payload.get("body") or "", self.payload.get("details") or ""]
        return hashlib.sha256(QUESTION + msgspec.msgpack.encode(question)).hexdigest()

    def run_by(self, tools: Mapping[str, Callable[[Mapping[str, object]], object]]) -> dict[str, object]:
        """Returns the answer of an app that has these tools to a call of one."""
        tool, arguments = tools.get(str(self.payload.get("tool_name"))), self.payload.get("arguments")
        if tool is None:
            return {"status": "denied", "reason": "unsupported"}
        return {"status": "ok", "result": tool(arguments if isinstance(arguments, dict) else {})}


class Cards:
    """All cards of a device."""

    def __init__(self) -> None:
        self.shown: dict[str, ShownCard] = {}

    def read(self, payload: Mapping[str, object]) -> ShownCard | None:
        """Takes a payload of type artifact; returns the card that it shows or changes, None if there is nothing new to show."""
        artifact = payload.get("artifact")
        if not isinstance(artifact, dict):
            return None
        content = artifact.get("payload")
        inner = cast("dict[str, object]", content) if isinstance(content, dict) else {}
        if "ref_artifact" in payload:
            return self._update(str(payload["ref_artifact"]), payload.get("based_on_revision"), inner)
        card_id = str(artifact.get("artifact_id", ""))
        if not card_id or card_id in self.shown:
            return None
        title = str(artifact.get("title") or "")
        self.shown[card_id] = ShownCard(card_id, str(artifact.get("subtype", "")), title, inner)
        return self.shown[card_id]

    def _update(self, card_id: str, based_on: object, inner: Mapping[str, object]) -> ShownCard | None:
        """A lower revision than that which is shown is passed over, a higher one is newer."""
        known = self.shown.get(card_id)
        if known is None or not isinstance(based_on, int) or based_on < known.revision:
            return None
        self.shown[card_id] = msgspec.structs.replace(known, payload=inner, revision=based_on + 1)
        return self.shown[card_id]


def _list(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _field(field: Mapping[str, object]) -> str:
    options = " | ".join(str(one.get("value")) for one in _list(field.get("options")))
    return f"{field.get('label')} ({field.get('id')}: {options or field.get('type')})"
