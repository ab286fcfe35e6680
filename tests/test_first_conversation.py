"""One real conversation: relay, keeper, Redis, supervisor, workers as processes; a person with real keys."""

import json
from pathlib import Path

import trio

from bus.transport.client import open_redis
from bus.transport.lua import Rights, Scripts
from tests.waiting import waiting_for
from tests.world import World, world

SEED_METRICS = (
    "hashee_connection_status 1.0",
    'hashee_message_inbound_total{conv_type="h2a",payload_type="text"} 7.0',
    'hashee_message_outbound_total{conv_type="h2a",payload_type="text"} 7.0',
    'hashee_send_duration_ms_count{conv_type="h2a"} 7.0',
)


async def test_a_person_is_answered_once_each_and_in_order_also_streamed_and_after_a_reconnect(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        texts = [f"message {number}" for number in range(5)]
        for text in texts:
            await ada.say(conversation, text)
        await w.all_answered({ada: [f"echo: {text}" for text in texts]})

        story = " ".join(f"word{number}" for number in range(12))
        await ada.say(conversation, f"/stream {story}")
        await w.all_answered({ada: [*(f"echo: {text}" for text in texts), f"echo: {story}"]})
        assert ada.counts["streams"] == 1
        assert ada.counts["deltas"] > 1

        await w.api.fault("disconnect", owner_id=w.environment["HASHEE_AGENT_ID"])
        await ada.say(conversation, "still there?")
        await w.all_answered({ada: [*(f"echo: {text}" for text in texts), f"echo: {story}", "echo: still there?"]})
        await the_status_page_tells_of_it(w)
        await no_script_looks_at_rights_that_nobody_changes(w)


async def the_status_page_tells_of_it(w: World) -> None:
    with waiting_for("/metrics to show the seed's metrics", 10):
        while not all(line in w.page("/metrics") for line in SEED_METRICS):
            await trio.sleep(0.05)
    await w.until_ready()
    readiness = json.loads(w.page("/readyz"))
    names = {check["name"] for check in readiness["checks"]}
    assert names == {"loop", "relay", "prekeys", "identity", "catch-up", "redis", "bus", "intake", "workers"}


async def no_script_looks_at_rights_that_nobody_changes(w: World) -> None:
    """Supervisor and workers know that the Redis is their own."""
    hashes = [Scripts.load(rights)["finish"].sha1 for rights in (Rights.MAY_CHANGE, Rights.STAND)]
    async with open_redis(f"unix://{w.redis_socket}", Scripts({})) as client:
        assert await client.command("SCRIPT", "EXISTS", *hashes) == [0, 1]
