"""The way to the relay: directly or through a proxy, and whose certificates are believed. Found once, at the start.

REST and WebSocket go the same way. No library looks into the environment for it: what it would find there would be another thing
for each of them, or an error in the middle of the work.
"""

import base64
import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bus.settings.reader import Malformed, Setting, SettingsReader
from bus.settings.url_parts import HOST, HOW_TO_ENCODE, LOGIN, PORT, host_of, is_loopback, netloc, port_of
from supervisor.settings.secrets import Secret

NONE = "none"
FORM = f"http://host:port or https://host:port, with user:password@ before the host if it wants that, {HOW_TO_ENCODE}"
PROXY = Setting(
    "HASHEE_PROXY", "http://host:port, https://host:port, or with user:password@ before the host; or none", secret=True
)
WITHOUT = f"{FORM}; no other kind is spoken ({PROXY.name}=none goes without)"
FROM_ENVIRONMENT = tuple(Setting(name, WITHOUT) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"))
NO_PROXY = ("no_proxy", "NO_PROXY")
CERT_FILE = Setting("SSL_CERT_FILE", "the absolute path of a readable file with certificates (PEM)")
CERT_DIR = Setting("SSL_CERT_DIR", "the absolute path of a readable directory with certificates (PEM)")
HTTPS_PORT = 443
DEFAULT_PORTS = {"http": 80, "https": HTTPS_PORT}
USUAL_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where the distributions keep what they trust, for an OpenSSL that was built to look elsewhere."""


@dataclass(frozen=True)
class Proxy:
    """One that opens tunnels (CONNECT). `login` is user:password; `origin`: the setting that named it."""

    scheme: str
    host: str
    port: int
    login: Secret[str] | None = None
    origin: str = PROXY.name

    @property
    def url(self) -> str:
        """Without user and password: for people, too."""
        return f"{self.scheme}://{netloc(self.host, self.port)}"

    @property
    def headers(self) -> dict[str, str]:
        """What the proxy is told besides where to."""
        if self.login is None:
            return {}
        return {"Proxy-Authorization": "Basic " + base64.b64encode(self.login.reveal().encode()).decode()}


@dataclass(frozen=True)
class Way:
    """`tls`: what every certificate on the way is checked with; None where the relay is reached without TLS."""

    proxy: Proxy | None = None
    tls: ssl.SSLContext | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """For people."""
        return "directly" if self.proxy is None else f"through the proxy {self.proxy.url} ({self.proxy.origin})"


DIRECTLY = Way()


def find_way(reader: SettingsReader, base_url: str) -> Way:
    """The way to the relay; what is wrong stands in `reader` then."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxy = _find_proxy(reader, host, parts.port or DEFAULT_PORTS.get(parts.scheme, HTTPS_PORT))
    return Way(proxy, _find_trust(reader) if parts.scheme == "https" else None)


def parse_proxy(text: str, origin: str = PROXY.name) -> Proxy:
    """Raises Malformed."""
    found = re.fullmatch(rf"(?:(https?)://)?{LOGIN}{HOST}{PORT}/?", text)
    if found is None:
        raise Malformed(FORM if origin == PROXY.name else WITHOUT)
    scheme, user, password, host, port = found.groups()
    scheme = scheme or "http"
    try:
        at = host_of(host), port_of(port, DEFAULT_PORTS[scheme])
    except ValueError:
        raise Malformed(FORM if origin == PROXY.name else WITHOUT) from None
    login = None if user is None else Secret(f"{unquote(user)}:{unquote(password or '')}")
    return Proxy(scheme, *at, login, origin)


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY has this host: by its name or a name above it, its address or its network, alone or with the port; `*`: all."""
    return any(_matches(host.lower(), port, entry.strip().lower()) for entry in no_proxy.split(","))


def _matches(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    if found := re.fullmatch(r"(\[.*\]|[^:\[\]]*):([0-9]{1,5})", entry):
        entry = found[1]
        if int(found[2]) != port:
            return False
    entry = entry.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of the two is a name
        name = entry.removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _find_proxy(reader: SettingsReader, host: str, port: int) -> Proxy | None:
    given = reader.optional(PROXY, lambda text: NONE if text == NONE else parse_proxy(text))
    if is_loopback(host):
        return None
    if isinstance(given, Proxy) or reader.is_given(PROXY):
        return given if isinstance(given, Proxy) else None
    if is_exempt(host, port, next(filter(None, map(reader.environ.get, NO_PROXY)), "")):
        return None
    for setting in FROM_ENVIRONMENT:
        if reader.is_given(setting):
            return reader.optional(setting, lambda text, name=setting.name: parse_proxy(text, name))  # type: ignore[misc]
    return None


def _find_trust(reader: SettingsReader) -> ssl.SSLContext:
    """A context that checks certificates and names. Not the library's default one, which would write TLS' keys to $SSLKEYLOGFILE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if reader.is_given(CERT_FILE) or reader.is_given(CERT_DIR):
        reader.optional(CERT_FILE, lambda text: _load_file(context, text))
        reader.optional(CERT_DIR, lambda text: _load_directory(context, text))
        return context
    context.load_default_certs()
    if not context.cert_store_stats()["x509"] and not _has_files(ssl.get_default_verify_paths().capath):
        for bundle in USUAL_BUNDLES:
            if os.access(bundle, os.R_OK):
                context.load_verify_locations(bundle)
                return context
        reader.refuse(CERT_FILE, missing=True)  # nothing on this machine says whom to believe
    return context


def _load_file(context: ssl.SSLContext, text: str) -> bool:
    try:
        context.load_verify_locations(cafile=str(_absolute(text)))
    except (OSError, ssl.SSLError):
        raise Malformed from None
    return True


def _load_directory(context: ssl.SSLContext, text: str) -> bool:
    if not _has_files(str(_absolute(text))):
        raise Malformed
    context.load_verify_locations(capath=text)
    return True


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise Malformed
    return path


def _has_files(directory: str | None) -> bool:
    try:
        return directory is not None and any(Path(directory).iterdir())
    except OSError:
        return False
