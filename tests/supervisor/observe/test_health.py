"""Probes and metrics, asked over real HTTP: answered from a thread of their own, also when the loop is stuck."""

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from supervisor.observe.health import Check, Health
from supervisor.observe.http import start_http
from supervisor.observe.metrics import Metrics
from tests.http_page import page_at
from tests.waiting import waiting_for

WAIT_SECONDS = 5.0


class Probes:
    """A supervisor's HTTP side with checks that a test sets."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.metrics = Metrics()
        self.health = Health(tick_seconds=0.02, stuck_seconds=0.5)
        self.dead_threads: list[str] = []
        self.checks: tuple[Check, ...] = (Check("relay", ok=True, detail="heard 1 s ago"),)

    def get(self, path: str) -> tuple[int, str]:
        """Blocking: the loop does not turn meanwhile."""
        return page_at(f"http://127.0.0.1:{self.port}{path}", seconds=WAIT_SECONDS)

    async def get_soon(self, path: str) -> tuple[int, str]:
        """While the loop turns."""
        return await trio.to_thread.run_sync(self.get, path)

    async def until(self, path: str, status: int) -> str:
        with waiting_for(f"{path} to answer {status}", WAIT_SECONDS):
            while (answer := await self.get_soon(path))[0] != status:
                await trio.sleep(0.01)
        return answer[1]


@asynccontextmanager
async def probing() -> AsyncIterator[Probes]:
    listener = socket.create_server(("127.0.0.1", 0))
    probes = Probes(listener.getsockname()[1])
    start_http(listener, probes.health, probes.metrics)
    listener.detach()  # the server has the descriptor now
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            probes.health.run, lambda: probes.checks, lambda: probes.dead_threads, probes.metrics.show_checks
        )
        yield probes
        nursery.cancel_scope.cancel()


async def test_a_stuck_loop_is_seen_from_outside_and_so_is_its_recovery() -> None:
    async with probing() as probes:
        await probes.until("/healthz", 200)
        deadline = time.monotonic() + WAIT_SECONDS
        status, body = 200, ""
        while status == 200 and time.monotonic() < deadline:
            status, body = probes.get("/healthz")  # asked by the loop's own thread: it is stuck
        assert status == 503
        assert json.loads(body)["checks"][0]["name"] == "loop"
        await probes.until("/healthz", 200)


async def test_readiness_says_why_not_and_liveness_does_not_care() -> None:
    async with probing() as probes:
        await probes.until("/readyz", 200)
        probes.checks = (Check("relay", ok=False, detail="refused: invalid_token"), Check("redis", ok=True, detail=""))
        body = json.loads(await probes.until("/readyz", 503))
        assert [check["detail"] for check in body["checks"] if not check["ok"]] == ["refused: invalid_token"]
        _, shown = await probes.get_soon("/metrics")
        assert {'hashee_check_ok{check="relay"} 0.0', 'hashee_check_ok{check="redis"} 1.0'} <= set(shown.splitlines())
        assert (await probes.get_soon("/healthz"))[0] == 200


async def test_before_the_first_turn_it_is_alive_and_not_ready() -> None:
    health = Health()
    assert health.liveness().ok
    assert not all(check.ok for check in health.readiness())


async def test_whose_thread_has_ended_is_neither_alive_nor_ready() -> None:
    async with probing() as probes:
        await probes.until("/readyz", 200)
        probes.dead_threads.append("leases")
        for path in ("/healthz", "/readyz"):
            assert "threads have ended: leases" in await probes.until(path, 503)


async def test_the_status_page_shows_every_check_and_escapes_what_the_relay_said() -> None:
    async with probing() as probes:
        probes.checks = (Check("relay", ok=False, detail="refused: <script>"),)
        await probes.until("/readyz", 503)
        status, page = await probes.get_soon("/")
        assert status == 200
        assert "refused: &lt;script&gt;" in page
        assert "<script>" not in page


async def test_metrics_have_the_six_documented_names() -> None:
    async with probing() as probes:
        probes.metrics.inbound("h2a", "text")
        probes.metrics.outbound("h2a", "a stranger's word", 12)
        probes.metrics.decrypt_failure.labels("no_session").inc()
        probes.metrics.observe("business_llm_duration_ms", {"model": "m"}, 5)
        probes.metrics.observe("of the future", {}, 5)
        _, text = await probes.get_soon("/metrics")
        for line in (
            "hashee_connection_status 0.0",
            'hashee_message_inbound_total{conv_type="h2a",payload_type="text"} 1.0',
            'hashee_message_outbound_total{conv_type="h2a",payload_type="other"} 1.0',
            'hashee_decrypt_failure_total{reason="no_session"} 1.0',
            'hashee_send_duration_ms_count{conv_type="h2a"} 1.0',
            'business_llm_duration_ms_count{model="m"} 1.0',
        ):
            assert line in text


async def test_model_names_do_not_grow_the_metrics_without_end() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.observe("business_llm_duration_ms", {"model": f"model-{number}"}, 1)
    count = metrics.registry.get_sample_value("business_llm_duration_ms_count", {"model": "other"})
    assert count == 80


async def test_a_thread_that_has_ended_is_not_alive() -> None:
    async with probing() as probes:
        await probes.until("/healthz", 200)
        probes.dead_threads.append("redis-leases")
        assert "redis-leases" in await probes.until("/healthz", 503)
