"""wss:// through the adapter, against a certificate made for the test: trusted it works, untrusted it is refused."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from supervisor.relay.websocket import ConnectFailed, open_websocket
from supervisor.settings.way import Way
from tests.sandbox.raw_server import CLOSE, Peer, raw_server
from tests.waiting import waiting_for

ONE_HOUR = timedelta(hours=1)


def certificate(folder: Path, ends_in: timedelta = ONE_HOUR) -> tuple[Path, Path]:
    """Paths of a self-signed certificate for 127.0.0.1 and relay.test, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name[:64])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + ends_in)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("relay.test")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem", folder / "key.pem"


@asynccontextmanager
async def tls_front(folder: Path, plain_port: int, ends_in: timedelta = ONE_HOUR) -> AsyncIterator[tuple[int, Path]]:
    """TLS in front of what listens on a port of this machine: its own port, and the certificate to trust."""
    cert, key = certificate(folder, ends_in)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def carry(secure: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            plain = await trio.open_tcp_stream("127.0.0.1", plain_port)
        except OSError:  # nothing listens there
            await trio.aclose_forcefully(secure)
            return
        async with secure, plain, trio.open_nursery() as nursery:
            nursery.start_soon(pump, secure, plain, nursery.cancel_scope)
            await pump(plain, secure, nursery.cancel_scope)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        listening = listeners[0].transport_listener
        assert isinstance(listening, trio.SocketListener)
        nursery.start_soon(trio.serve_listeners, carry, listeners)
        yield listening.socket.getsockname()[1], cert
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """The raw server behind TLS: its wss:// address and the certificate to trust."""

    async def echo(peer: Peer) -> None:
        while True:
            opcode, payload = await peer.read_frame()
            await peer.frame(opcode, payload)
            if opcode == CLOSE:
                return

    async with (
        raw_server(echo) as plain_url,
        tls_front(folder, int(plain_url.split(":")[2].split("/")[0])) as (port, cert),
    ):
        yield f"wss://127.0.0.1:{port}/", cert


async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


async def test_a_trusted_certificate_carries_text_both_ways(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (url, cert):
        way = Way(tls=ssl.create_default_context(cafile=str(cert)))
        with waiting_for("the answers over TLS", 5):
            async with open_websocket(url, way=way) as socket:
                await socket.send("over TLS " + "x" * 100_000)
                assert (await socket.receive()).startswith("over TLS ")
                await socket.ping()


async def test_an_untrusted_certificate_is_a_connect_failure_that_says_why(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (url, _):
        with waiting_for("the certificate to be refused", 5), pytest.raises(ConnectFailed, match=r"TLS.*certificate"):
            async with open_websocket(url, way=Way(tls=ssl.create_default_context())):
                pytest.fail("must not open")
