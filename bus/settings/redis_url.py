"""Parses HASHEE_REDIS_URL, once for all: everything that connects to Redis or shows its address uses this result.

It is strict, since a URL is a secret: a password with a character that a URL cannot hold would be parsed as a host, and shown as
one. So whatever is ambiguous is refused, and no error holds a part of the text.
"""

import enum
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, unquote_to_bytes

from bus.settings.url_parts import HOST, HOW_TO_ENCODE, LOGIN, PORT, TEXT, host_of, netloc, port_of

DEFAULT_PORT = 6379
MOST_DATABASE = 65_535
FORM = "redis://host:port/db, rediss://…, unix:///path, redis+sentinel://host:port,host:port/name or redis+cluster://host:port,host:port"
DEFAULT_SENTINEL_PORT = 26_379
SENTINEL_LOGIN = frozenset({"sentinel_username", "sentinel_password"})
ENCODED = f"redis://user:password@host:port/db, {HOW_TO_ENCODE}"
OPTIONS = (
    "redis://host:port/db or unix:///path with no other options behind a ? than db, username and password, and with "
    "rediss:// ssl_cert_reqs (required, optional or none), ssl_check_hostname (true or false), ssl_ca_certs, ssl_certfile "
    "and ssl_keyfile (absolute paths of readable files)"
)
CERTIFICATE_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
CREDENTIALS = frozenset({"username", "password"})
CHOICES: Mapping[str, Mapping[str, "str | bool"]] = MappingProxyType(
    {
        "ssl_cert_reqs": {"required": "required", "optional": "optional", "none": "none"},
        "ssl_check_hostname": {"true": True, "false": False},
    }
)
_NETWORK = re.compile(rf"(rediss?)://{LOGIN}{HOST}{PORT}(?:/([0-9]{{0,5}}))?(\?.*)?")
_ONE = HOST.replace("(", "(?:", 1) + PORT.replace("([", "(?:[")
_MANY = re.compile(
    rf"(rediss?)\+(sentinel|cluster)://{LOGIN}({_ONE}(?:,{_ONE}){{0,15}})(?:/([A-Za-z0-9._-]{{1,100}})?(?:/([0-9]{{1,5}}))?)?(\?.*)?"
)
_LOCAL = re.compile(rf"unix://{LOGIN}(/(?:{TEXT}|[:@/])*)(\?.*)?")


class AddressKind(enum.Enum):
    """What tells the address of Redis: the URL itself, sentinels, or the nodes of a cluster."""

    FIXED = "fixed"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class BadRedisUrl(ValueError):
    """The text says what form is expected, and nothing of what was given."""


