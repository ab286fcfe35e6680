"""What a file is called: never a path, whatever somebody says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.files.names import (
    ANY_TYPE,
    MOST_NAME_BYTES,
    MOST_NAME_CHARACTERS,
    clean_name,
    clean_type,
    kind_of,
    type_of,
)

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("Übersicht – März.md", "Übersicht – März.md"),
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("C:\\Windows\\system32\\cmd.exe", "cmd.exe"),
        ("a/b\\c", "c"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("   ", "file"),
        ("///", "file"),
        (None, "file"),
        (7, "file"),
        ("a\0b.txt", "ab.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("\u200eleft\u200f.txt", "left.txt"),
        ("new\nline\t.txt", "newline.txt"),
        (".bashrc", "bashrc"),
        ("name.", "name"),
        ("name. . .", "name"),
        ("-rf", "_rf"),
        (".-rf", "_rf"),
        ("a<b>c:d|e?.txt", "a_b_c_d_e_.txt"),
        ("CON", "_CON"),
        ("nul.tar.gz", "_nul.tar.gz"),
        ("com1.txt", "_com1.txt"),
        ("console.txt", "console.txt"),
        ("\ud800.txt", "txt"),
        ("e\u0301.txt", "é.txt"),
    ],
)
def test_a_name_is_what_is_left_of_it(said: object, name: str) -> None:
    assert clean_name(said) == name


def test_300_characters_are_cut_and_the_ending_stays() -> None:
    name = clean_name("x" * 300 + ".tar")
    assert name == "x" * (MOST_NAME_CHARACTERS - 4) + ".tar"
    assert clean_name("x" * 300 + "." + "y" * 40).startswith("x" * MOST_NAME_CHARACTERS)
    assert len(clean_name("語" * 300 + ".txt").encode()) <= MOST_NAME_BYTES
    assert clean_name("語" * 300 + ".txt").endswith("語.txt")
    assert clean_name("x" * 10_000_000) == "x" * MOST_NAME_CHARACTERS


@given(st.text(max_size=400))
def test_no_name_leaves_its_folder(said: str) -> None:
    name = clean_name(said)
    assert name == clean_name(name)
    assert name not in ("", ".", "..")
    assert not {"/", "\\", "\0", "\u202e", "\n"} & set(name)
    assert len(name) <= MOST_NAME_CHARACTERS
    assert len(name.encode()) <= MOST_NAME_BYTES


def test_a_type_is_a_media_type_or_any() -> None:
    assert clean_type("Image/PNG; charset=x") == "image/png"
    for wrong in ("png", "image/", "/png", "image/p\r\nng", None, 3, "a/" + "b" * 200, "../x/y"):
        assert clean_type(wrong) == ANY_TYPE
    assert (type_of("a.PNG"), type_of("a"), type_of("a.tar.gz")) == ("image/png", ANY_TYPE, "application/gzip")
    assert [kind_of(one) for one in ("image/png", "audio/ogg", "video/mp4", "text/plain", "imagex/y")] == [
        *("image", "audio", "video", "file", "file")
    ]
