"""Gives the workers new code and settings while the old ones work: by HUP, by `hashee-agent reload`, or when a file changes.

The supervisor itself goes on with the settings of its start: only what workers are made of is read again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio
from structlog.typing import FilteringBoundLogger

from bus.settings.reader import SettingsError
from host.code_place import CodeGone
from supervisor.pool.pool import Pool
from supervisor.pool.worker_order import WorkerOrder
from supervisor.settings.bounds import Bounds
from supervisor.settings.env_files import EnvFileError

POLL_SECONDS = 0.5
"""How often the handler's files are looked at in development: sooner than one gets from the editor to the chat."""


@dataclass(frozen=True)
class Wanted:
    """What the settings say now: how workers are started, and how many."""

    order: WorkerOrder
    bounds: Bounds


class Reloading:
    """Runs one reload at a time. `read` reads the settings anew; it raises SettingsError, EnvFileError, CodeGone."""

    def __init__(self, pool: Pool, read: Callable[[], Wanted], log: FilteringBoundLogger, bounds: Bounds) -> None:
        self._pool = pool
        self._read = read
        self._log = log
        self._bounds = bounds
        self._turn = trio.Lock()
        self._is_next = False
        self.is_under_way = False
        self.changed = trio.Event()
        """Set when a reload begins or has ended; another one then takes its place."""
        self.problem = ""
        """Why the last one failed; empty when it did not."""

    async def reload(self) -> str:
        """Reloads, after a reload that is under way. Returns an empty text, or why the old workers stay."""
        if self._is_next:
            return "a reload is under way, and the next one waits already"
        self._is_next = True
        async with self._turn:
            self._is_next = False
            self._tell(is_under_way=True)
            try:
                self.problem = await self._reload()
            finally:
                self._tell(is_under_way=False)
        return self.problem

    async def _reload(self) -> str:
        self._log.info("reload: begins")
        try:
            wanted = self._read()
        except (SettingsError, EnvFileError, CodeGone) as error:
            return self._refuse(str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the settings now, what runs goes on
            return self._refuse(f"the settings cannot be read ({type(error).__name__})")
        problem = await self._pool.reload(wanted.order)
        if problem is not None:
            return problem
        if wanted.bounds != self._bounds:  # as the settings were before: what `scale` said since stays otherwise
            self._bounds = wanted.bounds
            self._pool.scale(wanted.bounds)
        return ""

    def _tell(self, *, is_under_way: bool) -> None:
        self.is_under_way = is_under_way
        self.changed.set()
        self.changed = trio.Event()

    def _refuse(self, reason: str) -> str:
        self._log.error("reload: failed, the old workers stay", reason=reason)
        return reason

    async def watch_files(self) -> None:
        """Reloads whenever one of the handler's files changes, until cancelled; for development."""
        before, loaded_ns = _times(self._pool.handler_files()), time.time_ns()
        while True:
            await trio.sleep(POLL_SECONDS)
            now = _times(self._pool.handler_files())
            # One that was not known yet may have changed since it was loaded.
            changed = [
                file
                for file, when in now.items()
                if (before[file] != when if file in before else (when or 0) > loaded_ns)
            ]
            before = now
            if changed:
                loaded_ns = time.time_ns()
                self._log.info("reload: files have changed", first=Path(changed[0]).name, count=len(changed))
                await self.reload()


def _times(files: tuple[str, ...]) -> Mapping[str, int | None]:
    """Returns when each file was changed, in ns; None for one that is not there, since editors replace files."""
    return {file: _changed_ns(Path(file)) for file in files}


def _changed_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