@dataclass(frozen=True)
class RedisAddress:
    """A parsed URL. `path` is a Unix socket's, empty for a network address. `tls`: the options given for TLS, None without TLS.

    `host`, `port` and `further_hosts` are Redis, the sentinels of the master `service`, or nodes of a cluster, as `kind` says.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    database: int = 0
    tls: Mapping[str, str | bool] | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    kind: AddressKind = AddressKind.FIXED
    further_hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """Returns the address for people, without user and password."""
        if self.path:
            return self.path
        hosts = ",".join(netloc(*one) for one in ((self.host, self.port), *self.further_hosts))
        return f"{self.service} by sentinel {hosts}" if self.kind is AddressKind.SENTINEL else hosts

    @property
    def described(self) -> str:
        """Returns the address for people, and how the two sides authenticate by TLS."""
        if self.tls is None:
            return f"{self.shown}, without TLS"
        how = (
            "its certificate is not checked"
            if self.tls.get("ssl_cert_reqs") == "none"
            else "its certificate is checked"
        )
        if ca := self.tls.get("ssl_ca_certs"):
            how += f" with {ca}"
        if certificate := self.tls.get("ssl_certfile"):
            how += f", ours is {certificate}"
        return f"{self.shown}, with TLS: {how}"


def parse_redis_url(url: str) -> RedisAddress:
    """Parses a URL; raises BadRedisUrl."""
    if found := _NETWORK.fullmatch(url):
        scheme, username, password, host, port, database, query = found.groups()
        try:
            at = host_of(host), port_of(port, DEFAULT_PORT)
        except ValueError:
            raise BadRedisUrl(FORM) from None
        options = _options(query, with_tls=scheme == "rediss")
        user, secret = _login(username, password, options)
        return RedisAddress(
            host=at[0],
            port=at[1],
            tls=_tls(scheme, options),
            database=_database(database, options),
            username=user,
            password=secret,
        )
    if found := _MANY.fullmatch(url):
        return _of_many(found.groups())
    if found := _LOCAL.fullmatch(url):
        username, password, path, query = found.groups()
        options = _options(query, with_tls=False)
        user, secret = _login(username, password, options)
        return RedisAddress(
            path=os.fsdecode(unquote_to_bytes(path)), database=_database(None, options), username=user, password=secret
        )
    raise BadRedisUrl(ENCODED if url.startswith(("redis:", "rediss:")) else FORM)


def _tls(scheme: str | None, options: Mapping[str, str | bool]) -> dict[str, str | bool] | None:
    if scheme != "rediss":
        return None
    return {name: value for name, value in options.items() if name.startswith("ssl_")}


def _of_many(groups: Sequence[str | None]) -> RedisAddress:
    scheme, kind, username, password, hosts, service, database, query = groups
    assert hosts is not None  # noqa: S101 - the whole has matched
    is_sentinel = kind == "sentinel"
    options = _options(query, with_tls=scheme == "rediss", with_sentinel=is_sentinel)
    user, secret = _login(username, password, options)
    number = _database(database, options)
    if (service is None) is is_sentinel or (number and not is_sentinel):
        raise BadRedisUrl(FORM)  # a cluster has neither names nor databases
    try:
        first, *further = [
            _host_and_port(one, DEFAULT_SENTINEL_PORT if is_sentinel else DEFAULT_PORT) for one in hosts.split(",")
        ]
    except ValueError:
        raise BadRedisUrl(FORM) from None
    sentinel = {name: str(options[name]) for name in SENTINEL_LOGIN & options.keys()}
    return RedisAddress(
        host=first[0],
        port=first[1],
        tls=_tls(scheme, options),
        database=number,
        username=user,
        password=secret,
        kind=AddressKind(kind),
        further_hosts=tuple(further),
        service=service or "",
        sentinel_username=sentinel.get("sentinel_username"),
        sentinel_password=sentinel.get("sentinel_password"),
    )


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(HOST + PORT, text)
    assert found is not None  # noqa: S101 - the whole has matched
    return host_of(found[1]), port_of(found[2], default)


def _database(in_path: str | None, options: Mapping[str, str | bool]) -> int:
    if in_path and "db" in options:
        raise BadRedisUrl(OPTIONS)
    text = in_path or str(options.get("db", "0"))
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > MOST_DATABASE:
        raise BadRedisUrl(FORM)
    return int(text)


def _login(
    username: str | None, password: str | None, options: Mapping[str, str | bool]
) -> tuple[str | None, str | None]:
    given = {"username": username and unquote(username), "password": password and unquote(password)}
    for name in CREDENTIALS & options.keys():
        if given[name]:
            raise BadRedisUrl(OPTIONS)
        given[name] = str(options[name])
    return given["username"] or None, given["password"] or None


def _options(query: str | None, *, with_tls: bool, with_sentinel: bool = False) -> dict[str, str | bool]:
    options: dict[str, str | bool] = {}
    for part in query[1:].split("&") if query else ():
        name, equals, raw = part.partition("=")
        if not equals or name in options or not re.fullmatch(rf"(?:{TEXT}|[:@/])+", raw):
            raise BadRedisUrl(OPTIONS)
        value = unquote(raw)
        options[name] = value if with_sentinel and name in SENTINEL_LOGIN else _option(name, value, with_tls=with_tls)
    return options


def _option(name: str, value: str, *, with_tls: bool) -> str | bool:
    if name in CREDENTIALS or name == "db":
        return value
    if with_tls and value in CHOICES.get(name, {}):
        return CHOICES[name][value]
    if with_tls and name in CERTIFICATE_FILES and Path(value).is_absolute() and _is_readable(Path(value)):
        return value
    raise BadRedisUrl(OPTIONS)


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False
