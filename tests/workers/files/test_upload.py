"""Sending a file: once, whole, and as ciphertext only, whatever fails in between and however often it is begun."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from bus.files.calls import Announced, CallFailure
from crypto.files import CHUNK_BYTES, MAX_FILE_BYTES
from tests.workers.files.builders import CONVERSATION, FaultyGate, Uploads, opened
from workers.errors import (
    BadFile,
    FileDailyLimit,
    FileRefused,
    FilesUnreachable,
    FileTooLarge,
    SpoolFull,
    SpoolUnusable,
)
from workers.files.gate import UNANSWERED
from workers.files.outgoing import File
from workers.files.upload import Noted, attachment_of

CONTENT = b"nobody else reads this. " * 60_000  # a chunk and a half
NAMED = {"name": "secret plan.txt"}


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "spool")


def content_of(uploads: Uploads, noted: Noted, file: File) -> bytes:
    """What a person reads."""
    return opened(attachment_of(noted, file), uploads.gate.files[noted.attachment_id])


async def pieces(content: bytes, of: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), of):
        await trio.lowlevel.checkpoint()
        yield content[at : at + of]


def sources(folder: Path, content: bytes) -> Iterator[File]:
    path = folder / "plan.txt"
    path.write_bytes(content)
    yield File(path)
    yield File(content, **NAMED)
    yield File(pieces(content), **NAMED)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, len(CONTENT)])
async def test_a_file_arrives_as_it_is_from_wherever_it_comes(tmp_path: Path, size: int) -> None:
    for number, file in enumerate(sources(tmp_path, CONTENT[:size])):
        uploads = Uploads(tmp_path / f"spool {number}")
        noted = await uploads.send(file)
        assert content_of(uploads, noted, file) == CONTENT[:size]
        assert uploads.gate.calls == ["announce", "put", "confirm", "confirmed"]
        assert uploads.left == []


async def test_a_later_run_uploads_nothing_again(uploads: Uploads) -> None:
    first = await uploads.send(File(CONTENT, **NAMED))
    again = await uploads.send(File(b"other words", **NAMED))
    assert again == first
    assert uploads.gate.calls == ["announce", "put", "confirm", "confirmed"]


class Died(BaseException):
    """The worker is gone at this point; nothing more of it runs."""


@pytest.mark.parametrize(
    ("dies_before", "is_slow", "announced", "put"),
    [
        (
            "sealed",
            True,
            2,
            2,
        ),  # it was put once in vain: its run has ended before it could be noted that it was sealed
        ("put", False, 2, 2),
        ("put", True, 1, 3),
        ("confirmed", False, 1, 1),
        ("confirmed", True, 1, 2),
    ],
)
async def test_a_run_that_died_is_gone_on_with(
    uploads: Uploads,
    autojump_clock: trio.testing.MockClock,
    dies_before: str,
    is_slow: bool,
    *,
    announced: int,
    put: int,
) -> None:
    """Before what was done could be noted. `is_slow`: what is sealed cannot be put at once, and is put again."""
    if is_slow:
        uploads.gate.fail("put", CallFailure.RELAY_SLOW)

    def stage_of(new: Noted) -> str:
        return "confirmed" if new.attachment_id else "put" if new.is_put else "sealed"

    def die(new: Noted) -> None:
        if stage_of(new) == dies_before:
            raise Died

    uploads.before_note = die
    with pytest.raises(Died):
        await uploads.send(File(CONTENT, **NAMED))
    before = uploads.left
    uploads.before_note = lambda _new: None
    file = File(CONTENT, **NAMED)
    noted = await uploads.send(file)
    assert content_of(uploads, noted, file) == CONTENT
    assert uploads.gate.calls.count("announce") == announced
    assert uploads.gate.calls.count("put") == put
    assert len(uploads.gate.files) == 1
    if announced == 1:
        assert len(before) == 1
        assert uploads.left == []


async def test_after_a_death_the_same_bytes_are_sent_although_the_content_is_another(uploads: Uploads) -> None:
    uploads.gate.fail("put", CallFailure.REFUSED, retry=False)
    with pytest.raises(FileRefused):
        await uploads.send(File(CONTENT, **NAMED))
    [spooled] = uploads.left
    sealed = (uploads.folder / spooled).read_bytes()
    noted = await uploads.send(File(b"another run says this", **NAMED))
    assert uploads.gate.files[noted.attachment_id] == sealed


async def test_without_its_spool_it_is_announced_anew_under_a_fresh_key(uploads: Uploads) -> None:
    uploads.gate.fail("put", CallFailure.REFUSED, retry=False)
    with pytest.raises(FileRefused):
        await uploads.send(File(CONTENT, **NAMED))
    [before] = uploads.noted
    (uploads.folder / uploads.left[0]).unlink()
    file = File(CONTENT, **NAMED)
    noted = await uploads.send(file)
    assert content_of(uploads, noted, file) == CONTENT
    assert noted.upload_id != before.upload_id
    assert (noted.key, noted.nonce_prefix) != (before.key, before.nonce_prefix)


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_a_way_elsewhere(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


SPOILED: dict[str, Callable[[Path], object]] = {
    "a byte less": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "nothing": lambda path: path.write_bytes(b""),
    "zeros in its place": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeros at its end": lambda path: path.write_bytes(path.read_bytes()[:-4096] + bytes(4096)),
    "one bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "a folder": into_a_folder,
    "a way elsewhere": into_a_way_elsewhere,
}


@pytest.mark.parametrize("how", SPOILED)
async def test_what_a_power_cut_has_left_of_a_spooled_file_is_never_sent(uploads: Uploads, how: str) -> None:
    uploads.gate.fail("put", CallFailure.REFUSED, retry=False)
    with pytest.raises(FileRefused):
        await uploads.send(File(CONTENT, **NAMED))
    [before] = uploads.noted
    SPOILED[how](uploads.folder / uploads.left[0])
    file = File(CONTENT, **NAMED)
    noted = await uploads.send(file)
    assert content_of(uploads, noted, file) == CONTENT
    assert uploads.gate.calls == ["announce", "put", "announce", "put", "confirm", "confirmed"]
    assert (noted.key, noted.nonce_prefix) != (before.key, before.nonce_prefix)
    assert uploads.spoiled == 1
    assert [one for one in uploads.left if (uploads.folder / one).is_file()] == []


async def test_a_file_whose_rest_was_sent_meanwhile_does_not_count_against_the_quota(uploads: Uploads) -> None:
    """Another upload removes its file while the folder is looked through."""
    uploads.folder.mkdir(parents=True)
    (uploads.folder / "gone.sealed").symlink_to(uploads.folder / "removed")
    file = File(CONTENT, **NAMED)
    assert content_of(uploads, await uploads.send(file), file) == CONTENT


async def test_what_could_not_be_sealed_is_not_counted_against_the_day(uploads: Uploads) -> None:
    await uploads.send(File(CONTENT, **NAMED))
    counted = (uploads.folder / "sent-today.json").read_bytes()
    uploads.noted.clear()
    uploads.gate.fail("announce", CallFailure.DAILY_LIMIT, retry=False)
    with pytest.raises(FileDailyLimit):
        await uploads.send(File(CONTENT, **NAMED))
    uploads.quota_bytes = 1
    with pytest.raises(SpoolFull):
        await uploads.send(File(CONTENT, **NAMED))
    assert (uploads.folder / "sent-today.json").read_bytes() == counted
    uploads.spool.release(MAX_FILE_BYTES, "2020-01-01")
    assert (uploads.folder / "sent-today.json").read_bytes() == counted, "of another day"


class LosesTheDay(FaultyGate):
    """While it is called the file that counts the day becomes one that nobody can write."""

    def __init__(self, day: Path) -> None:
        super().__init__()
        self.day = day

    async def announce(self, conversation_id: str, size: int) -> Announced:
        self.day.unlink()
        self.day.symlink_to(self.day)
        return await super().announce(conversation_id, size)


async def test_what_ended_an_upload_is_told_also_where_the_day_cannot_be_counted_back(uploads: Uploads) -> None:
    uploads.gate = LosesTheDay(uploads.folder / "sent-today.json")
    uploads.gate.fail("announce", CallFailure.BAD_CALL, retry=False)
    with pytest.raises(FileRefused):
        await uploads.send(File(CONTENT, **NAMED))
    with pytest.raises(SpoolUnusable):
        uploads.spool.release(1, "2020-01-01")


@pytest.mark.parametrize("call", ["announce", "put", "confirm", "confirmed"])
async def test_a_gate_that_dies_costs_one_retry(
    uploads: Uploads, call: str, autojump_clock: trio.testing.MockClock
) -> None:
    uploads.gate.fail(call, UNANSWERED)
    file = File(CONTENT, **NAMED)
    noted = await uploads.send(file)
    assert content_of(uploads, noted, file) == CONTENT
    assert len(uploads.gate.files) == 1
    assert len({one.key for one in uploads.noted}) == 1


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("put", CallFailure.UPLOAD_GONE),
        ("confirm", CallFailure.UPLOAD_GONE),
        ("confirm", CallFailure.SHA256_MISMATCH),
        ("put", CallFailure.BAD_TICKET),
    ],
)
async def test_an_upload_that_the_relay_forgets_is_begun_anew(uploads: Uploads, call: str, reason: CallFailure) -> None:
    for file in (File(CONTENT, **NAMED), File(pieces(CONTENT), **NAMED)):
        uploads.noted.clear()
        uploads.gate.fail(call, reason, retry=False)
        noted = await uploads.send(file)
        assert content_of(uploads, noted, file) == CONTENT
        assert len({one.upload_id for one in uploads.noted}) == 2
        assert len({one.key for one in uploads.noted}) == 2
        assert uploads.left == []


async def test_one_that_is_forgotten_each_time_is_given_up(uploads: Uploads) -> None:
    uploads.gate.failures = []
    for _ in range(3):
        uploads.gate.fail("put", CallFailure.UPLOAD_GONE, retry=False)
    with pytest.raises(FileRefused) as refused:
        await uploads.send(File(CONTENT, **NAMED))
    assert refused.value.why == CallFailure.UPLOAD_GONE
    assert uploads.gate.calls == ["announce", "put"] * 3
    assert uploads.left == []


async def test_a_relay_that_is_away_has_the_job_come_again_and_go_on(
    uploads: Uploads, autojump_clock: trio.testing.MockClock
) -> None:
    uploads.gate.fail("put", CallFailure.RELAY_UNREACHABLE, times=1000)
    with pytest.raises(FilesUnreachable) as away:
        await uploads.send(File(CONTENT, **NAMED))
    assert not away.value.is_final
    uploads.gate.failures = []
    file = File(CONTENT, **NAMED)
    assert content_of(uploads, await uploads.send(file), file) == CONTENT
    assert uploads.gate.calls.count("announce") == 1


# Limits


async def test_what_is_over_100_mb_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(FileTooLarge) as refused:
        File(path, type="application/x-large")
    assert (refused.value.size, refused.value.limit) == (MAX_FILE_BYTES + 1, MAX_FILE_BYTES)


async def test_pieces_are_over_the_limit_when_they_are(uploads: Uploads) -> None:
    piece = bytes(8 * CHUNK_BYTES)
    read = 0

    async def many() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            await trio.lowlevel.checkpoint()
            read += 1
            yield piece

    with pytest.raises(FileTooLarge):
        await uploads.send(File(many(), **NAMED))
    assert read == 13
    assert (uploads.gate.calls, uploads.left) == ([], [])


async def test_over_a_gigabyte_a_day_nothing_is_read(uploads: Uploads, tmp_path: Path) -> None:
    await uploads.send(File(CONTENT, **NAMED))
    kept = uploads.folder / "sent-today.json"
    assert f'"bytes":{len(CONTENT)}'.encode() in kept.read_bytes()
    for _ in range(10):
        uploads.spool.reserve(MAX_FILE_BYTES, "2026-11-30")
    with pytest.raises(FileDailyLimit, match="today"):
        uploads.spool.reserve(MAX_FILE_BYTES, "2026-11-30")
    uploads.spool.reserve(MAX_FILE_BYTES, "2026-12-01")


async def test_a_full_quota_names_the_folder_and_the_setting(uploads: Uploads) -> None:
    uploads.quota_bytes = 1000
    with pytest.raises(SpoolFull, match="HASHEE_SPOOL_MB"):
        await uploads.send(File(CONTENT, **NAMED))
    assert uploads.left == []


async def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    uploads = Uploads(tmp_path / "spool")
    spool = uploads.spool
    with spool.new(CONVERSATION, "0123456789abcdef", 10) as file:
        os.dup2(os.open(full, os.O_WRONLY), _descriptor_of(spool.path_of(file.name)))
        with pytest.raises(SpoolFull, match="No space left"):
            await file.write_each([b"sealed"])


def _descriptor_of(path: Path) -> int:
    for one in Path("/proc/self/fd").iterdir():
        if one.is_symlink() and str(one.readlink()) == str(path):
            return int(one.name)
    raise AssertionError


async def test_a_folder_that_is_gone_is_made_again(uploads: Uploads) -> None:
    await uploads.send(File(b"one", **NAMED))
    for one in uploads.folder.iterdir():
        one.unlink()
    uploads.folder.rmdir()
    uploads.noted.clear()
    file = File(b"two", **NAMED)
    assert content_of(uploads, await uploads.send(file), file) == b"two"


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "spool"):
        with pytest.raises(SpoolUnusable, match="HASHEE_SPOOL_DIR"):
            await Uploads(folder).send(File(b"one", **NAMED))


async def test_a_way_to_a_folder_elsewhere_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolUnusable, match="no folder of this user's own"):
        await Uploads(tmp_path / "spool").send(File(b"one", **NAMED))
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_spool_that_others_may_read_is_closed_to_them(uploads: Uploads) -> None:
    uploads.folder.mkdir()
    uploads.folder.chmod(0o755)
    await uploads.send(File(b"one", **NAMED))
    assert stat.S_IMODE(uploads.folder.stat().st_mode) == 0o700


async def test_a_file_that_changes_while_it_is_read_is_not_sent(tmp_path: Path, uploads: Uploads) -> None:
    path = tmp_path / "log.txt"
    for after, says in ((b"longer than it was", "has grown"), (b"s", "has shrunk")):
        path.write_bytes(b"first")
        file = File(path)
        source = file.source()
        path.write_bytes(after)
        file.source = lambda source=source: source  # type: ignore[method-assign, misc]
        with pytest.raises(BadFile, match=f"{says} while it was read"):
            await uploads.send(file)
        assert uploads.left == []
        assert "confirm" not in uploads.gate.calls


# At rest


async def test_on_the_disk_is_ciphertext_alone_for_this_user_alone(uploads: Uploads, tmp_path: Path) -> None:
    """With a positive control: the same search finds the plaintext where it is."""
    needle = b"nobody else reads this"
    (tmp_path / "plan.txt").write_bytes(CONTENT)
    for file in (File(CONTENT, **NAMED), File(tmp_path / "plan.txt"), File(pieces(CONTENT), **NAMED)):
        uploads.noted.clear()
        uploads.gate.fail("put", CallFailure.REFUSED, retry=False)
        with pytest.raises(FileRefused):
            await uploads.send(file)
    assert len(uploads.left) == 3
    assert stat.S_IMODE(uploads.folder.stat().st_mode) == 0o700
    for one in uploads.folder.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
        assert needle not in one.read_bytes()
        assert "plan" not in one.name
        assert "secret" not in one.name
    assert needle in (tmp_path / "plan.txt").read_bytes()


async def test_at_the_next_start_what_an_open_job_has_noted_stays_and_all_else_goes(uploads: Uploads) -> None:
    names = []
    for _ in range(2):
        uploads.noted.clear()
        uploads.gate.fail("put", CallFailure.REFUSED, retry=False)
        with pytest.raises(FileRefused):
            await uploads.send(File(CONTENT, **NAMED))
        names.append(uploads.noted[-1].spool)
    (uploads.folder / "a stranger's.txt").write_bytes(b"")
    asked = []

    async def is_open(conversation_id: str, entry: str) -> bool:
        await trio.lowlevel.checkpoint()
        asked.append((conversation_id, entry))
        return len(asked) == 1

    assert await uploads.spool.sweep(is_open) == 1
    assert asked == [(CONVERSATION, "0123456789abcdef")] * 2
    assert uploads.left == sorted(names)[:1]
    assert (uploads.folder / "a stranger's.txt").exists()


async def test_what_a_process_still_sends_stays(uploads: Uploads) -> None:
    async def never(_conversation_id: str, _entry: str) -> bool:
        return False

    with uploads.spool.new(CONVERSATION, "0123456789abcdef", 10) as file:
        assert await uploads.spool.sweep(never) == 0
        assert uploads.left == [file.name]
    assert await uploads.spool.sweep(never) == 1


async def test_a_spool_that_is_not_there_is_swept(tmp_path: Path) -> None:
    async def never(_conversation_id: str, _entry: str) -> bool:
        return False

    assert await Uploads(tmp_path / "none").spool.sweep(never) == 0
