"""What must hold of the relay's side for a supervisor to be ready, each with its reason."""

from bus.transport.leases import LeaseKeeper
from bus.transport.readers import LiveSubscriber, RedisStreamReader
from supervisor.observe.health import SILENT_SECONDS, Check
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.relay.connection import Connection
from supervisor.relay.relay_clock import RelayClock
from supervisor.relay.slots import ConnectionSlot


def relay_check(connection: Connection, slots: ConnectionSlot, clock: RelayClock) -> Check:
    """An authenticated connection that is heard; or a standby, to whom the relay says nothing. A wrong clock is shown, and no reason to be red."""
    silent = connection.heard_seconds_ago
    if slots.is_standby:
        return Check("relay", ok=True, detail=slots.detail)
    if not connection.is_connected or silent is None:
        why = f"refused: {connection.refusal}" if connection.refusal else connection.shown
        if connection.problem and not connection.refusal:
            why += f": {connection.problem}"
        return Check("relay", ok=False, detail=why)
    fault = clock.fault()
    detail = f"heard {silent:.0f} s ago" + (f"; {fault}" if fault else "")
    return Check("relay", ok=silent < SILENT_SECONDS, detail=detail)


def prekeys_check(prekeys: OwnPrekeys) -> Check:
    """Without published prekeys nobody can begin a session with us."""
    published = prekeys.published.is_set()
    return Check("prekeys", ok=published, detail="published" if published else prekeys.problem)


def bus_check(*parts: LeaseKeeper | RedisStreamReader | LiveSubscriber) -> Check:
    """Those who wait in Redis with connections of their own: what keeps one from its work, by its reason (RedisFailed.reason)."""
    troubles = [f"{part.thread_name}: {part.trouble}" for part in parts if part.trouble]
    return Check(
        "bus",
        ok=not troubles,
        detail=", ".join(troubles) or "leases are renewed, replies and the live channel are read",
    )
