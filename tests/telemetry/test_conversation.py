"""One conversation with a real receiver: relay, keeper, supervisor and workers as processes; what each message's trace looks like there."""

import json
from pathlib import Path

import pytest

from tests.telemetry.handlers import LIBRARY
from tests.telemetry.receiver import Seen, Taken, receiver
from tests.world import World, world

TELEMETRY = {
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
}
KEY = "a-key-of-the-receiver"
OURS = ("receive", "handle", "send")


def of_a_message(taken: Taken) -> list[Seen]:
    """The spans of the latest trace that has come to its end, each after the one that it is under."""
    ended = [span for span in taken.spans if span.name == "send"]
    if not ended:
        return []
    spans = [span for span in taken.spans if span.trace_id == ended[-1].trace_id]
    return sorted(spans, key=lambda span: span.start_ns)


def named(spans: list[Seen], name: str) -> list[Seen]:
    return [span for span in spans if span.name == name]


@pytest.mark.parametrize("handler", ["agent", "blocking"])
async def test_a_message_is_one_trace_from_received_to_acknowledged_and_the_owners_library_tells_in_it(
    handler: str, tmp_path: Path
) -> None:
    with receiver() as taken:
        settings = TELEMETRY | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{taken.url}/otlp/",
            "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer%20{KEY}",
            "HASHEE_HANDLER": f"tests.telemetry.handlers:{handler}",
            "HASHEE_LOG_FORMAT": "json",
        }
        async with world(tmp_path, **settings) as w:
            [ada] = w.people
            await ada.say(w.conversations[ada], "a very private word")
            await w.all_answered({ada: ["echo: a very private word"]})
            await taken.until(lambda: len(of_a_message(taken)) == 4)
            await taken.until(lambda: "hashee_message_outbound" in taken.metrics)
        it_is_one_tree(of_a_message(taken))
        it_holds_no_content(taken, w)
        assert {headers["Authorization"] for _, headers, _ in taken.requests} == {f"Bearer {KEY}"}
        assert {path for path, _, _ in taken.requests} == {"/otlp/v1/traces", "/otlp/v1/metrics"}
        [counted] = taken.metrics["hashee_message_outbound"].sum.data_points
        assert counted.as_double == 1.0


def it_is_one_tree(spans: list[Seen]) -> None:
    (receive,), (handle,), (send,) = (named(spans, name) for name in OURS)
    [library] = named(spans, "asks a service")
    assert (receive.parent_id, handle.parent_id, send.parent_id) == ("", receive.span_id, handle.span_id)
    assert (library.parent_id, library.scope) == (handle.span_id, LIBRARY)
    assert receive.start_ns <= receive.end_ns
    assert receive.start_ns <= handle.start_ns <= library.start_ns <= library.end_ns <= handle.end_ns
    assert send.start_ns <= send.end_ns
    assert send.events == ("encrypted", "sent")
    assert not any(span.is_error for span in spans)
    assert receive.resource["hashee.role"] == send.resource["hashee.role"] == "supervisor"
    assert handle.resource["hashee.role"] == library.resource["hashee.role"] == "worker"
    assert {span.resource["service.name"] for span in spans} == {"hashee-agent"}
    assert {span.resource["deployment.environment.name"] for span in spans} == {"test"}
    assert receive.attributes["messaging.message.id"] == handle.attributes["messaging.message.id"]
    assert [span.attributes["hashee.outcome"] for span in (receive, handle, send)] == [
        "accepted",
        "done",
        "acknowledged",
    ]


def it_holds_no_content(taken: Taken, w: World) -> None:
    [ada] = w.people
    token = w.environment["HASHEE_AGENT_TOKEN"]
    for secret in (
        "private word",
        "Ada",
        ada.account.user_id,
        KEY,
        token,
        w.environment["HASHEE_X25519_PRIVATE_BASE64"],
    ):
        assert secret.encode() not in taken.raw, secret
    assert KEY not in w.log()


async def test_a_retry_is_a_second_span_of_the_same_trace_and_log_lines_name_it(tmp_path: Path) -> None:
    with receiver() as taken:
        settings = TELEMETRY | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": taken.url,
            "HASHEE_HANDLER": "tests.telemetry.handlers:agent",
            "HASHEE_LOG_FORMAT": "json",
            "HASHEE_RETRY_SECONDS": "0.1",
        }
        async with world(tmp_path, **settings) as w:
            [ada] = w.people
            await ada.say(w.conversations[ada], "fail once, quoting me")
            await w.all_answered({ada: ["echo: fail once, quoting me"]})
            await taken.until(lambda: len(named(of_a_message(taken), "handle")) == 2)
        spans = of_a_message(taken)
        (receive,), (failed, done) = named(spans, "receive"), named(spans, "handle")
        assert failed.parent_id == done.parent_id == receive.span_id
        assert (failed.is_error, failed.attributes["error.type"]) == (True, "RuntimeError")
        assert [span.attributes["hashee.attempt"] for span in (failed, done)] == [1, 2]
        assert [span.attributes["hashee.outcome"] for span in (failed, done)] == ["retry", "done"]
        assert done.attributes["owner.tier"] == "gold"
        lines = [json.loads(line) for line in w.log().splitlines() if line.startswith("{")]
        [line] = [line for line in lines if line["event"] == "job: the handler failed"]
        assert (line["trace_id"], line["span_id"]) == (failed.trace_id, failed.span_id)
        ours = [span for span in spans if span.name in OURS]
        assert not any("quoting me" in str(span) for span in ours)


async def test_messages_go_on_while_the_receiver_says_nothing_and_so_does_the_end(tmp_path: Path) -> None:
    with receiver("stall") as taken:
        async with world(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=taken.url, **TELEMETRY) as w:
            [ada] = w.people
            await ada.say(w.conversations[ada], "hello")
            await w.all_answered({ada: ["echo: hello"]})
            await w.until(lambda: "telemetry: its receiver takes no" in w.log())
            await ada.say(w.conversations[ada], "still there?")
            await w.all_answered({ada: ["echo: hello", "echo: still there?"]})
            assert w.up is not None
            up = w.up
        assert up.exit_code == 0
