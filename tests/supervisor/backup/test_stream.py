"""The inside of a backup: what was written is read again in pieces of any size, whole, and by whom it was signed."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.identity import IdentityKeys, PublicIdentity
from supervisor.backup.errors import BackupDamaged, BackupUnusable, NewerBackup, NoBackup
from supervisor.backup.stream import HEAD, MAGIC, BackupDecoder, FrameWriter

pytestmark = pytest.mark.pure

AUTHOR = IdentityKeys.generate(os.urandom)
FRAMES = (b"first", b"", b"third" * 1000)


def written(frames: tuple[bytes, ...] = FRAMES, author: IdentityKeys = AUTHOR) -> bytes:
    writer = FrameWriter()
    return b"".join([writer.head(), *(writer.frame(frame) for frame in frames), writer.trailer(author)])


def read(data: bytes, size: int = 1 << 20) -> tuple[list[bytes], PublicIdentity]:
    reader = BackupDecoder()
    frames = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
    return frames, reader.finish()


@given(frames=st.lists(st.binary(max_size=50), max_size=8).map(tuple), size=st.integers(1, 60))
def test_what_was_written_is_read_again_in_pieces_of_any_size(frames: tuple[bytes, ...], size: int) -> None:
    assert read(written(frames), size) == (list(frames), AUTHOR.public)


def test_cut_anywhere_it_is_refused_at_its_end() -> None:
    data = written((b"a", b"bc"))
    for size in range(len(data)):
        with pytest.raises(BackupDamaged):
            read(data[:size])


def test_each_changed_bit_is_refused() -> None:
    data = written((b"a", b"bc"))
    for at in range(len(data)):
        with pytest.raises(BackupUnusable):
            read(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize("more", [b"x", b"F\0\0\0\0", written()])
def test_nothing_may_stand_behind_its_end(more: bytes) -> None:
    with pytest.raises(BackupDamaged):
        read(written() + more)


def test_frames_may_not_be_left_out_or_change_places() -> None:
    one, two = b"F\0\0\0\x03one", b"F\0\0\0\x03two"
    data = written((b"one", b"two"))
    assert data.count(one + two) == 1
    for other in (one, two, two + one, one + one + two):
        with pytest.raises(BackupDamaged):
            read(data.replace(one + two, other))


def test_another_agent_that_signs_the_same_is_another_author() -> None:
    other = IdentityKeys.generate(os.urandom)
    assert read(written(author=other))[1] == other.public != AUTHOR.public


def test_a_signature_under_other_keys_than_those_beside_it_is_refused() -> None:
    data, other = written(), IdentityKeys.generate(os.urandom).public.pair
    with pytest.raises(BackupDamaged):
        read(data.replace(AUTHOR.public.pair, other))


def test_of_a_later_version_it_says_which_one_reads_it() -> None:
    with pytest.raises(NewerBackup, match="format 2, and this version of hashee-agent reads up to 1"):
        read(MAGIC + b"\0\x02" + written()[len(HEAD) :])


def test_something_else_is_called_that() -> None:
    with pytest.raises(NoBackup):
        read(b"a text of somebody else, longer than the head")


def test_a_frame_is_not_waited_for_that_is_longer_than_any() -> None:
    reader = BackupDecoder()
    with pytest.raises(BackupDamaged):
        list(reader.feed(HEAD + b"F\xff\xff\xff\xff"))
