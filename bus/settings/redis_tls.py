"""Reads the three settings for a Redis' private CA and our client certificate, checks the files, and adds them to its URL as options.

So the URL alone (given to a worker or a command) is enough to connect, and it is parsed in one place (bus/settings/redis_url.py).
"""

import ssl
from pathlib import Path
from urllib.parse import quote

from bus.settings.reader import Malformed, Setting, SettingsReader, Unusable
from bus.settings.redis_url import BadRedisUrl, parse_redis_url

REDIS_CA = Setting(
    "HASHEE_REDIS_CA", "the absolute path of a readable PEM file with the certificates of who signs Redis' certificate"
)
REDIS_CERT = Setting("HASHEE_REDIS_CERT", "the absolute path of a readable PEM file with our certificate for Redis")
REDIS_KEY = Setting(
    "HASHEE_REDIS_KEY", "the absolute path of a readable PEM file with that certificate's key, without a passphrase"
)
OPTIONS = {"ssl_ca_certs": REDIS_CA, "ssl_certfile": REDIS_CERT, "ssl_keyfile": REDIS_KEY}
NEEDS_TLS = "HASHEE_REDIS_URL=rediss://… beside it: without TLS no certificate is asked for"
TWICE = "it in one place: HASHEE_REDIS_URL names another file behind its ?, leave out one of them"
NO_PAIR = "the key that belongs to the certificate in HASHEE_REDIS_CERT, and it is another one"
CERT_WITHOUT_KEY = "HASHEE_REDIS_KEY, its key, beside it"
KEY_WITHOUT_CERT = "HASHEE_REDIS_CERT, its certificate, beside it"


def redis_url_with_tls(reader: SettingsReader, url: str | None) -> str | None:
    """Returns `url` with the three settings as options; faults are noted in `reader`. None, for the private Redis, stays None."""
    files = {option: found for option, setting in OPTIONS.items() if (found := reader.optional(setting, _pem))}
    if files:
        _check_pair(reader, files)
    given = {option for option, setting in OPTIONS.items() if reader.is_given(setting)}
    if not given or url == "":  # the URL itself is missing or wrong, which is said already
        return url
    try:
        tls = None if url is None else parse_redis_url(url).tls
    except BadRedisUrl:
        return url
    if tls is None:
        for option in given:
            reader.refuse(_but(OPTIONS[option], NEEDS_TLS))
        return url
    more = ""
    for option, path in files.items():
        if option not in tls:
            more += f"&{option}={quote(path)}"
        elif tls[option] != path:
            reader.refuse(_but(OPTIONS[option], TWICE))
    assert url is not None  # noqa: S101 - it has TLS
    return url + (more if "?" in url else more.replace("&", "?", 1))


def _pem(text: str) -> str:
    path = Path(text)
    if not path.is_absolute():
        raise Malformed
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise Unusable(f"the path of a file that this user can read ({problem.strerror})") from None
    if b"-----BEGIN " not in content:
        raise Unusable("the path of a PEM file (it begins with -----BEGIN)")
    return text


def _check_pair(reader: SettingsReader, files: dict[str, str]) -> None:
    """Notes in `reader` if OpenSSL cannot load the files together."""
    ca, certificate, key = (files.get(option) for option in OPTIONS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            reader.refuse(
                _but(REDIS_CA, "the path of a PEM file with certificates (BEGIN CERTIFICATE) that can be read")
            )
    if certificate is not None and not reader.is_given(REDIS_KEY):
        reader.refuse(_but(REDIS_CERT, CERT_WITHOUT_KEY))
    if key is not None and not reader.is_given(REDIS_CERT):
        reader.refuse(_but(REDIS_KEY, KEY_WITHOUT_CERT))
    if certificate is None or key is None:
        return
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # or it would ask for one on the terminal
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            reader.refuse(_but(REDIS_KEY, NO_PAIR))
        elif _is_certificate(certificate):
            reader.refuse(REDIS_KEY)
        else:
            reader.refuse(
                _but(REDIS_CERT, "the path of a PEM file with a certificate (BEGIN CERTIFICATE) that can be read")
            )


def _is_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _but(setting: Setting, expectation: str) -> Setting:
    return Setting(setting.name, expectation)
