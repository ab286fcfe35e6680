"""Which characters of a text are taken for others by who reads it: letters of another script, wide or styled forms, signs that look as those of paths and commands.

Pure. A text in another script is left as it is: only a letter that stands among Latin ones, or that nothing shows to be of its own script, is one of
these. What is approved by a person is shown with them as escapes (workers/talk/cards.py).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

LATIN: Final = "LATIN"
LOOKALIKES: Final = {
    "CYRILLIC": frozenset("аеіјорсухѕһԁԛԝӏАВЕЅІЈКМНОРСТУХҺԌԚԜӀ"),
    "GREEK": frozenset("ανικορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳϹ"),
    "ARMENIAN": frozenset("օոսհցյգզքՕՍԼ"),
}
"""Letters that look as Latin ones, by their script."""

LATIN_SCRIPTS: Final = frozenset({"CHEROKEE", "LISU", "DESERET", "COPTIC"})
"""Scripts with many letters that look as Latin ones: each counts, where it stands among these."""

SIGNS: Final = frozenset(
    "\u01c0\u01c3\u0251\u0261"  # click letters as | and !, letters of phonetics as a and g
    "\u02d0\u0589\u05c3\u2236\ua789\ufe55"  # as :
    "\u2010\u2011\u2212\ufe63\u02d7"  # as -
    "\u2024\ufe52\u0660\u06d4"  # as .
    "\u2044\u2215\u29f8\u27cb\u2571"  # as /
    "\u2216\u29f5\u29f9\u2572\ufe68"  # as \
    "\u2217\u204e\u066d\ufe61"  # as *
    "\u2223\u23d0\u05c0\u2758"  # as |
    "\u037e\ufe54"  # as ;
    "\u02b9\u02bc\u055a\ua78c\u2032\u0374"  # as '
    "\u02ba\u2033\u05f4"  # as "
    "\u2039\u276e\u02c2\u1438\u203a\u276f\u02c3\u1433"  # as < and >
    "\u1429\u2795\ufe62"  # as +
    "\u2053\u223c"  # as ~
)
WIDE: Final = ("F",)
MOST_MARKS: Final = 2
"""Above or below one letter, as Vietnamese and Thai have them; more cover what stands around."""

_WORD: Final = re.compile(r"[^\W_]+")
_NAME: Final = re.compile(r"[^\s\"'(){}\[\]<>,;|]+")
"""Words with signs between, such as an address or a path: read as one."""


def lookalikes_in(text: str) -> frozenset[int]:
    """Returns the places of the characters that are taken for others."""
    if text.isascii():
        return frozenset()
    alone = _scripts_that_look_latin(text)
    has_wide_letters = any(_is_wide_letter(one) for one in text)
    found = {
        at
        for at, one in enumerate(text)
        if not one.isascii() and (one in SIGNS or _is_styled(one, has_wide_letters=has_wide_letters))
    }
    for name in _NAME.finditer(text):
        has_latin = any(map(_is_latin, name[0]))
        for word in _WORD.finditer(name[0]):
            foreign = _foreign_in(word[0], alone, is_in_latin_name=has_latin)
            found.update(name.start() + word.start() + at for at in foreign)
    return frozenset(found | set(_marks_too_many(text)))


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _scripts_that_look_latin(text: str) -> frozenset[str]:
    """Returns the scripts of which a text has nothing but letters that look as Latin ones."""
    by_script: dict[str, set[str]] = {script: set() for script in LOOKALIKES}
    for one in set(text):
        if (script := _script(one)) in by_script and one.isalpha():
            by_script[script].add(one)
    return frozenset(script for script, letters in by_script.items() if letters and letters <= LOOKALIKES[script])


def _is_latin(one: str) -> bool:
    return (one.isascii() and one.isalpha()) or _script(one) == LATIN


def _foreign_in(word: str, alone: frozenset[str], *, is_in_latin_name: bool) -> Iterator[int]:
    is_latin = any(map(_is_latin, word))
    if (
        is_in_latin_name and len(word) > 1
    ):  # a whole label of a domain: whatever else the text says, it is read as Latin
        is_latin = is_latin or any(set(word) <= letters for letters in LOOKALIKES.values())
    for at, one in enumerate(word):
        script = "" if one.isascii() else _script(one)
        looks_latin = one in LOOKALIKES.get(script, ())
        if (looks_latin and (is_latin or script in alone)) or (is_latin and script in LATIN_SCRIPTS):
            yield at


def _is_styled(one: str, *, has_wide_letters: bool) -> bool:
    """Returns whether this is another form of an ASCII character: wide, bold, in a circle. Among Chinese and Japanese wide forms are as they should be."""
    plain = unicodedata.normalize("NFKC", one)
    if len(plain) != 1 or not plain.isascii() or not plain.isprintable() or plain == " ":
        return False
    if unicodedata.category(one) == "No":  # such as a square's 2
        return False
    return not (has_wide_letters and unicodedata.east_asian_width(one) in WIDE)


def _is_wide_letter(one: str) -> bool:
    return unicodedata.category(one) == "Lo" and unicodedata.east_asian_width(one) == "W"


def _marks_too_many(text: str) -> Iterator[int]:
    """Yields the places of marks that stand on no letter, or on others."""
    marks, base = 0, ""
    for at, one in enumerate(text):
        kind = unicodedata.category(one)
        if kind not in ("Mn", "Me"):
            marks, base = 0, kind
            continue
        marks += 1
        if marks > MOST_MARKS or kind == "Me" or base[:1] not in ("L", "M"):
            yield at
