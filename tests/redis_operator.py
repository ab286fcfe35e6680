"""Whoever runs a Redis of the tests, whose user is `agent`: takes rights and room away, and gives them back."""

import contextlib
import time

import redis

from tests.redis_server import RedisServer


class RedisOperator:
    """Of one server; `url` is the user's."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.admin = redis.Redis(unix_socket_path=str(server.socket), protocol=2, decode_responses=True)
        self.url = f"unix://agent:first@{server.socket}"
        self.allow()

    def acl(self, *rules: str) -> None:
        self.admin.execute_command("ACL", "SETUSER", "agent", *rules)

    def allow(self) -> None:
        self.acl("reset", "on", ">first", "~*", "&*", "+@all")

    def change_password(self) -> None:
        self.acl("resetpass", ">second")

    def log_out(self) -> None:
        self.admin.execute_command("CLIENT", "KILL", "USER", "agent")

    def cannot_save(self) -> None:
        """As on a full disk: a folder stands where the file is to be put."""
        (self.server.directory / "dump.rdb").mkdir()
        self.admin.bgsave()  # before the server may begin one by itself
        self.admin.config_set("save", "1 1")

    def can_save(self) -> None:
        (self.server.directory / "dump.rdb").rmdir()
        self.admin.config_set("save", "")
        while self.admin.info("persistence")["rdb_last_bgsave_status"] != "ok":
            with contextlib.suppress(redis.ResponseError):  # one is under way
                self.admin.bgsave()
            time.sleep(0.05)
