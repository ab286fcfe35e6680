"""Where the bytes of a file may go to or come from, by an address that the relay names (PROTOCOL §4.1). Decides, and connects to nothing.

Only the relay's own origin gets the agent's token. Another origin is presigned: https at its usual port, no user part, and an address that is no
part of this host's own network, unless the owner names the host (HASHEE_UPLOAD_HOSTS). `//elsewhere/x` is no path: it names a host.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bus.files.calls import CallFailure
from bus.settings.url_parts import is_loopback
from supervisor.files.failures import CallFailed

HTTPS_PORT = 443
_PRINTABLE = re.compile(r"[!-~]{1,4096}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses that stand for IPv4 ones behind a translator (RFC 6052)."""


@dataclass(frozen=True)
class Destination:
    """Where a transfer goes. `is_relay`: with the token if it is an upload; else presigned, without it."""

    url: str
    host: str
    port: int
    is_relay: bool
    is_named: bool = False
    """Whether the owner has named this host: then its address may be any."""


@dataclass(frozen=True)
class Origins:
    """The relay, and the hosts that the owner has named, each as host or host:port."""

    relay_url: str
    named: frozenset[str] = frozenset()

    def destination(self, url: str) -> Destination:
        """Returns where an address leads. Raises CallFailed `bad_upload_url` with what is wrong with it."""
        if not _PRINTABLE.fullmatch(url) or "\\" in url or "#" in url:
            raise _bad("it is not an address")
        if url.startswith("/"):
            if url.startswith("//"):
                raise _bad("it begins with //, which would be another host")
            relay = urlsplit(self.relay_url)
            return self.destination(f"{relay.scheme}://{relay.netloc}{url}")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _bad("it is not an address") from None
        if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise _bad("it is no path, and no https:// address")
        if "@" in parts.netloc:
            raise _bad("it has a user part")
        port = port or (HTTPS_PORT if parts.scheme == "https" else 80)
        if (parts.scheme, host, port) == self._relay:
            return Destination(url, host, port, is_relay=True)
        return self._presigned(url, parts.scheme, host, port)

    def _presigned(self, url: str, scheme: str, host: str, port: int) -> Destination:
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        is_named = at in self.named or (host in self.named and port == HTTPS_PORT)
        if scheme != "https" and not (is_named and is_loopback(host)):
            raise _bad("it is another host than the relay, and not https")
        if port != HTTPS_PORT and not is_named:
            raise _bad(f"it is another port than the relay's; HASHEE_UPLOAD_HOSTS may name {at}")
        return Destination(url, host, port, is_relay=False, is_named=is_named)

    @property
    def _relay(self) -> tuple[str, str, int]:
        parts = urlsplit(self.relay_url)
        return parts.scheme, parts.hostname or "", parts.port or (HTTPS_PORT if parts.scheme == "https" else 80)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where it carries another one in it."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped
        if ip in _NAT64:
            carried = ipaddress.IPv4Address(ip.packed[-4:])
        if ip.is_site_local or ip.sixtofour is not None:  # that there were such is over, and Pythons differ over them
            return False
        if carried is not None and not (carried.is_global and not carried.is_multicast):
            return False
        if ip.ipv4_mapped is not None:
            return True
    return ip.is_global and not ip.is_multicast


def _bad(why: str) -> CallFailed:
    return CallFailed(CallFailure.BAD_UPLOAD_URL, f"the relay's address for a file is not used: {why}")
