"""Tickets, the callers' key, and the numbers: what outlives a gate, and what is none of it."""

import stat
from pathlib import Path

import pytest

from bus.files.calls import MAX_TICKET_CHARACTERS, CallFailure
from bus.files.proofs import FilesKey
from supervisor.files.counts import CountsFile, FileCounts
from supervisor.files.failures import CallFailed
from supervisor.files.key_file import FILES_KEY_FILE, KnownKey, write_files_key
from supervisor.files.tickets import Ticket, Tickets
from supervisor.settings.secrets import Secret

pytestmark = pytest.mark.pure

TICKET = Ticket("u-1", 1000, "/agents/A/files/u-1/upload")


def refusal(tickets: Tickets, text: str, upload_id: str = "u-1") -> CallFailure:
    with pytest.raises(CallFailed) as failed:
        tickets.open(text, upload_id)
    return failed.value.failure


def test_another_gate_of_the_same_agent_opens_a_ticket_and_one_of_another_token_does_not() -> None:
    text = Tickets(Secret("hsk_a")).make(TICKET)
    assert Tickets(Secret("hsk_a")).open(text, "u-1") == TICKET
    assert refusal(Tickets(Secret("hsk_b")), text) is CallFailure.BAD_TICKET
    assert "hsk" not in repr(Tickets(Secret("hsk_a")))


def test_a_ticket_is_for_its_upload_and_no_character_of_it_can_be_another() -> None:
    tickets = Tickets(Secret("hsk_a"))
    text = tickets.make(TICKET)
    assert refusal(tickets, text, "u-2") is CallFailure.BAD_TICKET
    for at in range(0, len(text), 7):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert refusal(tickets, changed) is CallFailure.BAD_TICKET
    for other in ("", "x", "ü", text[:-4], text + "AAAA"):
        assert refusal(tickets, other) is CallFailure.BAD_TICKET


def test_a_presigned_address_that_fits_no_ticket_is_refused() -> None:
    tickets = Tickets(Secret("hsk_a"))
    assert len(tickets.make(Ticket("u", 1, "https://h/" + "x" * 4000))) <= MAX_TICKET_CHARACTERS
    with pytest.raises(CallFailed) as failed:
        tickets.make(Ticket("u", 1, "https://h/" + "x" * 5000))
    assert failed.value.failure is CallFailure.BAD_UPLOAD_URL


def test_the_callers_key_is_read_when_it_comes_and_again_when_it_has_changed(tmp_path: Path) -> None:
    known = KnownKey(None, tmp_path / FILES_KEY_FILE)
    assert known.current() is None
    for secret in (b"a" * 32, b"b" * 32):
        write_files_key(tmp_path, FilesKey.of_bus_key(secret))
        found = known.current()
        assert found is not None
        assert found.export() == FilesKey.of_bus_key(secret).export()
    assert stat.S_IMODE((tmp_path / FILES_KEY_FILE).stat().st_mode) == 0o600
    (tmp_path / FILES_KEY_FILE).write_bytes(b"half")
    assert known.current() is found
    (tmp_path / FILES_KEY_FILE).unlink()
    assert known.current() is found


def test_a_key_that_was_given_is_not_looked_for(tmp_path: Path) -> None:
    given = FilesKey(bytes(32))
    write_files_key(tmp_path, FilesKey.of_bus_key(bytes(32)))
    assert KnownKey(given, tmp_path / FILES_KEY_FILE).current() is given


def test_the_numbers_outlive_a_gate_and_begin_anew_where_they_cannot_be_read(tmp_path: Path) -> None:
    counts, file = FileCounts(), CountsFile(tmp_path)
    counts.transferred("out", 5)
    counts.failed(CallFailure.BUSY)
    file.write(counts)
    assert CountsFile(tmp_path).read() == counts
    next(tmp_path.iterdir()).write_bytes(b"{")
    assert CountsFile(tmp_path).read() == FileCounts()
