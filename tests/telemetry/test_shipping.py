"""The way out of a process, with real sockets: what waits has a bound, a receiver's faults hold up nobody, and each loss is counted."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from bus.telemetry.settings import Endpoint, TelemetrySettings
from bus.telemetry.shipping import Shipper
from tests.telemetry.receiver import Taken, receiver, wait_until


class Said:
    """The lines of the log."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, object]] = []
        self.infos: list[dict[str, object]] = []

    def warn(self, event: str, **values: object) -> None:
        self.warnings.append({"event": event, **values})

    def inform(self, event: str, **values: object) -> None:
        self.infos.append({"event": event, **values})


def settings_for(url: str, delay_seconds: float = 3600.0, **others: Any) -> TelemetrySettings:
    host, _, port = url.removeprefix("http://").partition(":")
    return TelemetrySettings(
        endpoint=Endpoint("http", host, int(port)),
        headers={},
        ca=None,
        resource={},
        sends_traces=True,
        sends_metrics=True,
        ratio=1.0,
        metrics_seconds=3600.0,
        delay_seconds=delay_seconds,
        **others,
    )


def encode(spans: Sequence[bytes]) -> bytes:
    if b"spoiled" in spans:
        raise ValueError("this text quotes what was to be sent")
    return b",".join(spans)


@contextmanager
def shipper(url: str, **others: Any) -> Iterator[tuple[Shipper[bytes], Said]]:
    said = Said()
    made: Shipper[bytes] = Shipper(
        settings_for(url, 0.02, **others), encode=encode, measure=None, warn=said.warn, inform=said.inform
    )
    made.start()
    try:
        yield made, said
    finally:
        made.close(5.0)


def bodies(taken: Taken) -> list[bytes]:
    return [body for _, _, body in list(taken.requests)]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("stall", "no answer in time"),
        ("hang up", "it hangs up"),
        ("garbage", "its answer is no HTTP"),
        (429, "HTTP status 429"),
        (503, "HTTP status 503"),
    ],
)
def test_whatever_the_receiver_does_the_thread_goes_on_and_sends_again(how: str | int, reason: str) -> None:
    timeout_seconds = 0.1 if how == "stall" else 10.0
    with receiver(how) as taken, shipper(taken.url, timeout_seconds=timeout_seconds) as (made, said):
        made.put(b"first")
        wait_until(lambda: said.warnings)
        assert said.warnings == [
            {"event": "telemetry: its receiver takes no traces", "receiver": taken.url, "reason": reason}
        ]
        taken.behave = "take"
        wait_until(lambda: said.infos)
        assert bodies(taken) == [b"first"]
        assert made.lost == 0
        taken.behave, tried = how, taken.tried
        made.put(b"second")
        wait_until(lambda: taken.tried >= tried + 3)  # none of these tries is said
        taken.behave = "take"
        wait_until(lambda: bodies(taken) == [b"first", b"second"])
        assert len(said.warnings) == 1


def test_a_receiver_that_is_away_is_waited_for_and_what_no_longer_fits_is_counted() -> None:
    with receiver() as taken:
        url = taken.url
    with shipper(url, most_waiting=3) as (made, said):
        for number in range(5):
            made.put(b"%d" % number)
        wait_until(lambda: said.warnings)
        assert made.lost == 2
        assert said.warnings[0]["reason"] == "Connection refused"


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_what_would_be_refused_again_is_given_up_and_counted(status: int) -> None:
    with receiver(status) as taken, shipper(taken.url) as (made, said):
        made.put(b"refused")
        wait_until(lambda: made.lost == 1)
        wait_until(lambda: said.warnings)
        taken.behave = "take"
        made.put(b"taken")
        wait_until(lambda: bodies(taken) == [b"taken"])


def test_what_cannot_be_encoded_is_in_nobodys_way_and_its_text_is_not_said() -> None:
    with receiver() as taken, shipper(taken.url) as (made, said):
        made.put(b"spoiled")
        wait_until(lambda: made.lost == 1)
        made.put(b"whole")
        wait_until(lambda: bodies(taken) == [b"whole"])
        assert [warning["reason"] for warning in said.warnings] == ["ValueError"]


def test_a_connection_that_the_receiver_has_ended_meanwhile_is_opened_anew() -> None:
    with receiver() as taken, shipper(taken.url) as (made, said):
        made.put(b"1")
        wait_until(lambda: bodies(taken) == [b"1"])
        taken.hang_up()
        made.put(b"2")
        wait_until(lambda: bodies(taken) == [b"1", b"2"])
        assert said.warnings == []


def test_the_end_of_a_process_sends_what_waits_and_waits_for_a_moment_alone() -> None:
    said = Said()
    with receiver() as taken:
        whole: Shipper[bytes] = Shipper(
            settings_for(taken.url), encode=encode, measure=lambda: b"metrics", warn=said.warn, inform=said.inform
        )
        whole.start()
        whole.put(b"last words")
        whole.close(30.0)
        assert bodies(taken) == [b"last words", b"metrics"]
        whole.put(b"too late")
        assert whole.lost == 1
    with receiver("stall") as taken:
        stalled: Shipper[bytes] = Shipper(
            settings_for(taken.url), encode=encode, measure=None, warn=said.warn, inform=said.inform
        )
        stalled.start()
        stalled.put(b"last words")
        began = time.monotonic()
        stalled.close(0.1)
        assert time.monotonic() - began < 4.0  # less than the receiver's own limit of 5 s


def test_whoever_tells_a_span_does_not_wait_for_the_receiver() -> None:
    with receiver("stall") as taken, shipper(taken.url) as (made, _):
        made.put(b"the thread is with this one")
        threads = [threading.Thread(target=many, args=(made,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3.0)
        assert not any(thread.is_alive() for thread in threads)
        assert made.lost > 1000
        taken.ended.set()


def many(made: Shipper[bytes]) -> None:
    for _ in range(2000):
        made.put(b"x")
