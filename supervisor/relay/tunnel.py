"""Opens a stream to a host through a proxy (CONNECT, RFC 9110 §9.3.6). It knows nothing of what goes through."""

import re

import trio
import trio.abc

from bus.settings.url_parts import netloc
from host.reasons import why
from supervisor.settings.way import Proxy, Way

MOST_ANSWER_BYTES = 16 * 1024
"""Of the proxy's answer: a status line and some headers."""

END_OF_HEAD = b"\r\n\r\n"
WANTS_LOGIN = 407
"""Proxy Authentication Required (RFC 9110 §15.5.8)."""


class TunnelFailed(Exception):
    """Raised when the proxy opens no tunnel; the text names the proxy and says why."""


async def open_tunnel(way: Way, proxy: Proxy, host: str, port: int) -> trio.abc.Stream:
    """Returns a stream to `host` behind `proxy`. Raises TunnelFailed. The caller bounds how long it may take."""
    try:
        stream = await _reach(way, proxy)
    except (OSError, trio.BrokenResourceError) as error:
        raise TunnelFailed(f"the proxy {proxy.url} is not reached: {why(error)}") from None
    try:
        await _ask(stream, proxy, netloc(host, port))
    except (OSError, trio.BrokenResourceError):
        await trio.aclose_forcefully(stream)
        raise TunnelFailed(f"the proxy {proxy.url} ended the connection") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _reach(way: Way, proxy: Proxy) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(proxy.host, proxy.port)
    if proxy.scheme == "http" or way.tls is None:
        return stream
    return await secured(stream, way, proxy.host)


async def secured(stream: trio.abc.Stream, way: Way, host: str) -> trio.abc.Stream:
    """Returns the stream with TLS to `host`, whose certificate is checked. Raises BrokenResourceError, and closes the stream then."""
    if way.tls is None:
        raise RuntimeError("a way without TLS secures nothing")
    secure = trio.SSLStream(stream, way.tls, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


async def _ask(stream: trio.abc.Stream, proxy: Proxy, target: str) -> None:
    headers = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    await stream.send_all("\r\n".join(lines).encode())
    head = b""
    while END_OF_HEAD not in head:
        received = await stream.receive_some(4096)
        head += received
        if not received:
            raise TunnelFailed(f"the proxy {proxy.url} ended the connection")
        if len(head) > MOST_ANSWER_BYTES:
            raise TunnelFailed(f"the proxy {proxy.url} gave no answer of HTTP")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", head)
    if status is None or not head.endswith(END_OF_HEAD):
        raise TunnelFailed(f"the proxy {proxy.url} gave no answer of HTTP")
    if int(status[1]) == WANTS_LOGIN:
        raise TunnelFailed(
            f"the proxy {proxy.url} wants another user or password (HTTP status 407): they stand in {proxy.origin}"
        )
    if not 200 <= int(status[1]) < 300:
        raise TunnelFailed(f"the proxy {proxy.url} opens no tunnel to {target}: HTTP status {status[1].decode()}")
