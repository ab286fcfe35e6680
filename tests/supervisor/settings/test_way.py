"""How the way to the relay is found: which setting counts, what is refused before anything starts, and what nobody is shown."""

from pathlib import Path

import pytest

from bus.settings.reader import Malformed, SettingsError
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.way import is_exempt, parse_proxy
from tests.supervisor.relay.test_websocket_tls import certificate
from tests.supervisor.settings.environment import agent_environ

pytestmark = pytest.mark.pure

RELAY = {"HASHEE_BASE_URL": "https://relay.example:8443"}
SPOILED = (
    "socks5://127.0.0.1:1080",
    "http://p:port",
    "ftp://p:1",
    "http://u:p@s@p:1",
    "http://",
    "p:1/x",
    "http://p:0",
)


def shown(**environ: str) -> str:
    return SupervisorSettings.from_environ(agent_environ(**{**RELAY, **environ})).way.shown


def refusal(**environ: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        shown(**environ)
    return caught.value


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({}, "directly"),
        ({"HTTPS_PROXY": "http://p:1"}, "through the proxy http://p:1 (HTTPS_PROXY)"),
        ({"https_proxy": "p:1", "HTTPS_PROXY": "http://q:2"}, "through the proxy http://p:1 (https_proxy)"),
        ({"ALL_PROXY": "https://p"}, "through the proxy https://p:443 (ALL_PROXY)"),
        ({"HTTPS_PROXY": "http://p:1/", "ALL_PROXY": "socks5://q:2"}, "through the proxy http://p:1 (HTTPS_PROXY)"),
        ({"HTTP_PROXY": "http://p:port"}, "directly"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, "directly"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other", "no_proxy": "relay.example"}, "directly"),
        ({"HTTPS_PROXY": "socks5://p:1", "NO_PROXY": "*"}, "directly"),
        ({"HASHEE_PROXY": "http://p:1", "NO_PROXY": "*"}, "through the proxy http://p:1 (HASHEE_PROXY)"),
        ({"HASHEE_PROXY": "http://u:w@[::1]:1"}, "through the proxy http://[::1]:1 (HASHEE_PROXY)"),
        ({"HASHEE_PROXY": "none", "HTTPS_PROXY": "socks5://p:1"}, "directly"),
        ({"HASHEE_BASE_URL": "http://127.0.0.1:8000", "HTTPS_PROXY": "socks5://p:1"}, "directly"),
        ({"HASHEE_BASE_URL": "https://[::1]", "HASHEE_PROXY": "http://p:1"}, "directly"),
    ],
)
def test_which_way_is_taken(environ: dict[str, str], way: str) -> None:
    assert shown(**environ) == way


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HASHEE_PROXY"])
@pytest.mark.parametrize("value", SPOILED)
def test_a_proxy_that_cannot_be_used_is_named_with_what_helps_and_none_of_its_text(name: str, value: str) -> None:
    error = refusal(**{name: value})
    assert error.name == name
    assert value == "http://" or value not in str(error)
    assert "http://host:port" in str(error)
    assert "percent-encoded" in str(error)
    assert name == "HASHEE_PROXY" or "HASHEE_PROXY=none" in str(error)


def test_a_proxys_password_is_in_its_header_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("http://Us3r:S3cret%40%239@p:1\n", encoding="ascii")
    settings = SupervisorSettings.from_environ(agent_environ(**RELAY, HASHEE_PROXY_FILE=str(tmp_path / "proxy")))
    assert settings.way.proxy is not None
    assert settings.way.proxy.headers == {"Proxy-Authorization": "Basic VXMzcjpTM2NyZXRAIzk="}
    for text in (repr(settings), settings.way.shown, settings.way.proxy.url):
        assert "S3cret" not in text
        assert "Us3r" not in text


def test_a_proxy_without_a_login_is_told_none() -> None:
    assert parse_proxy("p:1").headers == {}
    with pytest.raises(Malformed):
        parse_proxy("socks5://p:1")


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("relay.example", "relay.example", True),
        ("relay.example", " Example ", True),
        ("relay.example", ".example", True),
        ("relay.example", "*.example", True),
        ("relay.example", "lay.example", False),
        ("relay.example", "example.relay", False),
        ("relay.example", "relay.example:443", True),
        ("relay.example", "relay.example:444", False),
        ("relay.example", "", False),
        ("relay.example", ",", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "11.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db8::1", "[2001:db8::1]:443", True),
        ("10.1.2.3", "10.0.0.0/99", False),
    ],
)
def test_whom_no_proxy_exempts(host: str, no_proxy: str, exempt: bool) -> None:
    assert is_exempt(host, 443, no_proxy) is exempt


def test_certificates_that_cannot_be_read_are_a_setting_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate", encoding="ascii")
    (tmp_path / "empty").mkdir()
    cert, _ = certificate(tmp_path)
    for value in (tmp_path / "nowhere", tmp_path / "text", tmp_path, "relative.pem"):
        assert refusal(SSL_CERT_FILE=str(value)).name == "SSL_CERT_FILE"
    for value in (tmp_path / "nowhere", tmp_path / "empty", cert, "relative"):
        assert refusal(SSL_CERT_DIR=str(value)).name == "SSL_CERT_DIR"
    environ = agent_environ(**RELAY, SSL_CERT_FILE=str(cert))
    context = SupervisorSettings.from_environ(environ).way.tls
    assert context is not None
    assert context.cert_store_stats()["x509"] == 1
    assert context.check_hostname
    assert SupervisorSettings.from_environ(agent_environ(HASHEE_BASE_URL="http://127.0.0.1:1")).way.tls is None


def test_no_file_of_tls_keys_is_ever_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = SupervisorSettings.from_environ(agent_environ(**RELAY)).way.tls
    assert context is not None
    assert not context.keylog_filename
