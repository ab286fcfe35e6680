"""Restores a backup: proves all of it first, prepares the new store beside the old one, then replaces the old one in one step.

For the private Redis the new store is prepared in a folder of the state directory, by a server of its own (supervisor/backup/switching.py); in an
operator's Redis under other key names (bus/whole/restore_switch.py). Until that one step nothing of the old state is touched.
"""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import trio

from bus.records.keys import Keys as Names
from bus.records.saved import Saved
from bus.records.sealing import StoreKeys
from bus.steps.last_backup import LastBackup, note_backup
from bus.transport.client import Commands, RedisClient, open_redis
from bus.transport.wire import ConnectionReplaced, RedisFailed, RedisFull
from bus.views.backlog import Backlog, ServerFacts
from bus.whole.restore_switch import RestoreSwitch
from bus.whole.restoring import Restoring
from crypto.keystore import encode_keystore
from host.append_only import StoreDamaged
from host.budgets import MIB
from host.private_files import FOLDER_MODE, make_folder, write_new
from host.reasons import fault_of_file
from host.redis_folder import DATA_FOLDER
from host.unreadable import UNREADABLE
from host.whole_file import read_whole
from supervisor.backup import switching
from supervisor.backup.contents import Manifest, time_of
from supervisor.backup.counts import BackupCounts
from supervisor.backup.errors import BackupDamaged
from supervisor.backup.looking import Inspection
from supervisor.backup.reading import BackupKey, Proven, read_backup
from supervisor.keeper.redis_server import RedisDoesNotStart
from supervisor.peers.grant_ledger import HEAD_FILE
from supervisor.recovery.time_guard import FILE as SEEN_FILE
from supervisor.recovery.time_guard import MOST_BYTES
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import NEXT_STORE_SECRET_FILE, STORE_SECRET_FILE, RestoreUnfinished, Secret
from supervisor.store.access import QUIET, Quiet, rewrite_and_sync, server_on, who_is_connected

CLEAN_SECONDS = 30.0  # a million keys take some seconds
LEFT_BEHIND = "what was prepared is still in Redis: hashee-agent restore --finish removes it"
MAY_LACK_SOMETHING = "what was prepared may lack something, so the old store stands: begin the restore again"
PIECES_BETWEEN_LOOKS = 16  # of up to four mebibytes; after so many it checks how full Redis is
MOST_FULL = 0.9  # of maxmemory: from here on no message is taken in (host/budgets.py)


class RestoreRefused(Exception):
    """The restore is refused; the text says why and what helps. Nothing was changed."""


@dataclass(frozen=True)
class Wishes:
    """What the operator asks for. `over_newer`: replace the present store even if it is newer or does not open."""

    fingerprint: bytes
    over_newer: bool = False
    store_key_file: Path | None = None


@dataclass(frozen=True)
class Restored:
    """The result of a restore, for people."""

    proven: Proven
    counts: BackupCounts
    unreadable: int
    aside: Path | None

    @property
    def made(self) -> str:
        """Returns when the backup was made, in local time."""
        return self.proven.manifest.made


@dataclass(frozen=True)
class Standing:
    """Facts of the present store: its write count, its epoch, and the time of its last entry in the ledger."""

    writes: int = 0
    epoch: int = 0
    last_ms: int = 0
    is_there: bool = False


