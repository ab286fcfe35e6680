"""What `hashee-agent status` shows of a supervisor, gathered where it is known. Names and numbers, never content.

The field names are the JSON that scripts read: they are added to, never changed.
"""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec
import trio

from supervisor.health import Check
from supervisor.places import WorkerStatus

if TYPE_CHECKING:
    from supervisor.parts import Parts


class ConnectionStatus(msgspec.Struct, frozen=True):
    """`connections`: how many were authenticated since the start."""

    state: str
    refusal: str | None
    heard_seconds_ago: float | None
    connections: int


class SupervisorStatus(msgspec.Struct, frozen=True):
    """Everything of one supervisor process."""

    pid: int
    version: str
    instance: str
    uptime_seconds: float
    connection: ConnectionStatus
    checks: tuple[Check, ...]
    workers: tuple[WorkerStatus, ...]


class StatusDesk:
    """Gathers it."""

    def __init__(self, parts: "Parts", instance: str) -> None:
        self._parts = parts
        self._instance = instance
        self._began_at = trio.current_time()

    async def gather(self) -> SupervisorStatus:
        parts = self._parts
        connection = parts.connection
        return SupervisorStatus(
            pid=os.getpid(),
            version=version("hashee-agent"),
            instance=self._instance,
            uptime_seconds=round(trio.current_time() - self._began_at, 1),
            connection=ConnectionStatus(
                state=connection.state.value,
                refusal=connection.refusal,
                heard_seconds_ago=connection.heard_seconds_ago,
                connections=connection.number,
            ),
            checks=parts.checks(),
            workers=parts.pool.statuses(),
        )
