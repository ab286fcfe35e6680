"""Finds out whether another agent with our identity runs on another store: both look healthy, and neither can read what is sealed for the other.

The relay shows one signed prekey of an agent: the one that was published last. One that our identity has signed and our store does not
know was published by a twin, or by ourselves before a store was lost or restored. So ours is published again, which a lost past never
answers: seen once more after that, it is a twin. All supervisors of one store know each other's prekeys and are none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from bus.transport.wire import RedisFailed
from crypto.errors import Unreadable
from crypto.identity import LocalDevice
from crypto.prekeys import Bundle, bundle_from_json, check_bundle
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.relay.rest import Rest, RestFailed

log = structlog.get_logger()

FOUND = (
    "another agent with this identity runs on another store: it publishes its prekeys over ours (docs/runbooks/twin.md)"
)
NONE = "nobody else publishes keys of this agent"


@dataclass(frozen=True)
class TwinTimes:
    """Times in seconds. Each look costs a request and a one-time prekey: so there is one every few minutes, closer for a while after a sighting.

    `gone`: without a sighting for so long there is no twin any more. `remembered`: for so long after a sighting a single one is enough.
    """

    look: float = 180.0
    look_closer: float = 60.0
    closer_for: float = 600.0
    gone: float = 900.0
    remembered: float = 86_400.0
    say_again: float = 3600.0


class Sightings:
    """Keeps what was seen, and says what it proves. `now`: seconds of one clock that only goes forward."""

    def __init__(self, times: TwinTimes) -> None:
        self._times = times
        self._seen_at: float | None = None
        self._answered = False
        """Ours was published again after a sighting."""
        self._is_twin = False

    def another(self, now: float) -> bool:
        """Called when another signed prekey of our identity was shown. Returns whether that proves a twin."""
        self._forget(now)
        self._is_twin = self._is_twin or self._answered
        self._seen_at = now
        return self._is_twin

    def published_again(self) -> None:
        """Called when ours has replaced what was seen."""
        self._answered = True

    def is_twin(self, now: float) -> bool:
        """Whether a twin was proven and has been seen of late."""
        self._is_twin = self._is_twin and self._ago(now) < self._times.gone
        return self._is_twin

    def wait_seconds(self, now: float) -> float:
        """Returns the seconds until the next look."""
        return self._times.look_closer if self._ago(now) < self._times.closer_for else self._times.look

    def _forget(self, now: float) -> None:
        if self._ago(now) >= self._times.remembered:
            self._answered = False

    def _ago(self, now: float) -> float:
        return float("inf") if self._seen_at is None else now - self._seen_at


class TwinWatch:
    """Looks for a twin on behalf of one supervisor. Of several on one store only the one that `speaks` looks."""

    def __init__(
        self,
        prekeys: OwnPrekeys,
        rest: Rest,
        *,
        device: LocalDevice,
        metrics: Metrics,
        speaks: Callable[[], bool],
        times: TwinTimes | None = None,
    ) -> None:
        self._prekeys = prekeys
        self._rest = rest
        self._device = device
        self._metrics = metrics
        self._speaks = speaks
        self._times = times or TwinTimes()
        self._sightings = Sightings(self._times)
        self._is_twin = False
        self._said: dict[str, float] = {}
        metrics.twin.set(0)

    async def run(self) -> None:
        """Looks every few minutes, until cancelled."""
        await self._prekeys.published.wait()
        while True:
            await trio.sleep(self._sightings.wait_seconds(trio.current_time()))
            if self._speaks():
                await self._look()
            else:
                self._sightings = Sightings(self._times)  # whoever looks now finds out by itself
            self._judge()

    def check(self) -> Check:
        """Returns the state for readiness: not ready while there is a twin."""
        return Check("identity", ok=not self._is_twin, detail=FOUND if self._is_twin else NONE)

    async def _look(self) -> None:
        try:
            if await self._prekeys.recognises(await self.shown()):
                return
            log.warning(
                "identity: the relay shows a signed prekey of ours that this store does not know; ours is published again"
            )
            self._sightings.another(trio.current_time())
            await self._prekeys.publish()
            self._sightings.published_again()
        except (RestFailed, RedisFailed) as error:
            self._say(log.warning, "identity: it cannot be looked for a twin", str(error))
        except Unreadable as error:
            self._say(
                log.error, "identity: what the relay shows as our prekeys is not signed by us", error.reason.value
            )

    async def shown(self) -> Bundle:
        """Fetches what the relay shows as our prekeys. Raises RestFailed; Unreadable if we have not signed it."""
        owner_id = self._device.owner_id
        shown = bundle_from_json(await self._rest.agent_keys(owner_id), owner_id)
        check_bundle(shown, self._device.identity.public)
        return shown

    def _judge(self) -> None:
        before, self._is_twin = self._is_twin, self._sightings.is_twin(trio.current_time())
        self._metrics.twin.set(self._is_twin)
        if self._is_twin:
            self._say(log.error, "identity: a twin", FOUND)
        elif before:
            log.info("identity: the twin is gone")
            self._said.clear()

    def _say(self, write: Callable[..., object], event: str, reason: str) -> None:
        """Logs an event once, and again every hour while it stays so."""
        now = trio.current_time()
        if now - self._said.get(event, float("-inf")) >= self._times.say_again:
            write(event, reason=reason)
            self._said[event] = now
