"""A right that is taken away while messages flow cuts no script in its middle: what it had written would stay, without the rest of it.

While people talk each command is taken away in turn by `make drills` (rights-taken-away).
"""

from pathlib import Path

import redis

from bus.transport.lua import WRITES, Script, Scripts, commands_of
from supervisor.recovery.redis_check import ACL_RULES
from tests.redis_server import running_redis

KEY = "hashee:{agent}:key"
WORDS = ("0",) * 12


def test_a_script_that_writes_does_nothing_at_all_where_one_of_its_commands_is_forbidden(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket), protocol=2) as admin:
        admin.execute_command("ACL", "SETUSER", "agent", "on", ">word", *ACL_RULES.split())
        socket = str(server.socket)
        with redis.Redis(unix_socket_path=socket, username="agent", password="word", protocol=2) as client:
            cut = [(one.name, command) for one, command in cases() if not is_refused_whole(admin, client, one, command)]
            assert cut == []
            assert admin.keys() == []


def cases() -> list[tuple[Script, str]]:
    """Each script that writes and is more than one command, with each of its commands."""
    many = [(script, commands_of(script)) for script in Scripts.load().all()]
    found = [(script, one) for script, used in many if len(used) > 1 and used & WRITES for one in sorted(used)]
    assert len(found) > 300
    assert {one for _, one in found} >= WRITES
    return found


def is_refused_whole(admin: redis.Redis, client: redis.Redis, script: Script, command: str) -> bool:
    """Also where it would have begun: with these words most scripts would end before they come to that command."""
    admin.execute_command("ACL", "SETUSER", "agent", f"-{command}")
    try:
        client.eval(script.text.decode(), 30, *[KEY] * 30, *WORDS)
    except redis.exceptions.NoPermissionError as refused:
        return f"the '{command.lower()}" in str(refused)
    except redis.ResponseError:
        return False
    else:
        return False
    finally:
        admin.execute_command("ACL", "SETUSER", "agent", f"+{command}")
