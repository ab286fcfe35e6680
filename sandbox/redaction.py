"""What of a conversation may stand in a record: an allow-list. What is not known to be harmless by its form becomes the same made-up word everywhere.

Kept are words of letters, numbers of up to four digits, dates, times and lengths of time. So addresses, links, paths, keys, tokens, numbers of phones, cards and accounts go
without being known one by one. A name is a word like others: it stays, and the record says so in its first lines. So do two words with a slash between.
"""

import re
from itertools import pairwise
from typing import Final

HEAD: Final = """\
# Recorded by `hashee-agent console --record`, for `hashee-agent replay`.
# Kept: words of letters, numbers of up to four digits, dates and times. All else (addresses, links, paths, keys, longer numbers, what stands
# behind words such as "password") was replaced by redacted-a, redacted-b, …: the same by the same.
# NOT removed, since nothing tells them from other words: names of people, places and firms, a password that is a plain word,
# and whatever was said in plain words. Read it before you show it to anybody.
"""

LETTERS: Final = r"[^\W\d_]"
ALLOWED: Final = re.compile(
    "|".join(
        (
            rf"{LETTERS}{{1,24}}(?:['’-]{LETTERS}{{1,24}}){{0,3}}",  # a word, also one with hyphens
            rf"{LETTERS}{{1,24}}/{LETTERS}{{1,24}}",  # such as and/or
            rf"(?!(?:token|secret)_){LETTERS}{{4,16}}(?:_{LETTERS}{{1,12}}){{1,3}}",  # a name of a tool
            rf"(?:{LETTERS}\.){{2,4}}",
            rf"\+?\d{{1,4}}(?:[.,]\d{{1,3}})?(?:{LETTERS}{{1,2}})?[%€$£]?",  # a number, perhaps with a unit: 40, 1,234, 10m
            rf"{LETTERS}\d{{1,3}}",
            r"\d{4}-\d{2}-\d{2}",
            r"\d{1,2}:\d{2}(?::\d{2})?",
        )
    )
)
AROUND: Final = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)
"""The punctuation around a word, which stays."""

WHOLE: Final = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b(?![\w@])")
"""The number of an account (IBAN), in groups or not."""

DIGITS: Final = re.compile(r"\+?\(?\d[\d().,/-]*")
DATE_OR_TIME: Final = re.compile(r"\W*(?:\d{4}-\d{2}-\d{2}|\d{1,2}:\d{2}(?::\d{2})?)\W*")
MOST_DIGITS: Final = 6
"""Of numbers in a row; with more they are a phone's, a card's or an account's."""

TELLS: Final = re.compile(
    r"\W*(?:bearer|basic|passwor[dt]|passwort|passphrase|secret|token|pin|tan|otp|cvc|cvv|apikey|api-key|key)\W*",
    re.IGNORECASE,
)
BETWEEN: Final = re.compile(r"(?:is|ist|code|number|nummer|was|=|:|->)\W*", re.IGNORECASE)


class Redaction:
    """Of one record."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, text: str) -> str:
        """Returns the text without what is not allowed to stay."""
        parts = re.split(r"(\s+)", WHOLE.sub(self._account, text))
        words, between = parts[::2], [*parts[1::2], ""]
        ends = dict(_runs(words))
        told, at, is_secret = list[str](), 0, False
        while at < len(words):
            end = ends.get(at, at + 1)
            word = words[at]
            if at in ends:
                told.append(self._instead("".join(parts[2 * at : 2 * end - 1])))
            elif is_secret and AROUND.sub(r"\2", word) and not BETWEEN.fullmatch(word):
                told.append(self._instead(word))
            else:
                told.append(self._word(word))
            is_secret = bool(TELLS.fullmatch(word)) or (is_secret and bool(BETWEEN.fullmatch(word) or not word))
            told.append(between[end - 1])
            at = end
        return "".join(told)

    def _word(self, word: str) -> str:
        found = AROUND.fullmatch(word)
        if found is None or not found[2]:
            return word
        is_path = "/" in found[1] and "/" in found[2]
        if ALLOWED.fullmatch(found[2]) and "@" not in found[1] and not is_path:
            return word
        return f"{_harmless(found[1])}{self._instead(found[2])}{_harmless(found[3])}"

    def _account(self, found: re.Match[str]) -> str:
        text = found.group()
        return self._instead(text) if sum(map(str.isdigit, text)) > MOST_DIGITS else text

    def _instead(self, text: str) -> str:
        return self._known.setdefault(text.strip(".,;:!?()\"'"), f"redacted-{_letters(len(self._known))}")


def _harmless(around: str) -> str:
    return "".join(one for one in around if one not in "@/=")


def _runs(words: list[str]) -> list[tuple[int, int]]:
    """Returns where numbers stand in a row, from which to which word, that have too many digits together."""
    is_number = [bool(DIGITS.fullmatch(word.rstrip(".,;:!?"))) and not DATE_OR_TIME.fullmatch(word) for word in words]
    edges = [-1, *(at for at, is_one in enumerate(is_number) if not is_one), len(words)]
    runs = [(before + 1, after) for before, after in pairwise(edges) if after - before > 2]
    return [(a, b) for a, b in runs if sum(map(str.isdigit, "".join(words[a:b]))) > MOST_DIGITS]


def _letters(number: int) -> str:
    """Returns a, b, …, z, aa, ab, …"""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
