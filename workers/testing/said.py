"""What people get of an agent in a test: a message, a card, an update of one, and what was done to messages that are there."""

from collections.abc import Mapping
from dataclasses import dataclass

from bus.records.records import Payload


def answer_to_card(card_id: str, payload: Mapping[str, object], *, is_tool: bool) -> Payload:
    """Returns the message that answers a card, or a call of a tool (PROTOCOL §4.1). Files among a form's values go beside it."""
    if is_tool:
        return {
            "type": "artifact",
            "artifact": {"subtype": "tool_response", "payload": {"call_id": card_id, **payload}},
        }
    said, files = dict(payload), list[Payload]()
    values = said.get("values")
    if isinstance(values, Mapping):
        files = [one for one in values.values() if isinstance(one, dict) and "attachment_id" in one]
        said["values"] = {name: one["attachment_id"] if one in files else one for name, one in values.items()}
    artifact: Payload = {"subtype": "response", "ref_artifact": card_id, "payload": said}
    return {"type": "artifact", "artifact": artifact, **({"attachments": files} if files else {})}


@dataclass(frozen=True)
class Said:
    """One reply. `deltas` is what a person saw of a stream while it grew.

    `kind`: `message`, or `recall` or `reaction` for what is done to one that is there. `message_id`: the relay's id of it, '' where it has none.
    """

    place: str
    payload: Payload
    deltas: tuple[str, ...] = ()
    was_streamed: bool = False
    kind: str = "message"
    message_id: str = ""

    @property
    def text(self) -> str:
        """The text of a text reply, else an empty string."""
        text = self.payload.get("text", "")
        return text if isinstance(text, str) else ""

    @property
    def card_id(self) -> str:
        """The id of the card that is sent or updated, an empty string for anything else."""
        return str(self.payload.get("ref_artifact") or self._artifact().get("artifact_id", ""))

    @property
    def card(self) -> Payload:
        """The inner payload of a card or an update, such as `{"body": …}`; empty for anything else."""
        inner = self._artifact().get("payload")
        return inner if isinstance(inner, dict) else {}

    @property
    def files(self) -> list[Payload]:
        """Its files, as they stand in `attachments`: each with its `filename` and `size`."""
        found = self.payload.get("attachments")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def title(self) -> str:
        """The title of a card, an empty string for anything else."""
        return str(self._artifact().get("title") or "")

    @property
    def subtype(self) -> str:
        """What kind of card it is, such as `approval`; an empty string for anything else."""
        return str(self._artifact().get("subtype") or "")

    @property
    def revision(self) -> int:
        """Which revision of its card this is: 0 as it was sent, then 1, 2, …"""
        based_on = self.payload.get("based_on_revision")
        return based_on + 1 if isinstance(based_on, int) else 0

    def _artifact(self) -> Payload:
        artifact = self.payload.get("artifact")
        return artifact if isinstance(artifact, dict) else {}


class Replies(list[Said]):
    """What was said to a message, in order."""

    @property
    def text(self) -> str:
        """Their texts, each on a line of its own."""
        return "\n".join(one.text for one in self if one.text)

    @property
    def texts(self) -> list[str]:
        """The text of each; of a card its body, or its title where it has none."""
        return [one.text or str(one.card.get("body") or one.title) for one in self]
