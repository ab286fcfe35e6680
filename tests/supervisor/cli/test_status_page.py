"""What `status` says of what handlers keep: how much there is, and nothing where they keep nothing."""

import pytest

from supervisor.cli.status_page import _kept

pytestmark = pytest.mark.pure


def test_what_handlers_keep_is_a_line_with_counts_and_sizes() -> None:
    kinds = {"state": {"keys": 12, "about_bytes": 35_000}, "history": {"keys": 10, "about_bytes": 1 << 20}}
    others = {"conv": {"keys": 99, "about_bytes": 1}}
    assert _kept({**others, **kinds}) == [("kept", "state of 12 conversations (~34 KiB), history of 10 (~1024 KiB)")]
    assert _kept(others) == []
