"""`make prometheus`: a real Prometheus scrapes a real agent through a conversation, with our configuration and our rules.

Not part of `make test`; where there is no Prometheus it fails and says how to get it.
"""

import json
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import trio

from sandbox.children import running
from sandbox.stage import free_port
from tests.trials.deploy.metrics_page import names
from tests.trials.deploy.needs import needing
from tests.waiting import waiting_for
from tests.world import world

FOLDER = Path(__file__).parents[3] / "deploy/monitoring"
SECONDS = 60

machine_can = needing({"prometheus": "prometheus"})


async def test_prometheus_scrapes_what_the_page_says_and_no_alert_fires(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], "hello")
        await w.all_answered({ada: ["echo: hello"]})
        listens = f"127.0.0.1:{free_port()}"
        config = (
            (FOLDER / "prometheus.yml")
            .read_text(encoding="utf-8")
            .replace("127.0.0.1:9090", w.http_url.removeprefix("http://"))
        )
        (tmp_path / "prometheus.yml").write_text(config.replace("15s", "1s"), encoding="utf-8")
        shutil.copy(FOLDER / "alerts.yml", tmp_path)
        arguments = [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
        ]
        async with running(
            "prometheus",
            [*arguments, f"--web.listen-address={listens}"],
            log_path=tmp_path / "prometheus.log",
            environment={},
        ):
            with waiting_for("Prometheus to have counted the reply", SECONDS):
                while await value(listens, 'hashee_message_outbound_total{job="hashee-agent"}') != 1:
                    await trio.sleep(0.1)
            stored = await ask(listens, "label/__name__/values")
            assert isinstance(stored, list)
            ours = {name for name in stored if name.startswith(("hashee_", "business_"))}
            assert len(ours) > 30
            assert ours <= names()
            assert await value(listens, 'count(ALERTS{alertstate="firing"})') is None
            print(f"\n  {len(ours)} series' names stored, no alert", flush=True)


async def value(listens: str, query: str) -> float | None:
    """The one value of an instant query; None where there is none."""
    found = await ask(listens, "query?" + urllib.parse.urlencode({"query": query}))
    assert found is None or isinstance(found, dict)
    result = found["result"] if found else []
    return float(result[0]["value"][1]) if result else None


async def ask(listens: str, what: str) -> object:
    def get() -> object:
        try:
            with urllib.request.urlopen(f"http://{listens}/api/v1/{what}", timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None  # not listening yet

    return await trio.to_thread.run_sync(get)
