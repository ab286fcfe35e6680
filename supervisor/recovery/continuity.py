"""Which server answers, and which one it may be the same as without having lost anything (DESIGN rule 17). Values only.

A server's run id is of one process. Its replication id changes whenever its history may have. The one change that means nothing is that of a
master to which a first replica attaches, or which has had none for an hour: it begins a replication id without a former one. A server that was a
replica meanwhile has a former one, until it has been without replicas for that hour; hence the look within the last minute.
A count of writes proves nothing of a Redis that is given: workers push a replica that lagged past the number that was seen.
"""

import msgspec

LATELY_SECONDS = 60.0
NO_REPLICATION = "0" * 40


class ServerIdentity(msgspec.Struct, frozen=True):
    """As `INFO` tells; `former`: the replication id before this one."""

    run_id: str = ""
    replication: str = ""
    former: str = ""

    @property
    def name(self) -> str:
        """Of its process and its history together."""
        return f"{self.run_id}:{self.replication}"


def server_of(info: bytes) -> ServerIdentity:
    """From the answer of `INFO`, which has at least the sections server and replication."""
    lines = info.decode("ascii", "replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return ServerIdentity(facts.get("run_id", ""), facts.get("master_replid", ""), facts.get("master_replid2", ""))


def goes_on(seen: ServerIdentity, now: ServerIdentity) -> bool:
    """Whether `now` is the process of `seen`, which begins another history and gives up none. `seen`: within the last minute."""
    return seen.run_id != "" and seen.run_id == now.run_id and now.former == NO_REPLICATION
