"""What went wrong outside is said in the system's words, with what helps."""

import errno
import os

import pytest

from host.reasons import REMEDIES, fault_of_file

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_a_fault_of_a_file_names_it_and_the_reason_and_what_helps(number: int) -> None:
    said = fault_of_file(OSError(number, os.strerror(number), "/some/file"))
    assert said == f"/some/file: {os.strerror(number)}; {REMEDIES[number]}"


def test_of_another_one_there_is_the_reason_alone() -> None:
    assert fault_of_file(OSError(errno.EIO, "Input/output error", "/f")) == "/f: Input/output error"
    assert fault_of_file(OSError(errno.EIO, "Input/output error"), "head") == "head: Input/output error"
    assert fault_of_file(TimeoutError()) == "a file: TimeoutError"
