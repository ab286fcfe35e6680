"""Identifies the Redis server that answers, and tells whether it can be the former one without having lost anything (DESIGN rule 17).

A server's run id is of one process. Its replication id changes whenever its history may have changed. Only one change is harmless: a master
to which a first replica attaches, or which has had none for an hour, begins a new replication id without a former one. A server that was a
replica meanwhile has a former one, until it has been without replicas for that hour; so the last check must be within the last minute.
The write count proves nothing about an operator's Redis: workers can push a lagging replica past the count that was seen.
"""

import msgspec

LATELY_SECONDS = 60.0
NO_REPLICATION = "0" * 40


class ServerIdentity(msgspec.Struct, frozen=True):
    """The identity of a server, from `INFO`; `former`: the replication id before this one."""

    run_id: str = ""
    replication: str = ""
    former: str = ""

    @property
    def name(self) -> str:
        """The name of its process and its history together."""
        return f"{self.run_id}:{self.replication}"


def server_of(info: bytes) -> ServerIdentity:
    """Reads the identity from an answer of `INFO` with at least the sections server and replication."""
    lines = info.decode("ascii", "replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return ServerIdentity(facts.get("run_id", ""), facts.get("master_replid", ""), facts.get("master_replid2", ""))


def goes_on(seen: ServerIdentity, now: ServerIdentity) -> bool:
    """Returns whether `now` is the process of `seen` (within the last minute) with a new replication id and an unbroken history."""
    return seen.run_id != "" and seen.run_id == now.run_id and now.former == NO_REPLICATION
