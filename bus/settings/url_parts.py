"""Regular expressions for the parts of a URL, shared by our strict parsers: each matches only what can be read in one way."""

import ipaddress

TEXT = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
"""A character of a user name, password, option or path (password and path may hold further ones)."""

LOGIN = rf"(?:({TEXT}*)(?::((?:{TEXT}|:)*))?@)?"
"""Two groups: user name and password, still percent-encoded."""

HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})"
PORT = r"(?::([0-9]{1,5}))?"
MOST_PORT = 65_535

HOW_TO_ENCODE = (
    "where user and password have every character but letters, digits and -._~!$&'()*+,;= percent-encoded "
    "(@ is %40, # is %23, / is %2F, : is %3A)"
)


def host_of(text: str) -> str:
    """Returns a host that has matched HOST, without its brackets. Raises ValueError."""
    host = text.strip("[]")
    if text.startswith("["):
        ipaddress.IPv6Address(host)
    return host


def port_of(text: str | None, default: int) -> int:
    """Returns a port that has matched PORT. Raises ValueError."""
    port = int(text) if text else default
    if not 0 < port <= MOST_PORT:
        raise ValueError("no port")
    return port


def is_loopback(host: str) -> bool:
    """Returns whether a host can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def netloc(host: str, port: int) -> str:
    """Returns host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
