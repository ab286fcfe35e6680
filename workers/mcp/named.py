"""Which MCP server an agent uses: what its owner has said of it, checked. Pure, and without the package mcp, which is an extra."""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from workers.errors import BadHandler
from workers.tools.tool import TIMEOUT_SECONDS

MOST_PLACE_CHARACTERS: Final = 200
LONGEST_TIMEOUT_SECONDS: Final = 3600.0
LAUNCHERS: Final = re.compile(r"python[\d.]*|node|npx|uv|uvx|bunx?|deno")
"""The program that a command begins with says nothing about the server then."""

HIDDEN: Final = "…"
SECRET: Final = re.compile(r"token|key|secret|pass|auth|cred|bearer|header", re.IGNORECASE)
URL_SECRETS: Final = re.compile(r"(://)[^/?#]*(?=@)|(?<=\?).*")
"""A URL's user and password, and its query."""

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class NamedServer:
    """A server. `url` or `command`; `place`: where it is, without a secret that may stand in a URL's query or in the command. `allow`: patterns, or fingerprints by name."""

    name: str
    place: str
    url: str = field(default="", repr=False)
    command: tuple[str, ...] = field(default=(), repr=False)
    allow: frozenset[str] | Mapping[str, str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | Path | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    approvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises BadHandler."""
        if not NAME.fullmatch(self.name):
            raise BadHandler(f"MCP(name=…) has 1 to 32 letters, digits, '_' or '-', not {self.name!r}")
        if self.url and (self.env or self.cwd):
            raise BadHandler("MCP(env=…, cwd=…) belong to a command, not to a URL")
        if self.command and self.headers:
            raise BadHandler("MCP(headers=…) belong to a URL, not to a command")
        if not 0 < self.timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
            raise BadHandler(f"MCP(timeout_seconds=…) is more than 0 and at most {LONGEST_TIMEOUT_SECONDS:.0f}")


def place_of(server: tuple[str, ...]) -> tuple[str, tuple[str, ...], str]:
    """Returns URL or command, and the place for people, of what MCP is given. Raises BadHandler."""
    words = [word for word in server if isinstance(word, str)]
    is_url = len(server) == 1 and bool(words) and "://" in words[0].partition(" ")[0]
    if len(server) == 1 and words and not is_url:
        words = shlex.split(words[0])
    if not words or len(words) < len(server) or not all(word and "\0" not in word for word in words):
        raise BadHandler(
            'MCP takes a URL, or a command: MCP("http://127.0.0.1:8000/mcp"), MCP("uvx", "mcp-server-git")'
        )
    if is_url:
        return words[0], (), _place_of_url(words[0])
    return "", tuple(words), " ".join(_without_secrets(words))[:MOST_PLACE_CHARACTERS]


def _without_secrets(words: Sequence[str]) -> Iterator[str]:
    """Yields the words of a command as people may see them: without values of options that are named after secrets, and URLs cut as ours."""
    is_value = False
    for word in words:
        option, equals, _ = word.partition("=")
        is_secret = option.startswith("-") and SECRET.search(option) is not None
        if is_value:
            yield HIDDEN
        elif is_secret and equals:
            yield f"{option}={HIDDEN}"
        elif (
            not option.startswith("-") and equals and SECRET.search(option)
        ):  # NAME=value, as for `env` or `docker run -e`
            yield f"{option}={HIDDEN}"
        else:
            yield URL_SECRETS.sub(rf"\1{HIDDEN}", word) if "://" in word else word
        is_value = is_secret and not equals


def _place_of_url(url: str) -> str:
    """Returns a URL without its query. Raises BadHandler."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise BadHandler(
            "MCP takes an http:// or https:// URL with a host, and no user in it (a token goes into headers=…)"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def name_of(url: str, command: tuple[str, ...]) -> str:
    """Returns what a server is called whose owner gives it no name."""
    if url:
        found = urlsplit(url).netloc
    else:
        words = [
            Path(word).name for word in _without_secrets(command) if not word.startswith("-") and HIDDEN not in word
        ]
        found = next((word for word in words if not LAUNCHERS.fullmatch(word)), words[0] if words else "mcp")
        found = found.removesuffix(".py").removesuffix(".js")
    return re.sub(r"[^A-Za-z0-9_-]", "_", found)[:32]


def allowed(allow: Collection[str] | Mapping[str, str]) -> frozenset[str] | dict[str, str]:
    """Returns what is allowed as it was given. Raises BadHandler."""
    if isinstance(allow, str) or not all(isinstance(name, str) and name for name in allow):
        raise BadHandler('MCP(allow=…) takes names of tools: allow={"search_*"}')
    if not isinstance(allow, Mapping):
        return frozenset(allow)
    for name, fingerprint in allow.items():
        if not isinstance(fingerprint, str) or not FINGERPRINT.fullmatch(fingerprint):
            raise BadHandler(f"MCP(allow=…): the fingerprint of {name} has 64 hex digits, as the log tells it")
    return dict(allow)
