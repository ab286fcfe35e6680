"""Private CA and client certificate: what is wrong with a file is said by its setting, and with the right ones a real Redis lets us in."""

import base64
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bus.settings.reader import SettingsError, SettingsReader
from bus.settings.redis_url import parse_redis_url
from bus.settings.shared import given_redis_url_of, redis_url_of
from bus.transport.client import open_redis
from bus.transport.wire import RedisUnavailable
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.worker import LoneWorkerSettings as AloneSettings
from tests.bus.transport.authority import Authority, private
from tests.redis_server import RedisServer, server_binary
from tests.supervisor.settings.environment import STORE_KEY, process_environ

URL = "rediss://r.test:6380/0"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def url_of(**environ: str | Path) -> str:
    reader = SettingsReader(
        {"HASHEE_REDIS_URL": URL} | {f"HASHEE_REDIS_{name}": str(value) for name, value in environ.items()}
    )
    url = redis_url_of(reader)
    reader.finish()
    return url


def refusal(**environ: str | Path) -> str:
    with pytest.raises(SettingsError) as refused:
        url_of(**environ)
    return str(refused.value)


@pytest.mark.pure
def test_each_becomes_an_option_of_the_url_once(ca: Authority) -> None:
    certificate, key = ca.sign("a name with = and %")
    url = url_of(CA=ca.certificate, CERT=certificate, KEY=key)
    wanted = {"ssl_ca_certs": str(ca.certificate), "ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    assert parse_redis_url(url).tls == wanted
    assert url_of(URL=url, CA=ca.certificate) == url
    assert parse_redis_url(url_of(URL=f"{URL}?ssl_check_hostname=false", CA=ca.certificate)).tls == {
        "ssl_check_hostname": False,
        "ssl_ca_certs": str(ca.certificate),
    }


@pytest.mark.pure
def test_what_is_wrong_is_said_by_its_setting_with_the_remedy(ca: Authority) -> None:
    folder = ca.folder
    certificate, key = ca.sign("ours")
    _, other_key = ca.sign("other")
    (text := folder / "text").write_text("no PEM", encoding="utf-8")
    (locked := folder / "locked").write_bytes(private(ec.generate_private_key(ec.SECP256R1()), b"word"))
    (broken := folder / "broken").write_text(
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", encoding="ascii"
    )
    for name, words, environ in (
        ("CA", "a file that this user can read (No such file", {"CA": folder / "none"}),
        ("CA", "a file that this user can read (Is a directory", {"CA": folder}),
        ("CA", "absolute path", {"CA": "relative.pem"}),
        ("CA", "a PEM file", {"CA": text}),
        ("CA", "BEGIN CERTIFICATE", {"CA": broken}),
        ("CA", "BEGIN CERTIFICATE", {"CA": key}),
        ("CA", "rediss://", {"CA": ca.certificate, "URL": "redis://r.test"}),
        ("CA", "one place", {"CA": ca.certificate, "URL": f"{URL}?ssl_ca_certs={certificate}"}),
        ("CERT", "expected HASHEE_REDIS_KEY", {"CERT": certificate}),
        ("CERT", "BEGIN CERTIFICATE", {"CERT": broken, "KEY": key}),
        ("KEY", "expected HASHEE_REDIS_CERT", {"KEY": key}),
        ("KEY", "the certificate in HASHEE_REDIS_CERT", {"CERT": certificate, "KEY": other_key}),
        ("KEY", "without a passphrase", {"CERT": certificate, "KEY": locked}),
        ("KEY", "a PEM file", {"CERT": certificate, "KEY": text}),
    ):
        said = refusal(**environ)
        assert re.match(rf"HASHEE_REDIS_{name} (is malformed|cannot be used): expected ", said), said
        assert words in said, said
        assert said.count("HASHEE_REDIS_") <= 2, said


@pytest.mark.pure
def test_with_the_private_redis_it_is_of_no_use_and_refused(ca: Authority) -> None:
    reader = SettingsReader({"HASHEE_REDIS_CA": str(ca.certificate)})
    assert given_redis_url_of(reader) is None
    with pytest.raises(SettingsError, match=r"HASHEE_REDIS_CA cannot be used: expected HASHEE_REDIS_URL=rediss://"):
        reader.finish()


@contextmanager
def with_tls(folder: Path, ca: Authority) -> Iterator[tuple[RedisServer, str]]:
    """A real server that asks for a certificate of the authority's, and its URL."""
    if b"libssl" not in server_binary().path.read_bytes():
        pytest.skip(f"{server_binary().path} was built without TLS")
    certificate, key = ca.sign("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = RedisServer(folder)
    options = ("--tls-port", str(port), "--tls-ca-cert-file", str(ca.certificate), "--tls-auth-clients", "yes")
    try:
        server.start(*options, "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
        yield server, f"rediss://127.0.0.1:{port}/0"
    finally:
        server.close()


async def test_every_process_that_connects_is_let_in_with_them_and_told_why_not_without(ca: Authority) -> None:
    certificate, key = ca.sign("client")
    with with_tls(ca.folder, ca) as (_server, url):
        async with open_redis(url) as client:
            with pytest.raises(RedisUnavailable, match="the certificate is not accepted"):
                await client.command("PING")
        async with open_redis(f"{url}?ssl_ca_certs={ca.certificate}") as client:
            with pytest.raises(RedisUnavailable):  # the server says nothing of why: TLS 1.3 asks after the handshake
                await client.command("PING")
        environ = process_environ(
            ca.folder / "state",
            HASHEE_REDIS_URL=url,
            HASHEE_STORE_KEY=STORE_KEY,
            HASHEE_BUS_KEY=base64.b64encode(bytes(32)).decode(),
            HASHEE_REDIS_CA=str(ca.certificate),
            HASHEE_REDIS_CERT=str(certificate),
            HASHEE_REDIS_KEY=str(key),
        )
        for settings in (
            SupervisorSettings.from_environ(environ),
            AloneSettings.from_environ(environ),
            KeySettings.from_environ(environ),
        ):
            assert settings.redis_url is not None
            async with open_redis(settings.redis_url.reveal()) as client:
                assert await client.command("PING") == b"PONG"
                key.rename(key.with_suffix(".away"))  # while it is renewed
                await client.command("QUIT")  # Redis hangs up: a next connection needs the key
                for _ in range(2):
                    with pytest.raises(RedisUnavailable):
                        await client.command("PING")
                key.with_suffix(".away").rename(key)
                assert await client.command("PING") == b"PONG"
        command = [sys.executable, "-P", "-m", "supervisor", "check-settings"]
        environ["PYTHONPATH"] = str(Path(__file__).parents[3])
        said = subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", check=False)  # noqa: ASYNC221 - short
        assert f"with TLS: its certificate is checked with {ca.certificate}, ours is {certificate}" in said.stdout, said
