"""In a cluster the node that has our keys is looked at and searched, whichever node the settings name."""

from pathlib import Path

from bus.records.keys import Keys
from supervisor.doctor.leaks import needles_of
from supervisor.doctor.leaks_redis import look_into_redis
from supervisor.doctor.redis import look_at_redis
from tests.bus.transport.several_redis import SLOTS, several, until, with_cluster
from tests.supervisor.doctor.builders import case_of, named
from tests.supervisor.settings.environment import AGENT_ID, STORE_KEY

CANARY = "leak-test-00112233445566778899aabbccddeeff"


def test_the_node_that_has_our_keys_is_looked_at_whichever_is_named(tmp_path: Path) -> None:
    keys = Keys(AGENT_ID)
    with several(tmp_path) as servers:
        ports = with_cluster(servers, masters=2)
        slot = int(servers.ask(ports[0]).execute_command("CLUSTER", "KEYSLOT", keys.epoch))
        owner, other = ports if slot < SLOTS // 2 else reversed(ports)
        for port in ports:  # one that does not know the others yet answers CLUSTERDOWN, also to who is to be sent on
            until(lambda port=port: "cluster_state:ok" in str(servers.ask(port).execute_command("CLUSTER", "INFO")))  # type: ignore[misc]
        servers.ask(owner).set(keys.epoch, CANARY)
        servers.ask(owner).config_set("maxmemory-policy", "allkeys-lru")
        for named_first in (owner, other):
            url = f"redis+cluster://127.0.0.1:{named_first}"
            case = case_of(tmp_path / "state", HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
            assert named(look_at_redis(case))["redis: fit"].verdict == "bad"
            found = named(look_into_redis(case, needles_of(case, CANARY)))
            assert found[f"leaks: Redis key {keys.epoch}"].verdict == "bad"
            assert found["leaks: Redis"].said.startswith("1 keys ")
