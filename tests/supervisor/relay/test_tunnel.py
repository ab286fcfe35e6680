"""REST and WebSocket through a proxy: both in a tunnel with TLS from end to end; each way to fail is told, by the proxy's name."""

import ssl
from pathlib import Path

import pytest

from supervisor.relay.rest import RestFailed, open_rest
from supervisor.relay.websocket import ConnectFailed, open_websocket
from supervisor.settings.secrets import Secret
from supervisor.settings.way import Way, parse_proxy
from tests.sandbox.connect_proxy import BASIC, PASSWORD, USER, ConnectProxy, connect_proxy
from tests.sandbox.relay import talk
from tests.supervisor.doubles import relations_of
from tests.supervisor.relay.test_websocket_tls import tls_front, tls_server
from tests.waiting import waiting_for

FAILURES = {
    "refuse": "opens no tunnel to relay.test:443: HTTP status 403",
    "login": "wants another user or password (HTTP status 407): they stand in HASHEE_PROXY",
    "nonsense": "gave no answer of HTTP",
    "endless": "gave no answer of HTTP",
    "close": "ended the connection",
}


def way_through(proxy: ConnectProxy, cert: Path) -> Way:
    return Way(parse_proxy(proxy.url_with_login), ssl.create_default_context(cafile=str(cert)))


async def test_rest_and_websocket_go_through_the_proxy_and_it_sees_neither_token_nor_frames(tmp_path: Path) -> None:
    async with (
        talk(tmp_path) as (made, _),
        tls_front(tmp_path, int(made.url.rpartition(":")[2])) as (port, cert),
        connect_proxy(port) as proxy,
    ):
        way = way_through(proxy, cert)
        with waiting_for("the relay's answer through the proxy", 20):
            token = Secret(made.agent.token)
            async with open_rest("https://relay.test", made.agent.agent_id, token, way) as rest:
                assert len(await relations_of(rest)) == 1
            assert len(proxy.heads) == 1
            address = f"wss://relay.test/ws/agent?agent_id={made.agent.agent_id}"
            async with open_websocket(address, way=way) as socket:
                await socket.ping()
        assert proxy.targets == {"relay.test:443"}
        assert len(proxy.heads) == 2
        assert all(BASIC in head for head in proxy.heads)
        assert len(proxy.carried) > 500
        assert not any(word.encode() in proxy.carried for word in (made.agent.token, "Bearer", "GET /", "Upgrade"))


@pytest.mark.parametrize("mood", FAILURES)
async def test_a_proxy_that_opens_no_tunnel_is_named_with_the_reason_and_without_its_password(
    tmp_path: Path, mood: str
) -> None:
    async with tls_front(tmp_path, 1) as (port, cert), connect_proxy(port) as proxy:
        proxy.mood = mood
        way = way_through(proxy, cert)
        with waiting_for("the proxy's refusal to be told", 10):
            with pytest.raises(ConnectFailed) as failed:
                async with open_websocket("wss://relay.test/", way=way):
                    pytest.fail("must not open")
            assert failed.value.reason == f"the proxy {proxy.url} {FAILURES[mood]}"
            async with open_rest("https://relay.test", "agent", Secret("hsk_token"), way) as rest:
                with pytest.raises(RestFailed) as refused:
                    await relations_of(rest)
        said = str(refused.value)
        assert refused.value.status == 0
        assert ("407" in said) == (mood == "login")
        assert not any(word in said + failed.value.reason for word in (USER, PASSWORD, "S3cret"))


async def test_a_proxy_that_hangs_is_given_up_in_time_and_named(tmp_path: Path) -> None:
    async with tls_front(tmp_path, 1) as (port, cert), connect_proxy(port) as proxy:
        proxy.mood = "hang"
        with (
            waiting_for("the silent proxy to be given up", 10),
            pytest.raises(ConnectFailed, match=rf"through the proxy {proxy.url} took too long"),
        ):
            async with open_websocket("wss://relay.test/", way=way_through(proxy, cert), connect_timeout_seconds=0.3):
                pytest.fail("must not open")


async def test_a_proxy_that_is_not_there_is_named() -> None:
    way = Way(parse_proxy("http://127.0.0.1:1"), ssl.create_default_context())
    with waiting_for("the proxy that is not there to be given up", 10), pytest.raises(ConnectFailed) as failed:
        async with open_websocket("wss://relay.test/", way=way):
            pytest.fail("must not open")
    assert failed.value.reason == "the proxy http://127.0.0.1:1 is not reached: Connection refused"


async def test_a_relay_whose_certificate_is_another_ones_is_refused_behind_a_proxy_too(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (url, cert), connect_proxy(int(url.rstrip("/").rpartition(":")[2])) as proxy:
        with (
            waiting_for("the certificate to be refused", 10),
            pytest.raises(ConnectFailed, match=r"TLS.*certificate.*not valid for 'other.test'"),
        ):
            async with open_websocket("wss://other.test/", way=way_through(proxy, cert)):
                pytest.fail("must not open")


async def test_the_proxy_itself_may_be_reached_with_tls(tmp_path: Path) -> None:
    async with talk(tmp_path) as (made, _), tls_front(tmp_path, int(made.url.rpartition(":")[2])) as (port, cert):
        (tmp_path / "front").mkdir()
        async with connect_proxy(port) as proxy, tls_front(tmp_path / "front", proxy.port) as (secure_port, other):
            context = ssl.create_default_context(cafile=str(cert))
            context.load_verify_locations(other)
            way = Way(parse_proxy(f"https://127.0.0.1:{secure_port}"), context)
            with waiting_for("the relay's answers through the proxy", 20):
                async with open_rest("https://relay.test", made.agent.agent_id, Secret(made.agent.token), way) as rest:
                    assert len(await relations_of(rest)) == 1
                address = f"wss://relay.test/ws/agent?agent_id={made.agent.agent_id}"
                async with open_websocket(address, way=way) as socket:
                    await socket.ping()
            assert len(proxy.heads) == 2
