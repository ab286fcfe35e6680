"""A whole agent that reaches its relay only through a proxy: it answers, names the proxy when that fails, and comes back."""

import base64
import os
from pathlib import Path

from sandbox.api import RelayApi
from sandbox.children import relay_process
from sandbox.people import connected, make_person
from tests.sandbox.connect_proxy import BASIC, connect_proxy
from tests.supervisor.relay.test_websocket_tls import tls_front
from tests.world import World, agent, free_port


async def test_an_agent_behind_a_proxy_answers_names_its_failures_and_comes_back(tmp_path: Path) -> None:
    async with (
        relay_process(log_path=tmp_path / "relay.log") as (_, url),
        RelayApi(url) as api,
        tls_front(tmp_path, int(url.rpartition(":")[2])) as (port, cert),
        connect_proxy(port) as proxy,
    ):
        account = await api.add_agent("Echo")
        ada = await make_person(url, "Ada")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HASHEE_")},
            "HASHEE_AGENT_ID": account.agent_id,
            "HASHEE_AGENT_TOKEN": account.token,
            "HASHEE_X25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
            "HASHEE_ED25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
            "HASHEE_BASE_URL": "https://relay.test",
            "HTTPS_PROXY": proxy.url_with_login,
            "HTTP_PROXY": "http://p:port",
            "ALL_PROXY": "socks5://127.0.0.1:1",
            "NO_PROXY": "localhost,.example.org",
            "SSL_CERT_FILE": str(cert),
            "HASHEE_STATE_DIR": str(tmp_path / "state"),
            "HASHEE_HTTP_PORT": str(free_port()),
            "HASHEE_LOG_FORMAT": "console",
        }
        w = World(tmp_path, url, api, environment, [ada])
        async with agent(w):
            w.conversations[ada] = await ada.meet(account.agent_id)
            await w.until_ready()
            async with connected(ada):
                await ada.say(w.conversations[ada], "one")
                await w.all_answered({ada: ["echo: one"]})
                assert proxy.targets == {"relay.test:443"}
                assert all(BASIC in head for head in proxy.heads)

                proxy.mood = "login"
                proxy.cut()
                await ada.say(w.conversations[ada], "two")
                refused = (
                    f"the proxy {proxy.url} wants another user or password (HTTP status 407): they stand in HTTPS_PROXY"
                )
                await w.until(lambda: refused in w.log())
                proxy.mood = "open"
                await w.all_answered({ada: ["echo: one", "echo: two"]})
        assert "S3cret" not in w.log()
        assert f"through the proxy {proxy.url} (HTTPS_PROXY)" in w.log()