class Restore:
    """The restore of one backup into the place that the settings name. `source` is read from its beginning twice."""

    def __init__(
        self,
        settings: KeySettings,
        identity_given: bytes | None,
        source: BinaryIO,
        key: Callable[[bool], BackupKey],
        *,
        quiet: Quiet = QUIET,
    ) -> None:
        """`identity_given`: the public pair of the keys in environment or keystore, None if there are none. `quiet`: of an operator's Redis."""
        self._quiet = quiet
        self._settings = settings
        self._identity_given = identity_given
        self._source = source
        self._key = key
        self._look = Inspection()

    def prove(self, wishes: Wishes) -> Proven:
        """Reads all of the backup without changing anything; returns its facts. Raises BackupUnusable, RestoreRefused, and what reading raises."""
        self._source.seek(0)
        proven = read_backup(self._source, self._key, self._look, wishes.fingerprint)
        self._store_keys()
        agent_id = proven.manifest.agent_id
        if agent_id != self._settings.agent_id:
            raise RestoreRefused(
                f"the backup is of agent {agent_id}, and HASHEE_AGENT_ID names another: unset it, or name this one"
            )
        self._check_keys(proven, wishes)
        return proven

    def _store_keys(self) -> StoreKeys:
        """Returns the keys of the store in the backup, after that was read to its end. Raises BackupDamaged."""
        checking = self._look.checking
        if checking is None or checking.keys is None:
            raise BackupDamaged("the store in the backup is sealed under another store secret than the one in it")
        return checking.keys

    def _check_keys(self, proven: Proven, wishes: Wishes) -> None:
        """Refuses keys in the environment or keystore that do not belong to the backup. Raises RestoreRefused."""
        settings = self._settings
        if self._identity_given not in (None, proven.author.pair):
            raise RestoreRefused(
                "the environment or the keystore has other identity keys than the backup: unset them, or move them away"
            )
        given = settings.store_key
        if given is not None and given != proven.store_secret and wishes.store_key_file is None:
            raise RestoreRefused(
                "HASHEE_STORE_KEY is another store secret than the backup's: name a new file by --store-key-file, and what is written "
                "there is what HASHEE_STORE_KEY has to be afterwards"
            )
        if given is None and settings.redis_url is not None and wishes.store_key_file is None:
            raise RestoreRefused(
                "a Redis of your own needs HASHEE_STORE_KEY: name a new file by --store-key-file, into which the backup's is written"
            )

    async def run(self, proven: Proven, wishes: Wishes, lock_fd: int) -> Restored:
        """Restores everything; the caller holds the state directory's lock by `lock_fd`. Call it from the main thread.

        Raises RestoreRefused, BackupDamaged, RedisFailed, RedisDoesNotStart, OSError; before the one step the old state is untouched.
        """
        switching.clean(self._settings.state_dir)
        aside = None
        if self._settings.redis_url is None:
            aside = await self._into_private(proven, wishes, lock_fd)
        else:
            await self._into_given(self._settings.redis_url.reveal(), proven, wishes)
        checking = self._look.checking
        unreadable = 0 if checking is None else sum(checking.unreadable.values())
        return Restored(proven, self._look.counts, unreadable, aside)

    def _keep_keys(self, proven: Proven, wishes: Wishes) -> None:
        """Writes identity keys and, for an operator's Redis, the store secret to new files; an earlier attempt may have left equal ones."""
        settings, data = self._settings, encode_keystore(proven.keystore)
        if self._identity_given is None:
            if settings.keystore is None:
                raise RestoreRefused("there is no home to put keystore.json into: name a place by HASHEE_KEYSTORE")
            make_folder(settings.keystore.parent)
            write_once(settings.keystore, data)
        if wishes.store_key_file is not None:
            write_once(wishes.store_key_file, base64.b64encode(proven.store_secret.reveal()) + b"\n")

    async def _into_private(self, proven: Proven, wishes: Wishes, lock_fd: int) -> Path:
        state_dir = self._settings.state_dir
        standing = await self._private_standing(wishes, lock_fd)
        _refuse_newer(standing, proven.manifest, wishes)
        self._keep_keys(proven, wishes)
        try:
            replaced = await self._prepared(proven, standing, lock_fd)
            self._decide(proven, replaced)
        except BaseException as problem:
            _clean_private(state_dir, problem)
            raise
        journal = switching.complete(state_dir)
        return state_dir / ("" if journal is None else journal.aside)

    async def _prepared(self, proven: Proven, standing: Standing, lock_fd: int) -> list[str]:
        """Prepares the new store, for the private Redis, and returns the names of what is to take its place in the state directory."""
        settings, names = self._settings, Names(self._settings.agent_id)
        prepared = switching.prepared_place(settings.state_dir)
        prepared.mkdir(mode=FOLDER_MODE)
        async with server_on(prepared, settings, lock_fd) as layout, open_redis(layout.url) as client:
            await self._fill(client, Backlog(client, names), proven, standing, names.of)
            await rewrite_and_sync(client, layout)
        if settings.store_key is not None:
            return [DATA_FOLDER]
        write_new(prepared / STORE_SECRET_FILE, proven.store_secret.reveal())
        return [DATA_FOLDER, STORE_SECRET_FILE]

    def _decide(self, proven: Proven, replaced: list[str]) -> None:
        now = datetime.now(UTC)
        switching.decide(
            self._settings.state_dir,
            switching.Journal(
                switching.JOURNAL_FORMAT,
                f"before-restore-{now:%Y%m%dT%H%M%S%fZ}",
                replaced,
                [HEAD_FILE, SEEN_FILE, NEXT_STORE_SECRET_FILE],
                f"the backup of {proven.manifest.made}",
            ),
        )

    async def _private_standing(self, wishes: Wishes, lock_fd: int) -> Standing:
        state_dir = self._settings.state_dir
        seen = _seen(state_dir / SEEN_FILE)
        if not (state_dir / DATA_FOLDER).is_dir():
            return Standing(seen.count, seen.epoch)
        try:
            async with server_on(state_dir, self._settings, lock_fd) as layout, open_redis(layout.url) as client:
                return await _standing(client, Names(self._settings.agent_id), seen)
        except (RedisDoesNotStart, StoreDamaged, RedisFailed) as problem:
            if wishes.over_newer:
                return Standing(seen.count, seen.epoch)
            raise RestoreRefused(
                f"the store that is there cannot be looked at ({problem}), so it may be newer than the backup; "
                "if it is to be replaced all the same: --over-newer-store"
            ) from None

    async def _into_given(self, url: str, proven: Proven, wishes: Wishes) -> None:
        names = Names(self._settings.agent_id)
        async with open_redis(url) as client:
            switch = RestoreSwitch(client, names)
            if await switch.has_begun():
                raise RestoreUnfinished
            here = client.on_connection(client.connects)
            await _refuse_company(client, names, self._quiet)
            standing = await _standing(client, names, _seen(self._settings.state_dir / SEEN_FILE))
            _refuse_newer(standing, proven.manifest, wishes)
            backlog = Backlog(client, names)
            _refuse_full(await backlog.server())  # nothing is begun where not even a script may run
            filling = switch.on(here)  # a replica that takes over meanwhile may lack what was prepared
            if not await filling.begin():
                raise RestoreUnfinished
            try:
                await _refuse_company(client, names, self._quiet)  # for a process that came before the store was locked
                self._keep_keys(proven, wishes)
                await self._fill(here, backlog, proven, standing, names.restoring)
                is_decided = await filling.decide()
            except BaseException as problem:
                if isinstance(problem, ConnectionReplaced):
                    problem.add_note(MAY_LACK_SOMETHING)
                await _clean(switch, problem)
                raise
            if not is_decided:
                raise RestoreRefused("somebody has given this restore up meanwhile (restore --finish): begin again")
            await finish_given(client, names, self._settings.state_dir)

    async def _fill(
        self, client: Commands, backlog: Backlog, proven: Proven, standing: Standing, place: Callable[[str, str], str]
    ) -> None:
        names, keys = Names(self._settings.agent_id), self._store_keys()
        restoring = Restoring(
            client, names, keys.state, place=place, least_epoch=standing.epoch, least_writes=standing.writes
        )
        await trio.to_thread.run_sync(self._load, _Handed(restoring, backlog), proven)
        await restoring.finish()
        await note_backup(client, place("last_backup", ""), self._this_backup(proven))

    def _this_backup(self, proven: Proven) -> LastBackup:
        """Returns the note of this backup as the last one, with the time when it was made."""
        size_bytes, name = self._source.seek(0, os.SEEK_END), getattr(self._source, "name", None)
        place = name if isinstance(name, str) else "standard input"
        return LastBackup.of(proven.manifest.made_ms, size_bytes, proven.fingerprint, sealed_to=None, place=place)

    def _load(self, handed: "_Handed", proven: Proven) -> None:
        """Reads the backup a second time, in a thread, and hands each piece to the event loop."""
        self._source.seek(0)
        again = read_backup(self._source, self._key, handed, proven.fingerprint)
        if again.digest != proven.digest:
            raise BackupDamaged("the backup has changed while it was read")


