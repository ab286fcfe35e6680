"""A whole conversation as the Redis user that the documents name: it suffices, and nothing else is ever asked for."""

import base64
import os
import re
from functools import partial
from pathlib import Path

import redis
import trio

from bus.transport.lua import Rights, Scripts
from supervisor.recovery.redis_check import ACL_RULES
from tests.commands import run_command
from tests.redis_server import running_redis
from tests.world import World, world

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("docs/settings.md", "deploy/kubernetes/secrets.example.yaml")
COMMANDS = (("status", "--json"), ("quarantine", "list"))


async def command(w: World, *arguments: str) -> None:
    done = await trio.to_thread.run_sync(partial(run_command, *arguments, environ=w.environment))
    done.check_returncode()


async def test_the_documented_user_may_do_all_that_is_done_and_is_refused_nothing(tmp_path: Path) -> None:
    for document in DOCUMENTS:
        assert ACL_RULES in (ROOT / document).read_text(encoding="utf-8"), document
    (tmp_path / "redis").mkdir()
    with running_redis(tmp_path / "redis") as server:
        admin = redis.Redis(unix_socket_path=str(server.socket), protocol=2, decode_responses=True)
        admin.execute_command("ACL", "SETUSER", "agent", "on", ">word", *ACL_RULES.split())
        settings = {
            "HASHEE_REDIS_URL": f"unix://agent:word@{server.socket}",
            "HASHEE_STORE_KEY": base64.b64encode(os.urandom(32)).decode(),
            "HASHEE_STRIKES": "off",
        }
        async with world(tmp_path, people=("Ada", "Ben"), **settings) as w:
            expected = {person: list[str]() for person in w.people}
            for turn in range(3):
                for person in w.people:
                    await person.say(w.conversations[person], f"{turn}")
                    expected[person].append(f"echo: {turn}")
                if turn < 2:
                    await w.kill(w.worker_pids()[0] if turn == 0 else w.supervisor_pid())
            await w.all_answered(expected)
            await w.until_ready()
            for arguments in COMMANDS:
                await command(w, *arguments)
            assert "forbidden" not in w.page("/readyz")
        looking, plain = (Scripts.load(rights)["finish"].sha1.decode() for rights in (Rights.MAY_CHANGE, Rights.STAND))
        assert admin.script_exists(looking, plain) == [True, False]
        # The agent has drained and ended by now.
        refused = [dict(zip(one[::2], one[1::2], strict=True)) for one in admin.execute_command("ACL", "LOG")]
        assert [(one["reason"], one["object"]) for one in refused] == []
        assert not re.search(r"forbidden|NOPERM", (tmp_path / "up.log").read_text(encoding="utf-8"))
