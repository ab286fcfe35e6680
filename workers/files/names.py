"""What a file is called and what it is, as others say it. A name is never a path: whatever was sent, it names one file in one folder.

Pure. The rules are those of all file systems at once, so that a name that was saved here can be saved anywhere.
"""

import re
import unicodedata
from pathlib import PurePath
from typing import Final, Literal

Kind = Literal["file", "image", "audio", "video"]
KINDS: Final[tuple[Kind, ...]] = ("file", "image", "audio", "video")

MOST_NAME_CHARACTERS: Final = 120
MOST_NAME_BYTES: Final = 200
"""A file system takes 255 bytes; there is room for what a program puts before or behind a name."""
MOST_ENDING_CHARACTERS: Final = 16
"""An ending that is longer is a part of the name, and is cut like it."""

UNNAMED: Final = "file"
ANY_TYPE: Final = "application/octet-stream"
MOST_TYPE_CHARACTERS: Final = 127

_UNSEEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Categories of characters that nobody sees, that turn others around, or that no font has."""
_NOT_IN_NAMES: Final = re.compile(r'[<>:"|?*]')
_RESERVED: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL
)
_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_TYPES_BY_ENDING: Final = {
    **{"txt": "text/plain", "md": "text/markdown", "csv": "text/csv", "html": "text/html", "json": "application/json"},
    **{"pdf": "application/pdf", "zip": "application/zip", "gz": "application/gzip", "xml": "application/xml"},
    **{"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"},
    **{"svg": "image/svg+xml", "heic": "image/heic", "bmp": "image/bmp"},
    **{
        "mp3": "audio/mpeg",
        "m4a": "audio/mp4",
        "ogg": "audio/ogg",
        "opus": "audio/opus",
        "wav": "audio/wav",
        "flac": "audio/flac",
    },
    **{"mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime", "mkv": "video/x-matroska"},
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
"""Not the machine's own table: the same file has the same type wherever it is sent from."""


def clean_name(said: object, unnamed: str = UNNAMED) -> str:
    """Returns what somebody says that a file is called as a name that is safe in any folder; `unnamed` where nothing is left of it."""
    if not isinstance(said, str):
        return unnamed
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", said[-4096:]))[-1]
    seen = "".join(one for one in last if unicodedata.category(one) not in _UNSEEN)
    name = _NOT_IN_NAMES.sub("_", " ".join(seen.split())).strip(". ")
    if name.startswith("-"):
        name = f"_{name[1:]}"  # no option of a program
    name = _cut(name)
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    return name or unnamed


def _cut(name: str) -> str:
    """Returns the name at its longest; its ending stays."""
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending) > MOST_ENDING_CHARACTERS:
        stem, dot, ending = name, "", ""
    tail = f"{dot}{ending}"
    stem = stem[: MOST_NAME_CHARACTERS - len(tail)]
    while len(stem.encode()) + len(tail.encode()) > MOST_NAME_BYTES:
        stem = stem[:-1]
    return f"{stem.rstrip('. ')}{tail}".strip(". ")


def clean_type(said: object) -> str:
    """Returns a media type as it was said, in lower case and without parameters; ANY_TYPE for what is none."""
    kind = said.partition(";")[0].strip().lower() if isinstance(said, str) else ""
    return kind if len(kind) <= MOST_TYPE_CHARACTERS and _TYPE.fullmatch(kind) else ANY_TYPE


def type_of(name: str) -> str:
    """Returns the media type of a file of this name, by its ending."""
    return _TYPES_BY_ENDING.get(PurePath(name).suffix.removeprefix(".").lower(), ANY_TYPE)


def kind_of(media_type: str) -> Kind:
    """Returns what is shown of a file with this media type: a picture, a sound, a film, or only its name."""
    main = media_type.partition("/")[0]
    return next((kind for kind in KINDS if kind == main), "file")
