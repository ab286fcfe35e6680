"""What stays in a record of a conversation, and what does not."""

import pytest

from sandbox.redaction import HEAD, Redaction
from sandbox.script_lines import steps_in

pytestmark = pytest.mark.pure

A = "redacted-a"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to ann.lee+x@mail.example.org!", f"write to {A}!"),
        ("call +49 171 2345678.", f"call {A}"),
        ("call (030) 123 45 67 now", f"call {A} now"),
        ("or 030/1234567, or", f"or {A}, or"),
        ("IBAN DE89 3704 0044 0532 0130 00!", f"IBAN {A}!"),
        ("gb29nwbk60161331926819", A),
        ("GB29 NWBK 6016 1331 9268 19 it is", f"{A} it is"),
        ("card 4111 1111 1111 1111 valid 12/27", f"card {A} valid redacted-b"),
        ("card 4111-1111-1111-1111", f"card {A}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_x", A),
        ("Authorization: Bearer abcdefghij", f"Authorization: Bearer {A}"),
        ("see https://ann:hunter@example.com/x?y=1", f"see {A}"),
        ("postgres://u:p@h/db", A),
        ("10.0.0.1 or fe80::1ff or 192.168.1.10:8080", f"{A} or redacted-b or redacted-c"),
        ("2001:db8::8a2e:370:7334", A),
        ("aa:bb:cc:dd:ee:01", A),
        ("my key is sk-12345678abcdef", f"my key is {A}"),
        ("AKIAIOSFODNN7EXAMPLE", A),
        ("ghp_abcdefghijklmnop", A),
        ("hsk_live_abcdefgh", A),
        ("the password is hunter!", f"the password is {A}"),
        ("password: hunter", f"password: {A}"),
        ("api_key=abc", A),
        ("number 123456", f"number {A}"),
        ("/file /home/ann/x.pdf", f"/file {A}"),
        ("example.com", A),
        ("DE89370400440532013000,john@example.org", "redacted-b"),
        ("redacted-x:sk-live-123", A),
        ("/home/ann/letters", A),
        ("~/private/notes", f"~{A}"),
        ("home/ann/letters", A),
        ("abcdefghijklmnopqrstuvwxyzabcdef", A),
    ],
)
def test_what_is_not_known_to_be_harmless_is_replaced(text: str, kept: str) -> None:
    assert Redaction().of(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        *("You said: hello (message 1)", "/book", "/time +10m", "/as ben", "~ not for it", "//state", "#1", "-", ""),
        *("[approval] Ann on 2026-12-01?", "  #1 approve  #2 reject", "⏰ drink tea", "at 10:30, 1,234 € or 40 %"),
        *("options: {'soup': 0, 'stew': 1}", "Ann's well-known café", "**bold** `delete_files`", "12 eggs, 3 apples"),
        "Guests (number, or nothing)",
    ],
)
def test_what_a_conversation_is_played_again_with_stays(text: str) -> None:
    assert Redaction().of(text) == text


def test_the_same_is_the_same_word_however_many_there_are() -> None:
    redaction = Redaction()
    assert redaction.of("a@b.org c@d.org a@b.org") == "redacted-a redacted-b redacted-a"
    told = [redaction.of(f"x{number}@b.org") for number in range(1000)]
    assert len(set(told)) == 1000
    assert redaction.of("x0@b.org") == told[0]
    assert [redaction.of(one) for one in told] == told


def test_the_head_says_what_stays_and_is_no_line_of_the_script() -> None:
    assert "NOT removed" in HEAD
    assert steps_in(HEAD.splitlines()) == []