async def finish_given(client: RedisClient, names: Names, state_dir: Path) -> None:
    """Completes a decided restore of an operator's Redis, and updates what this state directory remembers of the store.

    Raises RedisFailed, OSError.
    """
    for name in (HEAD_FILE, SEEN_FILE):
        (state_dir / name).unlink(missing_ok=True)
    await RestoreSwitch(client, names).finish()


async def _refuse_company(client: RedisClient, names: Names, quiet: Quiet) -> None:
    if someone := await who_is_connected(client, names, quiet):
        raise RestoreRefused(f"{someone} is connected to this Redis: end every supervisor and worker first")


def _clean_private(state_dir: Path, problem: BaseException) -> None:
    """Removes what was prepared, before `problem` is raised, so that a full disk does not stay full; adds notes to `problem`."""
    if isinstance(problem, RedisFull):
        problem.add_note(
            f"the new store has no room beside the old one in {state_dir}: df -h {state_dir}; the old one stands"
        )
    try:
        if not switching.is_decided(state_dir):
            switching.clean(state_dir)
    except OSError as another:
        problem.add_note(f"what was prepared is still there, and the next start removes it: {fault_of_file(another)}")


async def _clean(switch: RestoreSwitch, problem: BaseException) -> None:
    """Removes what was prepared, before `problem` is raised; adds a note to `problem` if something is left."""
    with trio.move_on_after(CLEAN_SECONDS, shield=True) as cleaning:
        try:
            await switch.clean()
        except RedisFailed as another:
            problem.add_note(f"{LEFT_BEHIND} ({another})")
    if cleaning.cancelled_caught:
        problem.add_note(LEFT_BEHIND)


