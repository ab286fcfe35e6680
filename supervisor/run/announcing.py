"""Registers the agent's capability manifest at the relay, once after a start: warns where it breaks with the one that was registered before."""

from typing import Any, Final, Protocol

import structlog

from bus.transport.backoff import Backoff
from supervisor.relay.rest import RestFailed
from supervisor.settings.manifest import Manifest, breaks, is_major

log = structlog.get_logger()

MOST_NAMED: Final = 5


class Relay(Protocol):
    """What is asked of the relay."""

    async def manifest(self) -> dict[str, Any]: ...
    async def set_manifest(self, manifest: dict[str, Any]) -> None: ...


async def announce(relay: Relay, manifest: Manifest) -> None:
    """Registers it, however long the relay is away. One that the relay refuses is left, and said so."""
    backoff = Backoff()
    while True:
        try:
            before = await relay.manifest()
            if before != manifest.as_json():
                _warn(before, manifest)
                await relay.set_manifest(manifest.as_json())
        except RestFailed as failed:
            if failed.is_final:
                log.error("manifest: the relay refuses it, the one before stays", status=failed.status)
                return
            await backoff.wait()
        else:
            log.info("manifest: registered", version=manifest.agent_version, tools=len(manifest.tools))
            return


def _warn(before: dict[str, Any], manifest: Manifest) -> None:
    broken = breaks(before, manifest)
    if broken and not is_major(before, manifest):
        log.warning(
            "manifest: it breaks with the one before, and its version does not say so: raise the first number of agent_version",
            breaks="; ".join(broken[:MOST_NAMED]),
            more=max(0, len(broken) - MOST_NAMED),
        )
