"""Sends spans and metrics from a bounded queue, by a thread of its own.

`put` never waits and never fails. While the receiver is away the oldest spans are kept, and those that no longer fit are lost, counted
and reported once in a while. The end of the process waits a moment for the last of them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from bus.telemetry.receiver import Receiver, RequestFate, RequestOutcome
from bus.telemetry.settings import TelemetrySettings

BATCH = 512
CLOSE_SECONDS = 2.0
SAY_AGAIN_SECONDS = 600.0

Span = TypeVar("Span")
Encode = Callable[[Sequence[Span]], bytes]
Measure = Callable[[], bytes]


class Say(Protocol):
    """A logger's method, which writes a line with values; called from the thread."""

    def __call__(self, event: str, **values: object) -> object: ...


class Shipper(Generic[Span]):
    """The queue and the thread of one process."""

    def __init__(
        self,
        settings: TelemetrySettings,
        *,
        encode: Encode[Span],
        measure: Measure | None,
        warn: Say,
        inform: Say,
    ) -> None:
        """`encode` makes a request of spans, `measure` one of the present metrics (None: no metrics are sent)."""
        self._receiver = Receiver(settings)
        self._encode = encode
        self._measure = measure
        self._metrics_seconds = settings.metrics_seconds
        self._delay_seconds = settings.delay_seconds
        self._most_waiting = settings.most_waiting
        where = {"receiver": settings.endpoint.shown}
        self._spans = _Troubles(
            lambda reason: warn("telemetry: its receiver takes no traces", **where, reason=reason),
            lambda: inform("telemetry: its receiver takes traces again", **where, spans_lost=self.lost),
        )
        self._metrics = _Troubles(
            lambda reason: warn("telemetry: its receiver takes no metrics", **where, reason=reason),
            lambda: inform("telemetry: its receiver takes metrics again", **where),
        )
        self._waiting: deque[Span] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self.lost = 0
        """How many spans were lost since the start."""
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, span: Span) -> None:
        """Queues a span, from any thread; never waits, never raises."""
        if len(self._waiting) >= self._most_waiting or self._is_closing:
            self._lose(1)
            return
        self._waiting.append(span)
        if len(self._waiting) % BATCH == 0:
            self._wake.set()

    def close(self, within_seconds: float = CLOSE_SECONDS) -> None:
        """Sends what is queued, as far as the time allows; later spans are lost."""
        self._is_closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(within_seconds)

    def _lose(self, count: int) -> None:
        with self._lock:
            self.lost += count

    def _run(self) -> None:
        metrics_due = time.monotonic() + self._metrics_seconds
        is_last = False
        while not is_last:
            self._wake.wait(self._delay_seconds)
            self._wake.clear()
            is_last = self._is_closing
            self._spans.heard(self._tried(self._ship_spans))
            if self._measure is not None and (is_last or time.monotonic() >= metrics_due):
                metrics_due = time.monotonic() + self._metrics_seconds
                self._metrics.heard(self._tried(self._ship_metrics))
        self._receiver.close()

    def _tried(self, step: Callable[[], RequestOutcome | None]) -> RequestOutcome | None:
        """Runs a step and reports any exception, so that the thread goes on: nothing would be sent without it."""
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - said by its type, since its text may quote what was to be sent
            return RequestOutcome(RequestFate.NEVER, type(error).__name__)

    def _ship_spans(self) -> RequestOutcome | None:
        """Sends all queued spans until one request is not taken; returns the last outcome, None if none was queued."""
        verdict: RequestOutcome | None = None
        while batch := list(islice(self._waiting, BATCH)):
            verdict, is_kept = None, False
            try:
                verdict = self._receiver.post("traces", self._encode(batch))
                is_kept = verdict.fate is RequestFate.LATER
                if is_kept:
                    return verdict
            finally:
                if not is_kept:  # also spans that cannot be encoded, which would block all others
                    self._take_off(len(batch), is_taken=verdict is not None and verdict.fate is RequestFate.TAKEN)
        return verdict

    def _take_off(self, count: int, *, is_taken: bool) -> None:
        for _ in range(count):
            self._waiting.popleft()
        if not is_taken:
            self._lose(count)

    def _ship_metrics(self) -> RequestOutcome:
        assert self._measure is not None  # noqa: S101 - asked by the caller
        return self._receiver.post("metrics", self._measure())


class _Troubles:
    """Reports a signal's failures: when they begin, once in a while, and when they are over."""

    def __init__(self, warn: Callable[[str], object], inform: Callable[[], object]) -> None:
        self._warn = warn
        self._inform = inform
        self._is_said = False
        self._quiet_until = 0.0

    def heard(self, verdict: RequestOutcome | None) -> None:
        """Takes the outcome of the last request; None: there was nothing to send."""
        if verdict is None:
            return
        if not verdict.reason and self._is_said:
            self._is_said = False
            self._inform()
        elif verdict.reason and not self._is_said and time.monotonic() >= self._quiet_until:
            self._is_said = True
            self._quiet_until = time.monotonic() + SAY_AGAIN_SECONDS
            self._warn(verdict.reason)