async def _standing(client: RedisClient, names: Names, seen: "_Seen") -> Standing:
    found = cast("list[bytes | None]", await client.command("MGET", names.write_count, names.epoch))
    writes, epoch = (int(value or 0) for value in found)
    last = cast("list[tuple[bytes, object]]", await client.command("XREVRANGE", names.ledger, "+", "-", "COUNT", 1))
    last_ms = int(last[0][0].split(b"-")[0]) if last else 0
    is_there = bool(found[0]) or bool(last) or await client.command("EXISTS", names.seal) == 1
    return Standing(max(writes, seen.count), max(epoch, seen.epoch), last_ms, is_there)


def _refuse_newer(standing: Standing, backup: Manifest, wishes: Wishes) -> None:
    is_newer = standing.last_ms > backup.made_ms or standing.writes > backup.writes
    if standing.is_there and is_newer and not wishes.over_newer:
        until = f"its last message is of {time_of(standing.last_ms)}" if standing.last_ms else "more was written to it"
        raise RestoreRefused(
            f"the store that is there is newer than the backup of {backup.made}: {until}. What came between would be lost; "
            "if that is what you want: --over-newer-store"
        )


class _Seen(msgspec.Struct):
    """The numbers in the state directory's memory of its store (supervisor/recovery/time_guard.py) that the new store must exceed."""

    count: int = 0
    epoch: int = 0


def _seen(file: Path) -> _Seen:
    try:
        return msgspec.json.decode(read_whole(file, MOST_BYTES), type=_Seen)
    except (OSError, *UNREADABLE):
        return _Seen()


def write_once(path: Path, data: bytes) -> None:
    try:
        write_new(path, data)
    except FileExistsError:
        if path.read_bytes() != data:
            raise RestoreRefused(f"{path} is there and holds something else; move it away") from None


class _Handed:
    """Hands pieces to the event loop, which writes them one after the other, as long as Redis has room."""

    def __init__(self, restoring: Restoring, backlog: Backlog) -> None:
        self._restoring = restoring
        self._backlog = backlog
        self._pieces = 0

    def begin(self, manifest: Manifest, _store_secret: Secret[bytes]) -> None:
        self._restoring.seen_epoch(manifest.epoch)

    def take(self, piece: Saved) -> None:
        trio.from_thread.run(self._take, piece)

    async def _take(self, piece: Saved) -> None:
        if self._pieces % PIECES_BETWEEN_LOOKS == 0:
            _refuse_full(await self._backlog.server())
        self._pieces += 1
        await self._restoring.take(piece)


def _refuse_full(server: ServerFacts) -> None:
    used, limit = server.memory_bytes, server.limit_bytes
    if used and limit and used > MOST_FULL * limit:
        raise RestoreRefused(
            f"Redis uses {used / MIB:.0f} MiB of {limit / MIB:.0f} MiB (maxmemory) with what was prepared so far, and the old and the new "
            "store have to stand beside each other: raise maxmemory, or restore into an empty Redis; the old store stands"
        )
