"""The relay's side of readiness, each state by itself."""

from typing import Any, cast

import pytest
import trio

from bus.transport.readers import RedisStreamReader
from supervisor.observe.health import SILENT_SECONDS, Check
from supervisor.observe.metrics import Metrics
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.pool.workforce import Workforce
from supervisor.relay.connection import Connection
from supervisor.relay.connection_states import HOLDS, State
from supervisor.relay.relay_clock import RelayClock
from supervisor.relay.slots import ConnectionSlot
from supervisor.run.all_workers import AllWorkers
from supervisor.run.readiness import bus_check, prekeys_check, relay_check

pytestmark = pytest.mark.pure


class Facts:
    """Stands for whatever is asked: it has the fields that were given."""

    def __init__(self, **fields: object) -> None:
        vars(self).update(fields)


def relay(
    state: State,
    heard_seconds_ago: float | None,
    *,
    refusal: str | None = None,
    problem: str = "",
    standby: bool = False,
    clock: str = "",
) -> Check:
    holds = HOLDS[state]
    connection = Facts(
        shown=holds.shown,
        is_connected=holds.is_connected,
        heard_seconds_ago=heard_seconds_ago,
        refusal=refusal,
        problem=problem,
    )
    slots = Facts(is_standby=standby, detail="standby: all slots are taken")
    return relay_check(
        cast(Connection, connection), cast(ConnectionSlot, slots), cast(RelayClock, Facts(fault=lambda: clock))
    )


@pytest.mark.parametrize(
    ("found", "is_ok", "detail"),
    [
        (relay(State.CONNECTED, 1.0), True, "heard 1 s ago"),
        (
            relay(State.CONNECTED, 1.0, clock="this host's clock is wrong"),
            True,
            "heard 1 s ago; this host's clock is wrong",
        ),
        (relay(State.CONNECTED, SILENT_SECONDS), False, "heard 20 s ago"),
        (relay(State.CONNECTED, None), False, "connected"),
        (relay(State.DOUBTED, 3.0), True, "heard 3 s ago"),
        (relay(State.CONNECTING, 1.0), False, "connecting"),
        (relay(State.DISCONNECTED, None, refusal="invalid_token"), False, "refused: invalid_token"),
        (relay(State.DISCONNECTED, None, refusal="invalid_token", problem="lost"), False, "refused: invalid_token"),
        (relay(State.DISCONNECTED, None, problem="no route"), False, "disconnected: no route"),
        (relay(State.CONNECTING, None, problem="no route"), False, "connecting: no route"),
        (relay(State.DISCONNECTED, None, standby=True), True, "standby: all slots are taken"),
    ],
)
def test_the_relay_is_heard_or_nothing_is_to_be_heard(found: Check, is_ok: bool, detail: str) -> None:
    assert found == Check("relay", ok=is_ok, detail=detail)


def test_without_published_prekeys_nobody_is_ready() -> None:
    published = trio.Event()
    prekeys = cast(OwnPrekeys, Facts(published=published, problem="HTTP 503"))
    assert prekeys_check(prekeys) == Check("prekeys", ok=False, detail="HTTP 503")
    published.set()
    assert prekeys_check(prekeys) == Check("prekeys", ok=True, detail="published")


def test_one_who_waits_in_redis_and_is_kept_from_it_is_named() -> None:
    parts = [Facts(thread_name=name, trouble=trouble) for name, trouble in (("leases", ""), ("replies", "NOPERM"))]
    well, ill = (cast(RedisStreamReader, part) for part in parts)
    assert bus_check(well).ok
    assert bus_check(well, ill) == Check("bus", ok=False, detail="replies: NOPERM")


def test_an_agent_whose_workers_run_elsewhere_says_that_none_has_joined() -> None:
    pool = Facts(ready=0, crash_loop=None, not_begun=None, start_problem="", target=0)
    nothing: Any = None
    workers = AllWorkers(cast(Workforce, Facts(pool=pool)), nothing, Metrics(), "i")
    assert workers.check() == Check(
        "workers", ok=False, detail="0 ready; HASHEE_WORKERS is 0 here, and no worker elsewhere has joined"
    )
