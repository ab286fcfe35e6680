"""Whatever stands under the name of a file of ours, reading it waits for nobody."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from host.whole_file import NO_FILE, is_regular, read_whole

pytestmark = pytest.mark.pure

OTHERS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to(os.devnull),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_is_no_file_is_an_error_that_names_it(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(path := tmp_path / "one")
    with pytest.raises(OSError, match="one") as caught:
        read_whole(path, 10)
    assert caught.value.errno in NO_FILE
    assert not is_regular(path)


def test_a_file_is_read_up_to_its_bound_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("one")
    assert read_whole(tmp_path / "link", 4) == b"0123"
    assert is_regular(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "two", 4)
