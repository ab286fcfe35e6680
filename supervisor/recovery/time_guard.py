"""Keeps ratchets from forking when Redis goes back in time (failover, power loss, a restored backup; DESIGN rule 17).

Every commit names the highest write count that this process has seen, and runs only on a checked connection, so that none is made on an
older state unnoticed. What was seen is in the state directory too, for a process that starts after Redis and all supervisors went down
together. A copy of that directory would bring back both, so a witness in memory must know the private Redis (supervisor/recovery/witness.py);
an operator's Redis must be the same server with the same history (supervisor/recovery/continuity.py). If the machine was put back with
its memory the relay's clock shows it (supervisor/recovery/standstill.py), before anything is sent. If nothing proves that everything is
there, sessions are started anew, as if something had been lost.
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
from host.reasons import fault_of_file
from host.unreadable import UNREADABLE
from host.whole_file import read_whole
from supervisor.observe.metrics import Metrics
from supervisor.recovery.continuity import LATELY_SECONDS, ServerIdentity, goes_on, server_of
from supervisor.recovery.redis_trouble import said_trouble
from supervisor.recovery.standstill import Pace, Standstill
from supervisor.recovery.witness import NoWitness, Witness, open_witness, witness_name
from supervisor.relay.relay_date import RelayDate
from supervisor.settings.supervisor import SupervisorSettings

NOTE_SECONDS = 1.0
FILE = "redis-seen.json"
MOST_BYTES = 4096

log = structlog.get_logger()


class Seen(msgspec.Struct, frozen=True):
    """What the state directory remembers. `boot`: the host's boot id, and `pace` of its clock.

    `server`: the replication id of an operator's Redis, for an earlier release that is put back; this one reads it from Redis.
    """

    count: int = 0
    epoch: int = 0
    server: str = ""
    boot: str = ""
    pace: Pace | None = None


class TimeGuard:
    """The guard of one supervisor. `is_private`: Redis is the keeper's, on this host's disk. `witness`: None if there is no place for one."""

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
        """Called when Redis went back: its cursor did too, so the relay is polled again from there."""
        self._seen: Seen | None = Seen()
        self._noted = Seen()
        self._unwritten = ""
        self._has_begun = False
        self._looking = trio.Lock()
        self._server = ServerIdentity()
        self._connection = -1
        self._looked_seconds = float("-inf")
        self._standstill = Standstill()
        self._stood_still = 0.0

    @property
    def has_witness(self) -> bool | None:
        """Returns whether there is a witness; None for an operator's Redis, which needs none."""
        return self._witness is not None if self._is_private else None

    @property
    def witness_noted_ms(self) -> int | None:
        """Returns when the witness was last written, Unix time, ms; None without one."""
        return None if self._witness is None else self._witness.noted_ms

    async def begin(self) -> None:
        """Checks Redis against what earlier processes have seen, before anything is sent. Raises RedisFailed."""
        self._seen = await trio.to_thread.run_sync(_read, self._file)
        if self._seen is not None:
            self.write_count.seen(self._seen.count)
            self.write_count.epoch = max(self.write_count.epoch, self._seen.epoch)
            self._standstill.pace = self._seen.pace if self._seen.boot == boot_id() else None
        if self._witness is not None:
            self.write_count.on_commit = self._witness.note
        await self.look_again()

    def relay_dated(self, date: RelayDate | None) -> None:
        """Takes the relay's date before anything is sent on a connection; None if the relay gave none.

        If this machine may have been put back nothing is committed until the epoch is raised.
        """
        if date is not None and (seconds := self._standstill.heard(date)):
            self._stood_still = seconds
            self.write_count.is_doubted = True

    async def look_again(self) -> None:
        """Checks again, after a commit found an older count or another epoch, or on a new connection. Raises RedisFailed."""
        async with self._looking:
            try:
                await self._look(self._client.connects)
            except ConnectionReplaced:  # perhaps by this check, if there was no connection
                await self._look(self._client.connects)

    async def _look(self, connection: int) -> None:
        """Checks the server on this connection, which is one process for as long as the connection lasts."""
        here = self._client.on_connection(connection)
        server = await self._server_on(here, connection)
        proof = self._proof_of(server)
        stood_still, reason = self._stood_still, self._certain_reason()
        highest, epoch = self.write_count.highest, self.write_count.epoch
        found = await self.write_count.check(here, self._keys, proof, certainly_back=reason is not None)
        is_others = self._has_begun and self.write_count.epoch > epoch  # another supervisor has raised it first
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
        """Checks once a second and notes what was seen, until cancelled."""
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
        """Returns the identity of the server on this connection; an operator's Redis may change its history while it runs."""
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
        """Returns why it is uncertain whether anything was lost; None if something shows that it was."""
        if found is Found.UNPROVEN or (found is Found.OTHER and self._is_private and not proof.may_follow):
            return "it was not looked at since this host was started, or by a version that left no witness"
        if stood_still and found is Found.OLDER and not is_certain:
            seconds = f"{stood_still:.0f} s"
            return (
                f"the relay's clock went on by {seconds} that this machine stood still, or was put back with its memory"
            )
        return None

    def _certain_reason(self) -> str | None:
        """Returns a reason by which writes may be gone although no count shows it; None without one."""
        seen = self._seen
        if seen is None:
            return "what was seen before is not readable"
        # Redis' file is forced to the disk once a second only: a power cut loses what the kernel held.
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
        """Writes what was seen to the state directory, in a thread, since the disk may be slow; a full disk loses only this second's note."""
        if now == self._noted:
            return
        try:
            await trio.to_thread.run_sync(_write, self._file, now)
        except OSError as error:
            self._tell_unwritten(fault_of_file(error, FILE))
        else:
            self._noted = now
            self._tell_unwritten("")

    def _tell_unwritten(self, why: str) -> None:
        """Says once why the note cannot be written, and that it is again: a log that is told each second fills the same disk."""
        if why and why != self._unwritten:
            log.error("state directory: cannot be written", reason=why)
        elif self._unwritten and not why:
            log.info("state directory: is written again")
        self._unwritten = why


def open_guard(
    settings: SupervisorSettings,
    client: RedisClient,
    keys: Keys,
    write_count: WriteCount,
    *,
    metrics: Metrics,
    store_keys: StoreKeys,
) -> TimeGuard:
    """Makes the guard of a supervisor, with a witness if Redis is private and there is a place for one."""
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
    """Reads what was seen; None if it cannot be read, which counts as if Redis had gone back."""
    try:
        return msgspec.json.decode(read_whole(file, MOST_BYTES), type=Seen)
    except FileNotFoundError:
        return Seen()
    except (OSError, *UNREADABLE):
        log.error("state directory: what was seen of Redis is not readable", file=file.name)
        return None
