"""What a handler sends: `File`, `Image`, `Audio`, `Video`. What can be seen to be wrong with one is refused where it is made."""

from os import PathLike
from pathlib import Path
from typing import ClassVar, Final

from bus.records.records import Payload
from workers.errors import BadFile
from workers.files.names import ANY_TYPE, Kind, clean_name, clean_type, type_of
from workers.files.sources import Content, Source, source_of

MOST_WORDS: Final = 10_000
MOST_THUMBNAIL_CHARACTERS: Final = 32 * 1024
"""It stands in the message itself, which has 64 KiB where it is a card."""

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
)
"""How files begin whose type is not said."""


class File:
    """A file to send: `await chat.reply(File(Path("report.pdf")))`.

    `content`: a Path, bytes, a text, or an async iterator of bytes. `name`: what people see; of a Path its own. `type`: its media type; else
    by the name. At most 100 MB. Raises BadFile, FileTooLarge; nothing is read before it is sent.
    """

    kind: ClassVar[Kind] = "file"

    def __init__(self, content: Content, *, name: str | None = None, type: str | None = None) -> None:  # noqa: A002 - as the platform calls it
        self._content = content
        self.source()
        named = Path(content).name if name is None and isinstance(content, PathLike) else name
        begins = bytes(content[:16]) if isinstance(content, bytes | bytearray) else b""
        found = type or (type_of(named) if named else _type_by(begins))
        self.type: str = clean_type(found)
        if named is None and (isinstance(content, str) or self.type == ANY_TYPE):
            hint = " (for a file on the disk: File(Path(…)))" if isinstance(content, str) else ""
            raise BadFile(f"{self}: say what it is called, name='report.txt'{hint}")
        if type is not None and self.type != type.partition(";")[0].strip().lower():
            raise BadFile(f"{self}: type= is a media type, such as 'image/png'")
        if self.kind != "file" and self.type.partition("/")[0] != self.kind:
            raise BadFile(
                f"{self}: its type is {self.type}: give it a name that says which it is, or type='{self.kind}/…'; anything may go as a File"
            )
        self.name: str = clean_name(named, self.kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def source(self) -> Source:
        """Returns where its content comes from. Raises BadFile, FileTooLarge."""
        return source_of(self._content)

    @property
    def about(self) -> Payload:
        """What its payload says besides."""
        return {}

    @property
    def words(self) -> str | None:
        """What it shows or says, in words."""
        return None


class Image(File):
    """A picture. `alt`: what it shows, in words. `thumbnail`: a small one, as the platform takes it; none is made here."""

    kind = "image"

    def __init__(
        self,
        content: Content,
        *,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - as File
        alt: str | None = None,
        thumbnail: str | None = None,
    ) -> None:
        super().__init__(content, name=name, type=type)
        self._alt = _words("alt", alt)
        self._thumbnail = _thumbnail(thumbnail)

    @property
    def about(self) -> Payload:
        return _given(alt=self._alt, thumbnail=self._thumbnail)

    @property
    def words(self) -> str | None:
        return self._alt


class Audio(File):
    """A sound. `seconds`: how long it is; `transcript`: what is said in it."""

    kind = "audio"

    def __init__(
        self,
        content: Content,
        *,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - as File
        seconds: float | None = None,
        transcript: str | None = None,
    ) -> None:
        super().__init__(content, name=name, type=type)
        self._seconds = _seconds(seconds)
        self._transcript = _words("transcript", transcript)

    @property
    def about(self) -> Payload:
        return _given(duration_s=self._seconds, transcript=self._transcript)

    @property
    def words(self) -> str | None:
        return self._transcript


class Video(File):
    """A film. `seconds`: how long it is. `thumbnail`: a small picture of it, as the platform takes it."""

    kind = "video"

    def __init__(
        self,
        content: Content,
        *,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - as File
        seconds: float | None = None,
        thumbnail: str | None = None,
    ) -> None:
        super().__init__(content, name=name, type=type)
        self._seconds = _seconds(seconds)
        self._thumbnail = _thumbnail(thumbnail)

    @property
    def about(self) -> Payload:
        return _given(duration_s=self._seconds, thumbnail=self._thumbnail)


def _type_by(begins: bytes) -> str:
    if begins[:4] == b"RIFF" and begins[8:12] == b"WEBP":
        return "image/webp"
    return next((found for magic, found in _MAGIC if begins.startswith(magic)), ANY_TYPE)


def _given(**fields: object) -> Payload:
    return {name: value for name, value in fields.items() if value is not None}


def _words(name: str, said: str | None) -> str | None:
    if said is not None and (not isinstance(said, str) or len(said) > MOST_WORDS):
        raise BadFile(f"{name} is a text of at most {MOST_WORDS} characters")
    return said


def _thumbnail(said: str | None) -> str | None:
    if said is not None and (not isinstance(said, str) or len(said) > MOST_THUMBNAIL_CHARACTERS):
        raise BadFile(f"thumbnail is a text of at most {MOST_THUMBNAIL_CHARACTERS} characters")
    return said


def _seconds(said: float | None) -> float | None:
    if said is not None and not (isinstance(said, int | float) and 0 <= said < 1e6):
        raise BadFile("seconds is how long it is, a number from 0 on")
    return said


__all__ = ["Audio", "File", "Image", "Video"]
