"""Makes spans of a message's way through this supervisor: its receipt, and the sending of each reply until the relay has it.

`MessageTraces` with `OFF` does nothing; `open_traces` makes one as the settings say. Spans have ids of messages and conversations, reasons,
counts and times, as log lines do: no text, no name, no user. Nothing here waits, and nothing decides about a message.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import msgspec
import structlog

from bus.records.records import SentNote
from bus.steps.store import Intake
from bus.telemetry.settings import NowhereToSend, TelemetrySettings
from bus.telemetry.shipping import Shipper
from bus.telemetry.traces import (
    CONSUMER,
    NONE,
    OFF,
    PRODUCER,
    EndedSpan,
    LiveTracing,
    Tracing,
    Value,
    checked,
)
from supervisor.observe.metrics import Metrics

RECEIVE = "receive"
SEND = "send"
MOST_SENDS = 10_000
"""So many sends without an acknowledgement have their times kept."""

NS_IN_MS = 1_000_000

log = structlog.get_logger()


class _Send(msgspec.Struct):
    """A reply on its way. `span`: of its sending; `parent`: the one that made it."""

    conversation_id: str
    span: str
    parent: str
    read_ns: int
    committed_ns: int = 0


class MessageTraces:
    """The spans of one supervisor. With `OFF` none is begun, kept or reported."""

    def __init__(self, tracing: Tracing = OFF, *, most_sends: int = MOST_SENDS) -> None:
        self._tracing = tracing
        self._most_sends = most_sends
        self._sends: OrderedDict[str, _Send] = OrderedDict()

    # Received

    def arrived(self) -> str:
        """Returns the span that receives a message that has just come."""
        return self._tracing.begin()

    def received(
        self, span: str, began_ns: int, ids: tuple[str, str], outcome: Intake | None, error: str | None
    ) -> None:
        """Ends the span of a message that was taken in or put into quarantine; `ids`: message and conversation, `error`: why it is unreadable."""
        if not span or outcome is None or not (outcome.is_new or error):
            return
        attributes = _attributes(*ids, "quarantined" if error else outcome.value.decode())
        self._tracing.tell(
            EndedSpan(span, NONE, RECEIVE, CONSUMER, began_ns, time.time_ns(), attributes, error=error or "")
        )

    # Sent

    def reply_read(self, trace: str, client_message_id: str, conversation_id: str) -> str:
        """Returns the span that sends a reply with this trace, which was just taken."""
        if not self._tracing.is_on or not (parent := checked(trace)):
            return NONE
        known = self._sends.get(client_message_id)
        if known is None:
            span = self._span_of(parent, client_message_id)
            known = self._sends[client_message_id] = _Send(conversation_id, span, parent, time.time_ns())
            while len(self._sends) > self._most_sends:
                self._sends.popitem(last=False)
        return known.span

    def committed(self, client_message_id: str) -> None:
        """Notes that a reply was encrypted and stands in the outbox."""
        send = self._sends.get(client_message_id)
        if send is not None:
            send.committed_ns = time.time_ns()
            self._sends.move_to_end(client_message_id)

    def acknowledged(self, client_message_id: str, conversation_id: str, sent: SentNote, sent_ms: int | None) -> None:
        """Ends the span of a reply that the relay has, with what is known here: another process may have sent it."""
        send = self._sends.pop(client_message_id, None)
        if send is None and self._tracing.is_on and (parent := checked(sent.trace)):
            span = self._span_of(parent, client_message_id)
            send = _Send(conversation_id, span, parent, sent.emitted_ms * NS_IN_MS)
        if send is not None:
            self._tell_send(client_message_id, send, "acknowledged", sent_ms=sent_ms, kind=sent.payload_type)

    def refused(self, client_message_id: str, reason: str) -> None:
        """Ends the span of a reply that became a dead letter."""
        send = self._sends.pop(client_message_id, None)
        if send is not None:
            self._tell_send(client_message_id, send, "dead", error=reason)

    def _span_of(self, parent: str, client_message_id: str) -> str:
        """Returns the span's name, which is the same in every process."""
        return self._tracing.child(parent, sha256(client_message_id.encode()).hexdigest()[:16])

    def _tell_send(
        self,
        client_message_id: str,
        send: _Send,
        outcome: str,
        *,
        sent_ms: int | None = None,
        kind: str = "",
        error: str = "",
    ) -> None:
        attributes = _attributes(client_message_id, send.conversation_id, outcome)
        if kind:
            attributes["hashee.payload_type"] = kind
        events = []
        if send.committed_ns:
            events.append(("encrypted", send.committed_ns))
        if sent_ms is not None:
            events.append(("sent", sent_ms * NS_IN_MS))
        self._tracing.tell(
            EndedSpan(
                send.span, send.parent, SEND, PRODUCER, send.read_ns, time.time_ns(), attributes, error, tuple(events)
            )
        )


def _attributes(message_id: str, conversation_id: str, outcome: str) -> dict[str, Value]:
    return {
        "messaging.message.id": message_id,
        "messaging.message.conversation_id": conversation_id,
        "hashee.outcome": outcome,
    }


@contextmanager
def open_traces(
    settings: TelemetrySettings | NowhereToSend | None, metrics: Metrics, instance: str
) -> Iterator[MessageTraces]:
    """Gives the traces that the settings ask for, and sends the metrics; the end of the block waits a moment for the last of them."""
    if isinstance(settings, NowhereToSend):
        log.warning("telemetry: not sent", reason=settings.reason)
        yield MessageTraces()
        return
    if settings is None:
        yield MessageTraces()
        return
    # Both load OpenTelemetry.
    from bus.telemetry.encoding import encoder  # noqa: PLC0415
    from supervisor.observe.otlp_metrics import measurer  # noqa: PLC0415

    who = {**settings.resource, "service.instance.id": instance, "hashee.role": "supervisor"}
    shipper: Shipper[EndedSpan] = Shipper(
        settings,
        encode=encoder(who),
        measure=measurer(metrics.registry, who) if settings.sends_metrics else None,
        warn=log.warning,
        inform=log.info,
    )
    metrics.spans_lost.set_function(lambda: shipper.lost)
    shipper.start()
    log.info("telemetry: sent", receiver=settings.endpoint.shown)
    try:
        yield MessageTraces(LiveTracing(settings.ratio, shipper.put) if settings.sends_traces else OFF)
    finally:
        shipper.close()
