"""Keeps the private Redis running: started, synced, and started again on the same files when it dies.

What the server is told and when it counts as ready stands in host/embedded.py; here is only its life.
"""

import trio
from structlog import get_logger

from host import embedded
from host.append_only import StoreDamaged
from host.children import Child, Children, RestartBackoff
from host.code_place import Code


class RedisDoesNotStart(Exception):
    """Raised when the private Redis ends before it has ever answered; the text shows its own last words."""

    def __init__(self, status: int, last_lines: list[str]) -> None:
        super().__init__(f"the private Redis ended with status {status}: " + " | ".join(last_lines))


class PrivateRedis:
    """The private Redis of one keeper.

    `lock_fd`: the state directory's lock, which the server inherits and so holds as long as it runs. `most_bytes`: maxmemory.
    """

    def __init__(
        self,
        binary: embedded.ServerBinary,
        layout: embedded.Layout,
        *,
        fsync: str,
        most_bytes: int,
        sync_interval_seconds: float,
        lock_fd: int,
        children: Children,
        backoff: RestartBackoff,
        code: Code,
    ) -> None:
        self._binary = binary
        self._layout = layout
        self._fsync = fsync
        self._most_bytes = most_bytes
        self._lock_fd = lock_fd
        self._children = children
        self._backoff = backoff
        self._code = code
        self._sync = embedded.FileSync(layout, sync_interval_seconds)
        self._child: Child | None = None
        self._stopping = False
        self._log = get_logger()

    @property
    def url(self) -> str:
        return self._layout.url

    async def start(self) -> None:
        """Starts it. Returns when it answers, however long its file takes to load. Raises `RedisDoesNotStart`, StoreDamaged, OSError."""
        if former := embedded.note_version(self._binary, self._layout):
            self._log.warning("redis: another server than before", before=former, now=str(self._binary))
        child = await self._start_once()
        if child.ended.is_set():
            status = await child.wait()
            embedded.refuse_damaged_by_log(self._layout, child.pid)
            raise RedisDoesNotStart(status, embedded.last_log_lines(self._layout))
        self._sync.start()
        self._log.info(
            "redis: ready", server=str(self._binary), pid_of_server=child.pid, maxmemory_bytes=self._most_bytes
        )

    async def keep(self) -> None:
        """Starts it again whenever it ends, until `stop`. To be called after `start`."""
        child = self._child
        while True:
            lived_seconds = 0.0
            if child is not None:
                status = await child.wait()
                lived_seconds = trio.current_time() - child.started_at
                if self._stopping:
                    return
                self._log.error("redis: died; it is started again", status=status)
            await trio.sleep(self._backoff.after_death(lived_seconds))
            if self._stopping:
                return
            child = await self._start_again()

    async def watch_files(self) -> None:
        """Has the file rewritten once a day, and warns when the disk refuses to sync it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(embedded.rewrite_daily, self._layout)
            complained = False
            while True:
                await trio.sleep(self._sync.interval_seconds)
                if not self._sync.is_alive and not self._stopping:  # which only a defect does
                    self._log.error("redis: the thread that syncs its file has ended; another is started")
                    self._sync = embedded.FileSync(self._layout, self._sync.interval_seconds)
                    self._sync.start()
                failure = self._sync.failure
                if failure is not None and not complained:
                    self._log.error(
                        "redis: its file cannot be synced to the disk",
                        errno=failure.errno,
                        reason=failure.strerror,
                        remedy="look for a full or failing disk: df, dmesg",
                    )
                complained = failure is not None

    async def stop(self, within_seconds: float) -> None:
        """Lets the server write out what it has and end, for so long; then syncs for the last time."""
        self._stopping = True
        if self._child is not None:
            await self._child.end(within_seconds)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._sync.stop)

    async def _start_again(self) -> Child | None:
        try:
            child = await self._start_once()
        except OSError as problem:
            self._log.error("redis: cannot be started", errno=problem.errno, reason=problem.strerror)
            return None
        except (embedded.ServerMissing, StoreDamaged) as problem:
            self._log.error("redis: cannot be started", reason=str(problem))
            return None
        if not child.ended.is_set():
            self._log.info("redis: ready again", pid_of_server=child.pid)
        return child

    async def _start_once(self) -> Child:
        """Starts a server. Returns it when it answers or has ended. Raises OSError, ServerMissing, StoreDamaged."""
        python = str(self._code.in_use().python)
        if not self._binary.path.exists():  # it came with a release that was removed
            self._binary = await trio.to_thread.run_sync(embedded.find_server_of, python)
        process = embedded.start(
            self._binary, self._layout, self._fsync, self._lock_fd, self._most_bytes, python=python
        )
        child = self._child = self._children.adopt(process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_ended, child, nursery.cancel_scope)
            await embedded.wait_ready(self._layout)
            nursery.cancel_scope.cancel()
        return child


async def _cancel_when_ended(child: Child, scope: trio.CancelScope) -> None:
    await child.ended.wait()
    scope.cancel()
