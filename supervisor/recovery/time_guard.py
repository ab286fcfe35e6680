"""A Redis that goes back in time (failover, power loss, a restored backup) must not make the ratchet fork (DESIGN rule 17).

Every commit names the highest write count that this process has seen, and runs only on a connection on which was looked: so none is made
on an older state unnoticed. What was seen stands in the state directory too, for a process that starts after Redis and all supervisors
went down together. A copy of that directory brings back both, so a witness in memory has to know the private Redis (supervisor/recovery/witness.py);
one that is given has to be the same server with the same history (supervisor/recovery/continuity.py). Where the machine was put back with its memory
the relay's clock tells (supervisor/recovery/standstill.py), before anything is sent. Where nothing proves that all is there, sessions are started
anew, as where something shows that it is not.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio

from bus.records.keys import Keys
from bus.records.sealing import StoreKeys
from bus.steps.write_count import Found, Proof, WriteCount
from bus.transport.client import Commands, RedisClient
from bus.transport.wire import ConnectionReplaced, RedisFailed
from host.proc import boot_id
from supervisor.observe.metrics import Metrics
from supervisor.recovery.continuity import LATELY_SECONDS, ServerIdentity, goes_on, server_of
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.recovery.standstill import Pace, Standstill
from supervisor.recovery.witness import NoWitness, Witness, open_witness, witness_name
from supervisor.relay.relay_date import RelayDate
from supervisor.settings.supervisor import SupervisorSettings

NOTE_SECONDS = 1.0
FILE = "redis-seen.json"

log = structlog.get_logger()


class Seen(msgspec.Struct, frozen=True):
    """What the state directory remembers. `boot`: of this host, and `pace` of its time. `server`: of a Redis that is given, its
    replication id, for an earlier release that is put back; this one reads what stands in Redis.
    """

    count: int = 0
    epoch: int = 0
    server: str = ""
    boot: str = ""
    pace: Pace | None = None


class TimeGuard:
    """One supervisor's; `is_private`: Redis is the keeper's own, on this host's disk. `witness`: of that; None where no place has room for one."""

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        write_count: WriteCount,
        metrics: Metrics,
        *,
        state_dir: Path,
        is_private: bool,
        witness: Witness | None = None,
    ) -> None:
        self._client = client
        self._keys = keys
        self.write_count = write_count
        self._metrics = metrics
        self._file = state_dir / FILE
        self._is_private = is_private
        self._witness = witness
        self.on_back: Callable[[], None] = lambda: None
        """Told that Redis went back: the cursor did too, and what the relay has since is polled again."""
        self._seen: Seen | None = Seen()
        self._noted = Seen()
        self._has_begun = False
        self._looking = trio.Lock()
        self._server = ServerIdentity()
        self._connection = -1
        self._looked_seconds = float("-inf")
        self._standstill = Standstill()
        self._stood_still = 0.0

    @property
    def has_witness(self) -> bool | None:
        """Whether there is a place in memory for it; None for a Redis that is given, which needs none."""
        return self._witness is not None if self._is_private else None

    @property
    def witness_noted_ms(self) -> int | None:
        """When the witness was last written to, Unix time; None without one."""
        return None if self._witness is None else self._witness.noted_ms

    async def begin(self) -> None:
        """Before anything is sent: compare with what was seen before this process. Raises RedisFailed."""
        self._seen = await trio.to_thread.run_sync(_read, self._file)
        if self._seen is not None:
            self.write_count.seen(self._seen.count)
            self.write_count.epoch = max(self.write_count.epoch, self._seen.epoch)
            self._standstill.pace = self._seen.pace if self._seen.boot == boot_id() else None
        if self._witness is not None:
            self.write_count.on_commit = self._witness.note
        await self.look_again()

    def relay_dated(self, date: RelayDate | None) -> None:
        """Before a connection is sent on: what the relay's date says of this machine. Where it may have been put back nothing is committed until
        the epoch is raised. None: the relay said none.
        """
        if date is not None and (seconds := self._standstill.heard(date)):
            self._stood_still = seconds
            self.write_count.is_doubted = True

    async def look_again(self) -> None:
        """A commit found an older count or another epoch, or the connection is a new one. Raises RedisFailed."""
        async with self._looking:
            try:
                await self._look(self._client.connects)
            except ConnectionReplaced:  # by this look, perhaps, which found none
                await self._look(self._client.connects)

    async def _look(self, connection: int) -> None:
        """At whatever answers on this connection: a server is one process, for as long as a connection to it lasts."""
        here = self._client.on_connection(connection)
        server = await self._server_on(here, connection)
        proof = self._proof_of(server)
        stood_still, reason = self._stood_still, self._certain_reason()
        highest, epoch = self.write_count.highest, self.write_count.epoch
        found = await self.write_count.check(here, self._keys, proof, certainly_back=reason is not None)
        is_others = self._has_begun and self.write_count.epoch > epoch  # another supervisor was first
        unproven = self._unproven_reason(found, proof, stood_still, is_certain=reason is not None)
        if self._stood_still == stood_still:
            self._stood_still = 0.0
        if unproven is not None:
            self._metrics.unproven.inc()
            self.on_back()
            log.warning(
                "redis: nothing proves that it has lost nothing; sessions are started anew",
                reason=unproven,
                epoch=self.write_count.epoch,
            )
        elif found is not Found.SAME or is_others:
            self._metrics.went_back.inc()
            self.on_back()
            log.error(
                "redis: went back in time; sessions are started anew",
                reason=reason or self._reason_of(found),
                seen=highest,
                epoch=self.write_count.epoch,
            )
        self.write_count.verified_connection = here
        self._has_begun = True
        self._server, self._connection, self._looked_seconds = server, connection, trio.current_time()
        replication = "" if self._is_private else server.replication
        pace = self._standstill.pace
        self._seen = Seen(self.write_count.highest, self.write_count.epoch, replication, boot_id(), pace)
        await self._note(self._seen)

    async def run(self) -> None:
        """Look once a second and note what was seen, until cancelled."""
        trouble = said_trouble("time guard")
        while True:
            await trio.sleep(NOTE_SECONDS)
            try:
                await self.look_again()
            except RedisFailed as error:
                trouble.met(error)
            else:
                trouble.over()

    async def _server_on(self, here: Commands, connection: int) -> ServerIdentity:
        """Who answers there. The history of one that is given may change while it runs."""
        if self._is_private and connection == self._connection:
            return self._server
        # Two questions, as in supervisor/recovery/redis_check.py.
        answers = [await here.command("INFO", section) for section in ("server", "replication")]
        return server_of(b"".join(answer for answer in answers if isinstance(answer, bytes)))

    def _proof_of(self, server: ServerIdentity) -> Proof:
        if not self._is_private:
            is_lately = trio.current_time() - self._looked_seconds < LATELY_SECONDS
            return Proof(server.name, (self._server.name,) if is_lately and goes_on(self._server, server) else ())
        if self._witness is None or server == self._server:
            return Proof(server.name)
        testimony = self._witness.testimony()
        self._witness.looks_at(server.name)
        return Proof(server.name, testimony.servers, testimony.commits)

    def _unproven_reason(self, found: Found, proof: Proof, stood_still: float, *, is_certain: bool) -> str | None:
        """Why nothing shows that anything was lost, nor that nothing was; None where something does."""
        if found is Found.UNPROVEN or (found is Found.OTHER and self._is_private and not proof.may_follow):
            return "it was not looked at since this host was started, or by a version that left no witness"
        if stood_still and found is Found.OLDER and not is_certain:
            seconds = f"{stood_still:.0f} s"
            return (
                f"the relay's clock went on by {seconds} that this machine stood still, or was put back with its memory"
            )
        return None

    def _certain_reason(self) -> str | None:
        """What says by itself that writes may be gone which nobody counted."""
        seen = self._seen
        if seen is None:
            return "what was seen before is not readable"
        # The file is on the disk once a second only: what the kernel held at a power cut is gone.
        return "the host was started again" if self._is_private and seen.boot not in ("", boot_id()) else None

    def _reason_of(self, found: Found) -> str:
        match found:
            case Found.SAME:
                return "another supervisor says so"
            case Found.OLDER:
                return "an older state than was seen"
            case _ if self._is_private:
                return "a state that the witness in memory does not know"
            case _:
                return "another server, or one that lost its history"

    async def _note(self, now: Seen) -> None:
        """In a thread: a disk that is slow must not hold up the loop. One that is full costs the memory of this second only."""
        if now == self._noted:
            return
        try:
            await trio.to_thread.run_sync(_write, self._file, now)
        except OSError as error:
            log.error("state directory: cannot be written", file=FILE, errno=error.errno)
        else:
            self._noted = now


def open_guard(
    settings: SupervisorSettings,
    client: RedisClient,
    keys: Keys,
    write_count: WriteCount,
    *,
    metrics: Metrics,
    store_keys: StoreKeys,
) -> TimeGuard:
    """The guard of a supervisor with these settings; where Redis is private, with a witness if there is a place for one."""
    is_private, witness = settings.redis_url is None, None
    if is_private:
        try:
            witness = open_witness(witness_name(store_keys, settings.agent_id), settings.memory_places)
        except NoWitness as error:
            log.warning(
                "witness: none, so that every start of Redis begins all sessions anew",
                reason=str(error),
                remedy="docs/security.md",
            )
    return TimeGuard(
        client, keys, write_count, metrics, state_dir=settings.state_dir, is_private=is_private, witness=witness
    )


def _write(file: Path, seen: Seen) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(seen))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(file)


def _read(file: Path) -> Seen | None:
    """None: it is there and cannot be read, which is as bad as the worst that could stand in it."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Seen)
    except FileNotFoundError:
        return Seen()
    except (OSError, msgspec.DecodeError):
        log.error("state directory: what was seen of Redis is not readable", file=file.name)
        return None
