"""The metrics as Prometheus sees them: named by its rules, on their page, bounded, and true of a real Redis."""

import shutil
import subprocess
from pathlib import Path

import pytest
import trio
from prometheus_client import disable_created_metrics, enable_created_metrics, generate_latest

from bus.views.backlog import Backlog
from supervisor.observe import gauges
from supervisor.observe.gauges import ALL_GAUGES, Gauges
from supervisor.observe.metrics import FILE_FAILURES, Metrics
from tests.bus.builders import CONVERSATION, Bus, open_bus, open_worker
from tests.redis_server import redis_server
from tests.trials.deploy.metrics_page import PAGE, page
from tests.waiting import waiting_for
from workers.errors import FileBroken, FileError
from workers.files.files import SPOILED
from workers.files.reading import CHANGED, PAYLOAD, SIZE

SEED_NAMES = (
    "hashee_connection_status",
    "hashee_message_inbound_total",
    "hashee_message_outbound_total",
    "hashee_decrypt_failure_total",
    "hashee_send_duration_ms",
    "business_llm_duration_ms",
)
DOCUMENTED_WITH_A_UNIT = {"hashee_send_duration_ms", "business_llm_duration_ms"}


def everything_set() -> Metrics:
    metrics = Metrics()
    metrics.inbound("h2a", "text")
    metrics.outbound("h2a", "text", 12)
    metrics.observe("business_llm_duration_ms", {"model": "m"}, 5)
    metrics.observe("business_llm_first_token_seconds", {"model": "m"}, 0.5)
    metrics.observe("business_llm_tokens", {"model": "m", "kind": "prompt"}, 7)
    metrics.observe("business_budget_refusals", {"per": "sender", "limit": "tokens_per_day"}, 1)
    metrics.observe("business_budget_refusals", {"per": "nobody", "limit": "of the future"}, 1)
    metrics.gauges.show({gauge: {"x" if gauge.label else "": 1} for gauge in ALL_GAUGES})
    return metrics


@pytest.mark.pure
def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: make metrics-page"


@pytest.mark.pure
def test_the_six_documented_names_are_there() -> None:
    text = generate_latest(everything_set().registry).decode()
    assert [name for name in SEED_NAMES if f"# TYPE {name} " not in text] == []


def test_promtool_has_nothing_to_say_but_of_the_two_documented_names() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    disable_created_metrics()  # as the supervisor does
    text = generate_latest(everything_set().registry)
    enable_created_metrics()
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    said = set((done.stdout + done.stderr).decode().splitlines())
    assert {line.split()[0] for line in said} == DOCUMENTED_WITH_A_UNIT
    assert all("abbreviated units" in line for line in said)


@pytest.mark.pure
def test_a_gauge_that_was_not_measured_is_not_shown() -> None:
    shown = Gauges()
    shown.show({gauges.QUARANTINE: {"no_session": 2}})
    shown.show({gauges.SLOT: {"": 1}})
    samples = {sample.name for family in shown.collect() for sample in family.samples}
    assert samples == {"hashee_slot"}


@pytest.mark.pure
def test_each_reason_of_a_file_that_failed_is_counted_by_its_name() -> None:
    broken = {f"{FileBroken.reason}_{why}" for why in (CHANGED, SIZE, PAYLOAD)}
    others = {kind.reason for kind in FileError.__subclasses__() if kind is not FileBroken}
    assert {*broken, *others, SPOILED} == FILE_FAILURES


def test_tokens_of_an_unknown_kind_and_of_too_many_models_are_other() -> None:
    metrics = Metrics()
    for number in range(30):
        metrics.observe("business_llm_tokens", {"model": f"m{number}", "kind": "of the future"}, 1)
    value = metrics.registry.get_sample_value("business_llm_tokens_total", {"model": "other", "kind": "other"})
    assert value == 10


async def test_ages_and_facts_come_from_a_real_redis(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as b:
            await the_backlog_is_true(b)


async def the_backlog_is_true(b: Bus) -> None:
    backlog = Backlog(b.client, b.keys)
    nothing = await backlog.ages()
    assert (nothing.untaken, nothing.busy, nothing.unacknowledged, nothing.in_mailboxes) == (0, 0, 0, 0)
    await b.accept(1)
    await b.accept(2)
    await b.accept(1, conversation="another")
    with waiting_for("a job that nobody has taken, and its conversation, to have an age of a millisecond", 5):
        while not ((waiting := await backlog.ages()).untaken > 0 and waiting.busy > 0):
            await trio.sleep(0.001)
    assert waiting.in_mailboxes == 1
    async with open_worker(b.url) as worker:
        (job, *_) = await worker.take(2)
        taken = await backlog.ages()
        assert job.conversation_id == CONVERSATION
        assert taken.untaken == 0
    facts = await backlog.server()
    assert facts.memory_bytes
    await b.client.command("CONFIG", "SET", "maxmemory", "123456789")
    assert (await backlog.server()).limit_bytes == 123456789


def test_tools_are_counted_by_name_up_to_a_number_of_names() -> None:
    metrics = Metrics()
    for number in range(60):
        metrics.observe("business_tool_calls", {"tool": f"t{number}", "outcome": "done"}, 1)
    metrics.observe("business_tool_calls", {"tool": "t1", "outcome": "of the future"}, 1)
    metrics.observe("business_tool_calls", {"tool": "", "outcome": "error"}, 1)
    metrics.observe("business_approvals", {"outcome": "granted"}, 1)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("business_tool_calls_total", tool="t0", outcome="done") == 1
    assert value("business_tool_calls_total", tool="t1", outcome="other") == 1
    assert value("business_tool_calls_total", tool="other", outcome="done") == 10
    assert value("business_tool_calls_total", tool="other", outcome="error") == 1
    assert value("business_approvals_total", outcome="granted") == 1


def test_an_mcp_server_is_seen_to_come_and_go_and_so_are_its_calls() -> None:
    metrics = Metrics()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    for outcome, is_up in (("connected", 1), ("lost", 0), ("failed", 0), ("connected", 1), ("of the future", 0)):
        metrics.observe("business_mcp_connections", {"server": "wiki", "outcome": outcome}, 1)
        assert value("business_mcp_up", server="wiki") == is_up
    assert value("business_mcp_connections_total", server="wiki", outcome="connected") == 2
    for number in range(60):
        metrics.observe("business_mcp_calls", {"server": f"s{number}", "outcome": "done"}, 1)
    metrics.observe("business_mcp_calls", {"server": "wiki", "outcome": "unknown"}, 1)
    assert value("business_mcp_calls_total", server="wiki", outcome="unknown") == 1
    assert value("business_mcp_calls_total", server="s0", outcome="done") == 1
    assert value("business_mcp_calls_total", server="other", outcome="done") == 11
