"""What `status` says of what handlers keep: how much there is, and nothing where they keep nothing."""

import pytest

from supervisor.cli.status_page import files_lines, kept_lines, threads_lines

pytestmark = pytest.mark.pure


def test_what_handlers_keep_is_a_line_with_counts_and_sizes() -> None:
    kinds = {"state": {"keys": 12, "about_bytes": 35_000}, "history": {"keys": 10, "about_bytes": 1 << 20}}
    others = {"conv": {"keys": 99, "about_bytes": 1}}
    assert kept_lines({**others, **kinds}) == [
        ("kept", "state of 12 conversations (~34 KiB), history of 10 (~1024 KiB)")
    ]
    assert kept_lines(others) == []


def test_open_questions_are_a_line_and_what_a_former_release_says_is_none() -> None:
    work = {"open_waits": 3, "waits_bytes": 5_000, "journal_bytes": 1}
    assert threads_lines(work) == [("questions", "3 open (5 KiB of 64 MiB), noted by what runs: 1 KiB")]
    assert threads_lines({"open_waits": 0, "waits_bytes": 0, "journal_bytes": 0}) == []
    assert threads_lines({}) == []


def test_files_are_a_line_with_what_failed_and_where_there_were_none_there_is_no_line() -> None:
    files = {
        "transfers": {"in": 2, "out": 1},
        "transferred_bytes": {"in": 3 << 20, "out": 1 << 19},
        "failures": {"busy": 4},
    }
    assert files_lines({"files": files}) == [("files", "2 in (3.0 MiB), 1 out (0.5 MiB), failed calls: 4 busy")]
    assert files_lines({"files": {"transfers": {}, "transferred_bytes": {}, "failures": {}}}) == []
    assert files_lines({}) == []
