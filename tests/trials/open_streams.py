"""Which streams of the agent the relay still shows at the end of a run: each that was begun is done or aborted, whatever died."""

import trio

from sandbox.api import RelayApi

FATES = ("started", "done", "aborted", "expired")
"""What the relay counts. Expired is what nobody has ended: the relay did, after its own 30 s."""

END_SECONDS = 20.0
"""The agent looks every second for streams that no message will end, and takes two looks; less than the relay waits itself."""


async def left_open(api: RelayApi, agent_id: str) -> int:
    """Waits until every stream has ended. How many have not after so long."""
    still_open = await _count_open(api, agent_id)
    with trio.move_on_after(END_SECONDS):
        while still_open:
            await trio.sleep(0.2)
            still_open = await _count_open(api, agent_id)
    return still_open


async def _count_open(api: RelayApi, agent_id: str) -> int:
    counts = (await api.stats()).owners.get(agent_id, {})
    started, *ended = (counts.get(f"streams_{fate}", 0) for fate in FATES)
    return started - sum(ended)
