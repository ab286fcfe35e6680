"""Reading what somebody sent: whole and as it was sent, or not at all; after a cut it goes on where it broke off."""

import msgspec
import pytest
import trio

from bus.files.calls import CallFailure
from crypto.files import CHUNK_BYTES, Attachment
from tests.workers.files.builders import CONVERSATION, FaultyGate, read_through, sealed
from workers.errors import FileBroken, FileError, FileGone, FileRefused, FilesOff, FilesUnreachable
from workers.files.gate import UNANSWERED

CONTENT = bytes(range(256)) * (10 * 1024)  # two chunks and a half


def gate_with(content: bytes = CONTENT) -> tuple[FaultyGate, Attachment]:
    gate = FaultyGate()
    attachment, found = sealed(content)
    gate.files[attachment.attachment_id] = found
    return gate, attachment


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(CONTENT)])
async def test_a_file_comes_as_it_was_sent(size: int) -> None:
    gate, attachment = gate_with(CONTENT[:size])
    assert await read_through(gate, attachment) == CONTENT[:size]
    assert gate.calls == ["get"]


async def test_a_cut_download_goes_on_where_it_broke_off(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.cuts = [0, 100_000, 1_500_000, 0]
    assert await read_through(gate, attachment) == CONTENT
    assert gate.asked_from == [0, 0, 100_000, 1_600_000, 1_600_000]


async def test_without_ranges_it_begins_anew_and_nothing_comes_twice(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.offers_ranges = False
    gate.cuts = [1_234_567, 100, 2_000_000]
    assert await read_through(gate, attachment) == CONTENT
    assert gate.asked_from == [0, 0, 0, 0]


async def test_a_gate_that_dies_meanwhile_costs_one_retry(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.fail("get", UNANSWERED)
    assert await read_through(gate, attachment) == CONTENT
    assert gate.calls == ["get", "get"]


async def test_a_gate_that_does_not_come_back_is_given_up_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.fail("get", CallFailure.RELAY_FAILED, times=1000)
    began = trio.current_time()
    with pytest.raises(FilesUnreachable, match="relay_failed"):
        await read_through(gate, attachment)
    assert 50 <= trio.current_time() - began <= 60


async def test_a_cut_after_each_bit_is_no_reason_to_give_up(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.cuts = [10_000] * 1000
    assert await read_through(gate, attachment) == CONTENT
    assert len(gate.asked_from) > 200


async def test_it_waits_as_long_as_the_relay_says(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.fail("get", CallFailure.RELAY_LIMIT, times=3, retry_after=100.0)
    began = trio.current_time()
    assert await read_through(gate, attachment) == CONTENT
    assert trio.current_time() - began >= 300


@pytest.mark.parametrize(
    ("reason", "error", "word"),
    [
        (CallFailure.NO_SUCH_FILE, FileGone, "file_gone"),
        (CallFailure.WRONG_SIZE, FileBroken, "file_broken"),
        (CallFailure.BAD_PROOF, FilesOff, "files_off"),
        (CallFailure.STALE_PROOF, FilesOff, "files_off"),
        (CallFailure.BAD_UPLOAD_URL, FileRefused, "file_refused"),
        (CallFailure.REFUSED, FileRefused, "file_refused"),
        (CallFailure.BAD_CALL, FileRefused, "file_refused"),
    ],
)
async def test_what_does_not_get_better_is_not_tried_again(
    reason: CallFailure, error: type[FileError], word: str
) -> None:
    gate, attachment = gate_with()
    gate.fail("get", reason, retry=False)
    with pytest.raises(error) as refused:
        await read_through(gate, attachment)
    assert (refused.value.reason, gate.calls) == (word, ["get"])


# What is no such file


async def refused(gate: FaultyGate, attachment: Attachment, conversation_id: str = CONVERSATION) -> str:
    with pytest.raises(FileBroken) as broken:
        await read_through(gate, attachment, conversation_id)
    assert broken.value.is_final
    return broken.value.why


async def test_a_wrong_hash_is_found() -> None:
    gate, attachment = gate_with()
    assert await refused(gate, msgspec.structs.replace(attachment, sha256="0" * 64)) == "changed"


async def test_a_changed_byte_is_found() -> None:
    gate, attachment = gate_with()
    found = gate.files[attachment.attachment_id]
    gate.files[attachment.attachment_id] = found[:1000] + bytes([found[1000] ^ 1]) + found[1001:]
    assert await refused(gate, attachment) == "changed"


async def test_a_file_of_another_conversation_is_none_of_this_one() -> None:
    gate, attachment = gate_with()
    assert await refused(gate, attachment, "another conversation") == "changed"


async def test_a_file_of_another_upload_is_not_this_one() -> None:
    gate, attachment = gate_with()
    assert await refused(gate, msgspec.structs.replace(attachment, file_id="upload-y")) == "changed"


async def test_what_stands_behind_a_file_is_found() -> None:
    gate, attachment = gate_with()
    gate.behind = b"more"
    assert await refused(gate, attachment) == "size"


@pytest.mark.parametrize("size", [1024, 1, 0])
async def test_a_size_that_lies_is_found_before_more_is_read_than_was_said(size: int) -> None:
    gate, attachment = gate_with(bytes(3 * CHUNK_BYTES))  # a bomb that is announced as 1 KB
    assert await refused(gate, msgspec.structs.replace(attachment, size=size)) == "size"
    assert gate.asked_from == [0]


async def test_a_file_that_is_shorter_than_was_said_is_found(autojump_clock: trio.testing.MockClock) -> None:
    gate, attachment = gate_with()
    gate.files[attachment.attachment_id] = gate.files[attachment.attachment_id][:-1]
    with pytest.raises(FilesUnreachable):
        await read_through(gate, attachment)
