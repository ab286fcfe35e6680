"""What a payload says of its files: each for itself, in bounds, and what is wrong with one is that file's own problem."""

import pytest

from crypto.files import Attachment, FileKey
from workers.files.said import BAD_ENTRY, BAD_ID, MOST_FILES, NO_KEY, TOO_LARGE, files_said

pytestmark = pytest.mark.pure


def entry(attachment_id: str = "file-1") -> dict[str, object]:
    """How a file is opened, as a client says it."""
    key = FileKey.generate(bytes)
    return Attachment(attachment_id, "upload-1", key, 5, "0" * 64, "text/plain", "a.txt").to_payload()


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ({}, ""),
        ({"attachment_id": "../keys/users/U/devices"}, BAD_ID),
        ({"file_id": "../x"}, BAD_ID),
        ({"file_id": ""}, BAD_ID),
        ({"size": 2**40}, TOO_LARGE),
        ({"size": -1}, TOO_LARGE),
        ({"size": "5"}, BAD_ENTRY),
        ({"key": "AAAA"}, BAD_ENTRY),
        ({"sha256": "0" * 63 + "G"}, BAD_ENTRY),
    ],
)
def test_a_file_that_cannot_be_opened_says_why(others: dict[str, object], problem: str) -> None:
    [said, other] = files_said({"type": "text", "text": "look"}, [{**entry(), **others}, entry("file-2")])
    assert (said.problem, said.attachment is None) == (problem, bool(problem))
    assert other.problem == "", "the other one can be read"


def test_a_file_without_an_entry_has_no_key() -> None:
    [said] = files_said({"type": "file", "attachment_id": "file-1", "filename": "a.txt", "mime": "text/plain"}, [])
    assert (said.name, said.problem, said.size) == ("a.txt", NO_KEY, 0)


def test_of_one_message_so_many_are_read() -> None:
    """Whatever it names: in its payload, and beside it."""
    items = [{"attachment_id": f"file-{number}", "kind": "image"} for number in range(2 * MOST_FILES)]
    artifact = {"subtype": "media", "payload": {"items": [*items, *items]}}
    attachments = [entry(f"file-{number}") for number in range(2 * MOST_FILES)]
    for said in (
        files_said({"type": "artifact", "artifact": artifact}, attachments),
        files_said({"type": "text"}, [*attachments, *attachments]),
    ):
        assert [one.attachment_id for one in said] == [f"file-{number}" for number in range(MOST_FILES)]
