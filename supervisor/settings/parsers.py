"""What a setting's text may look like, a parser each; a refusal carries nothing of the text (bus/settings/reader.py)."""

import re

from nacl.bindings import crypto_sign_seed_keypair

from bus.settings import shared as shared_settings
from bus.settings.reader import Malformed, Parser, SettingsReader, base64_bytes, matching, whole_number
from bus.settings.url_parts import HOST, PORT, TEXT, host_of, is_loopback, port_of
from supervisor.settings.bounds import Bounds
from supervisor.settings.secrets import Secret

MIB = 1 << 20
MOST_MIB = 1 << 20
TRUSTABLE = frozenset({"eviction", "persistence"})


def bounds(text: str) -> Bounds:
    try:
        return Bounds.parse(text)
    except ValueError:
        raise Malformed from None


def memory_bytes(text: str) -> tuple[int, int]:
    """Soft and hard limit: SOFT:HARD in MiB; SOFT alone has no hard one."""
    soft, colon, hard = text.partition(":")
    parse = whole_number(0, MOST_MIB)
    soft_mib, hard_mib = parse(soft), parse(hard) if colon else 0
    if colon and soft_mib > hard_mib > 0:
        raise Malformed
    return soft_mib * MIB, hard_mib * MIB


def mebibytes(least: int) -> Parser[int]:
    """A parser of MiB, from `least` on, that gives bytes."""

    def parse(text: str) -> int:
        return whole_number(least, MOST_MIB)(text) * MIB

    return parse


def agent_token(text: str) -> Secret[str]:
    return Secret(matching(r"hsk_[0-9A-Za-z]{40}")(text))


def secret_bytes(text: str) -> Secret[bytes]:
    return Secret(base64_bytes(frozenset({32}))(text))


def ed25519_seed(text: str) -> Secret[bytes]:
    value = base64_bytes(frozenset({32, 64}))(text)
    seed = value[:32]
    if len(value) == 64 and crypto_sign_seed_keypair(seed)[0] != value[32:]:
        raise Malformed("base64 of 64 bytes whose last 32 are the public key of the first 32")
    return Secret(seed)


def given_redis_url(reader: SettingsReader) -> Secret[str] | None:
    """With its certificates; None where the private Redis is used."""
    url = shared_settings.given_redis_url_of(reader)
    return None if url is None else Secret(url)


def redis_trust(text: str) -> frozenset[str]:
    names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
    if not names <= TRUSTABLE:
        raise Malformed
    return names


def base_url(text: str) -> str:
    """Without user and password, which it has no use for, nor anything that a URL could be read in two ways by."""
    found = re.fullmatch(rf"(https?)://{HOST}{PORT}(?:/(?:/|{TEXT})*)?", text)
    if found is None:
        raise Malformed
    try:
        host_name, _ = host_of(found[2]), port_of(found[3], 443)
    except ValueError:
        raise Malformed from None
    if found[1] == "http" and not is_loopback(host_name):
        raise Malformed  # the token would travel in the clear
    return text.rstrip("/")


def host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", text):
        raise Malformed
    return text
