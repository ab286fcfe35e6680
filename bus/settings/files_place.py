"""Where the file gate stands: HASHEE_FILES_URL, and whose certificate is believed there."""

import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from bus.settings.reader import Malformed, Setting, SettingsReader, Unusable
from bus.settings.url_parts import HOST, PORT, host_of, netloc, port_of

FILES_URL = Setting(
    "HASHEE_FILES_URL", "unix:///absolute/path, http://host:port, https://host:port, or none (no files here)"
)
FILES_CA = Setting(
    "HASHEE_FILES_CA", "the absolute path of a readable PEM file with the certificates of who signs the file gate's"
)
NONE = "none"
MOST_PATH_BYTES = 107
"""What fits into the address of a Unix socket."""


@dataclass(frozen=True)
class FilesPlace:
    """A Unix socket (`socket_path`), or host and port; with `tls` the certificate is checked by it."""

    socket_path: Path | None = None
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """As a URL, for people."""
        if self.socket_path is not None:
            return f"unix://{self.socket_path}"
        return f"{'http' if self.tls is None else 'https'}://{netloc(self.host, self.port)}"


def files_place_of(reader: SettingsReader) -> FilesPlace | None:
    """Returns where the file gate is; None where HASHEE_FILES_URL is not set, or is `none`. What is wrong is noted in `reader`."""
    authority = reader.optional(FILES_CA, _authority)
    url = reader.optional(FILES_URL, files_url)
    if url is None or url == NONE:
        return None
    if url.startswith("unix:"):
        return FilesPlace(socket_path=Path(_path_of(url)))
    scheme, host, port = _parts(url)
    return FilesPlace(None, host, port, None if scheme == "http" else authority or _whole_store())


def files_url(text: str) -> str:
    """Returns the text itself if it names a place, or is `none`. Raises Malformed."""
    if text == NONE:
        return text
    if text.startswith("unix:"):
        path = _path_of(text)
        if not text.startswith("unix:///") or "\0" in path or len(os.fsencode(path)) > MOST_PATH_BYTES:
            raise Malformed
        return text
    _parts(text)
    return text


def _path_of(url: str) -> str:
    """Returns a socket's path as the system names it: its bytes need be no text."""
    return os.fsdecode(unquote_to_bytes(os.fsencode(url.removeprefix("unix://"))))


def _parts(text: str) -> tuple[str, str, int]:
    found = re.fullmatch(rf"(https?)://{HOST}{PORT}/?", text)
    if found is None or found[3] is None:
        raise Malformed
    try:
        return found[1], host_of(found[2]), port_of(found[3], 0)
    except ValueError:
        raise Malformed from None


def _authority(text: str) -> ssl.SSLContext:
    path = Path(text)
    if not path.is_absolute():
        raise Malformed
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise Unusable("the path of a PEM file with certificates (BEGIN CERTIFICATE) that can be read") from None
    except OSError as problem:
        raise Unusable(f"the path of a file that this user can read ({problem.strerror})") from None
    return context


def _whole_store() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context
