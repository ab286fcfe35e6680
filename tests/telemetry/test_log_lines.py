"""A line of a supervisor's log names the span of the message, or of the reply, that it is about."""

from pathlib import Path

from structlog.testing import capture_logs

from bus.telemetry.traces import EndedSpan, LiveTracing, of_log_line, span_id, trace_id
from supervisor.observe.tracing import MessageTraces
from tests.redis_server import redis_server
from tests.supervisor.builders import open_core, sending, text_reply, until, worker
from tests.supervisor.doubles import FakeRest
from tests.supervisor.inbound.test_inbound import tampered
from tests.supervisor.person import Person


async def test_a_log_line_names_the_span_of_its_message_and_of_its_reply(tmp_path: Path) -> None:
    spans: list[EndedSpan] = []
    with redis_server(tmp_path) as url, capture_logs([lambda *said: {**said[2], **of_log_line()}]) as lines:
        async with open_core(url, FakeRest()) as core:
            core.trace_with(MessageTraces(LiveTracing(1.0, spans.append)))
            core.connection.connect()
            await core.prekeys.publish()
            ada = Person(core.rest)
            ada.meet()
            await core.push(ada.say())
            await core.push(tampered(ada.say("genuine"), "forged"))
            await core.owners.note(core.rest.related[0], "revoked")
            async with worker(core) as jobs:
                [job] = await jobs.take(1)
                await jobs.finish(job, last=[("0", text_reply("too late"))])
                jobs.release(job)

            async def is_dropped() -> bool:
                return any(line["event"] == "reply: dead letter" for line in lines)

            async with sending(core):
                await until(is_dropped)
    told = {span.error: (trace_id(span.span), span_id(span.span)) for span in spans if span.error}
    said = {line["event"]: (line.get("trace_id"), line.get("span_id")) for line in lines}
    assert said["message: quarantined"] == told["bad_signature"]
    assert said["reply: dead letter"] == told["no_grant"]
