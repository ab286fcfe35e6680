"""Finds and checks settings.

Precedence: the variable itself, then a file named by `NAME_FILE` (secrets only), then systemd's credential of
that name (secrets only), then aliases, then the default. Empty is unset. Every error is collected, so that
one start names them all; no error ever holds a value, since the wrong variable may well contain the token.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

SECRET_FILE_LIMIT_BYTES = 65536
QUOTES = ("'", '"')
Value = TypeVar("Value")


@dataclass(frozen=True)
class Setting:
    """One name in the environment. `expectation` completes "expected …" in an error and "should be …" in docs/settings.md."""

    name: str
    expectation: str
    default: str | None = None
    secret: bool = False
    aliases: tuple[str, ...] = ()


class SettingsError(Exception):
    """One or more settings are missing, malformed, or name something that cannot be used. Its text is one line and holds no value."""

    def __init__(
        self,
        name: str,
        expectation: str,
        others: tuple[str, ...] = (),
        *,
        missing: bool = False,
        malformed: bool = False,
    ) -> None:
        fault = "is not set" if missing else "is malformed" if malformed else "cannot be used"
        text = f"{name} {fault}: expected {expectation}"
        if others:
            text += f" (and {len(others)} more: {', '.join(others)})"
        super().__init__(text)
        self.name = name
        self.expectation = expectation
        self.others = others
        self.missing = missing
        self.malformed = malformed


class Malformed(Exception):
    """Raised by a parser that cannot read a text. It carries nothing of the text, at most a closer expectation."""

    def __init__(self, expectation: str | None = None) -> None:
        super().__init__(expectation or "malformed")
        self.expectation = expectation


class Unusable(Malformed):
    """Raised by a parser whose text is well-formed, and names something that cannot be used."""


Parser = Callable[[str], Value]


@dataclass
class SettingsReader:
    """Reads settings one after the other; `finish()` raises if any of them was wrong."""

    environ: Mapping[str, str]
    _errors: list[SettingsError] = field(default_factory=list)

    def required(self, setting: Setting, parse: Parser[Value], placeholder: Value) -> Value:
        """Returns the parsed value; if it is missing or wrong `placeholder`, which nobody sees, since `finish` raises."""
        value = self.optional(setting, parse)
        if value is None:
            if not any(error.name.startswith(setting.name) for error in self._errors):
                self.refuse(setting, missing=True)
            return placeholder
        return value

    def optional(self, setting: Setting, parse: Parser[Value]) -> Value | None:
        """Returns the parsed value or that of the default; None if neither is there, or if it is wrong (then `finish` raises)."""
        text = self._find(setting)
        if text is None:
            return None
        try:
            return parse(text)
        except Malformed as problem:
            expectation = problem.expectation or setting.expectation
            if text[:1] == text[-1:] and text[:1] in QUOTES and len(text) > 1:
                expectation += (
                    "; it stands in quotes, which `docker run --env-file` and others leave there: without them"
                )
            is_malformed = not isinstance(problem, Unusable)
            self._errors.append(SettingsError(setting.name, expectation, malformed=is_malformed))
            return None

    def is_given(self, setting: Setting) -> bool:
        """Returns whether it is set anywhere, without opening a file that may hold a secret."""
        names = (setting.name, f"{setting.name}_FILE", *setting.aliases)
        return any(self.environ.get(name, "").strip() for name in names) or self.credential_path(setting) is not None

    def place(self, setting: Setting) -> str:
        """Returns the name, for people, of what gives the setting its value."""
        if self.environ.get(setting.name, "").strip():
            return setting.name
        if self.environ.get(f"{setting.name}_FILE", "").strip():
            return f"{setting.name}_FILE"
        return f"systemd's credential {setting.name.lower()}"

    def refuse(self, setting: Setting, *, missing: bool = False) -> None:
        """Notes that a setting is missing, or cannot be used, for `finish` to raise."""
        self._errors.append(SettingsError(setting.name, setting.expectation, missing=missing))

    def finish(self) -> None:
        if self._errors:
            first, *rest = self._errors
            others = tuple(dict.fromkeys(error.name for error in rest if error.name != first.name))
            raise SettingsError(first.name, first.expectation, others, missing=first.missing, malformed=first.malformed)

    def credential_path(self, setting: Setting) -> Path | None:
        """Returns the path of systemd's credential (LoadCredential=) for a secret, in lower or upper case, if there is one."""
        directory = self.environ.get("CREDENTIALS_DIRECTORY")
        if not directory or not setting.secret:
            return None
        candidates = (Path(directory, setting.name.lower()), Path(directory, setting.name))
        return next((path for path in candidates if path.is_file()), None)

    def _find(self, setting: Setting) -> str | None:
        if text := self.environ.get(setting.name, "").strip():
            return text
        if setting.secret:
            if path := self.environ.get(f"{setting.name}_FILE", "").strip():
                return self._read(f"{setting.name}_FILE", Path(path))
            if credential := self.credential_path(setting):
                return self._read(setting.name, credential)
        for alias in setting.aliases:
            if text := self.environ.get(alias, "").strip():
                return text
        return setting.default

    def _read(self, name: str, path: Path) -> str | None:
        try:
            with path.open("rb") as file:
                text = file.read(SECRET_FILE_LIMIT_BYTES).decode("ascii").strip()
        except OSError as problem:
            self._errors.append(SettingsError(name, f"the path of a file that this user can read ({problem.strerror})"))
            return None
        except UnicodeDecodeError:
            self._errors.append(SettingsError(name, "the path of a file with the secret as text"))
            return None
        if not text:
            self._errors.append(SettingsError(name, "the path of a file that is not empty"))
            return None
        return text


def whole_number(minimum: int, maximum: int) -> Parser[int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
            raise Malformed
        return int(text)

    return parse


def number(minimum: float, maximum: float) -> Parser[float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text) or not minimum <= float(text) <= maximum:
            raise Malformed
        return float(text)

    return parse


def one_of(choices: Iterable[str]) -> Parser[str]:
    allowed = frozenset(choices)

    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise Malformed
        return text.lower()

    return parse


def base64_bytes(lengths: frozenset[int]) -> Parser[bytes]:
    """Returns a parser of standard padded base64 that re-encodes to itself, of one of these lengths in bytes."""

    def parse(text: str) -> bytes:
        try:
            value = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed from None
        if len(value) not in lengths or base64.b64encode(value).decode() != text:
            raise Malformed
        return value

    return parse


def matching(pattern: str) -> Parser[str]:
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise Malformed
        return text

    return parse
