"""What a payload says of its files (PROTOCOL §4, §4.1, §5.9), and what the payload of files that are sent says. Pure.

What is wrong with one file is a problem of that file: the message and its other files stay readable.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from bus.files.calls import is_id
from bus.records.records import Payload
from crypto.files import MAX_FILE_BYTES, Attachment, Unreadable
from workers.files.names import ANY_TYPE, KINDS, Kind, clean_name, clean_type, kind_of

MOST_FILES: Final = 100
"""Of one message; what is said of further ones is passed over."""

NO_KEY: Final = "the message has no key for it"
BAD_ID: Final = "its attachment_id or file_id is none"
BAD_ENTRY: Final = "its entry in attachments is malformed"
TOO_LARGE: Final = "its size is none that a file has"


class FileSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says of a file. `attachment`: how it is opened; without one `problem` says why.

    `alt`: what it shows or says, in words of the sender.
    """

    attachment_id: str
    name: str
    type: str
    size: int
    kind: Kind
    alt: str = ""
    attachment: Attachment | None = None
    problem: str = ""


def files_said(payload: Mapping[str, object], attachments: Sequence[Mapping[str, object]]) -> tuple[FileSaid, ...]:
    """Returns the files of a message: those that its payload names, in their order, then what else is attached."""
    entries = _by_id(attachments)
    found: dict[str, FileSaid] = {}
    for attachment_id, about in (*_named(payload, entries), *((one, entries[one]) for one in entries)):
        if attachment_id not in found and len(found) < MOST_FILES:
            found[attachment_id] = _said(attachment_id, about, entries.get(attachment_id) or _whole(about))
    return tuple(found.values())


def file_named(value: object, attachments: Sequence[Mapping[str, object]]) -> FileSaid | None:
    """Returns the file that the value of a form's field names: an entry as in `attachments`, or the id of one there. None where it is no name."""
    about = value if isinstance(value, dict) else {}
    named = about.get("attachment_id") if about else value
    if not isinstance(named, str):
        return None
    return _said(named, {}, _by_id(attachments).get(named) or _whole(about))


def _whole(about: Mapping[str, object]) -> Mapping[str, object] | None:
    """Returns what is said of a file where that is all that stands in `attachments` otherwise."""
    return about if "key" in about else None


def _by_id(attachments: Sequence[Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    entries: dict[str, Mapping[str, object]] = {}
    for entry in attachments[:MOST_FILES]:
        entries.setdefault(str(entry.get("attachment_id", "")), entry)
    return entries


def _named(payload: Mapping[str, object], entries: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yields the ids that a payload names, each with what it says of it."""
    own, artifact = payload.get("attachment_id"), payload.get("artifact")
    if isinstance(own, str) and payload.get("type") in KINDS:
        yield own, {**payload, "kind": payload["type"]}
    inside = artifact.get("payload") if isinstance(artifact, dict) else None
    if not isinstance(inside, dict):
        return
    items, values = inside.get("items"), inside.get("values")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(name := item.get("attachment_id"), str):
            yield name, item
    for value in _flat(values.values()) if isinstance(values, dict) else ():
        if isinstance(value, str) and value in entries:
            yield value, {}
        elif isinstance(value, dict) and isinstance(name := value.get("attachment_id"), str) and name in entries:
            yield name, {}
        elif isinstance(value, dict) and isinstance(name := value.get("attachment_id"), str) and _whole(value):
            yield name, value


def _flat(values: object) -> Iterator[object]:
    for value in values if isinstance(values, Sequence | type({}.values())) else ():
        yield from value if isinstance(value, list) else (value,)


def _said(attachment_id: str, about: Mapping[str, object], entry: Mapping[str, object] | None) -> FileSaid:
    known = {**about, **(entry or {})}
    media_type = clean_type(known.get("mime"))
    kind = next((one for one in KINDS if one == about.get("kind")), None) or kind_of(media_type)
    size = known.get("size")
    alt = next((one for name in ("alt", "transcript") if isinstance(one := about.get(name), str)), "")
    attachment, problem = _opened_by(attachment_id, entry)
    return FileSaid(
        attachment_id=attachment_id,
        name=clean_name(known.get("filename"), kind),
        type=media_type,
        size=size if type(size) is int and 0 <= size <= MAX_FILE_BYTES else 0,
        kind=kind,
        alt=alt,
        attachment=attachment,
        problem=problem,
    )


def _opened_by(attachment_id: str, entry: Mapping[str, object] | None) -> tuple[Attachment | None, str]:
    """Returns how a file is opened; None and why not."""
    if not is_id(attachment_id):
        return None, BAD_ID
    if entry is None:
        return None, NO_KEY
    size = entry.get("size")
    if type(size) is int and not 0 <= size <= MAX_FILE_BYTES:
        return None, TOO_LARGE
    try:
        found = Attachment.from_payload(entry)
    except Unreadable:
        return None, BAD_ENTRY
    return (found, "") if is_id(found.file_id) else (None, BAD_ID)


def payload_of(said: FileSaid, about: Mapping[str, object]) -> Payload:
    """Returns the payload that shows one file that was sent. `about`: what its kind says besides, such as `alt`."""
    if said.kind == "file":
        shown: Payload = {"filename": said.name, "mime": said.type, "size": said.size}
    else:
        shown = dict(about)
    return {"type": said.kind, "attachment_id": said.attachment_id, **shown, **attached([said])}


def attached(files: Sequence[FileSaid]) -> Payload:
    """Returns the part of a payload by which files are opened."""
    return {"attachments": [one.attachment.to_payload() for one in files if one.attachment is not None]}


__all__ = ["ANY_TYPE", "FileSaid", "attached", "file_named", "files_said", "payload_of"]
