"""What `hashee-agent send` makes of the text on its command line, whatever the locale has made of it."""

import pytest

from supervisor.cli.outside.send import as_utf8

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("schön", "schön"),
        ("schön".encode().decode("ascii", "surrogateescape"), "schön"),
        ("b\udcff", "b\udcff"),
        ("ä\udcc3", "ä\udcc3"),
        ("", ""),
    ],
)
def test_utf_8_that_the_locale_could_not_read_is_read_and_all_else_is_left(argument: str, text: str) -> None:
    assert as_utf8(argument) == text
