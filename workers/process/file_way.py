"""A worker's way to files, made of its settings; and what it removes at its start of what nobody sends any more."""

from collections.abc import Callable, Mapping

from bus.files.proofs import FilesKey
from bus.records.control import Observation
from bus.steps.thread_steps import ThreadSteps
from bus.transport.wire import RedisFailed
from workers.errors import FileError
from workers.files.files import FileWay
from workers.files.gate import GateClient
from workers.files.spool import Spool
from workers.files.upload import name_of
from workers.process.logs import Log
from workers.process.settings import WorkerSettings


def file_way(settings: WorkerSettings, observe: Callable[[Observation], None]) -> FileWay:
    """Returns the way to files of a worker. `observe` is told what goes it."""

    def count(metric: str, value: float, labels: Mapping[str, str]) -> None:
        observe(Observation(metric=metric, labels=dict(labels), value=value))

    gate = None
    if settings.files is not None:
        gate = GateClient(settings.files, FilesKey.of_bus_key(settings.bus_key.export()))
    return FileWay(gate, Spool(settings.spool.folder, settings.spool.most_bytes), count)


async def sweep_spool(spool: Spool, store: ThreadSteps, log: Log) -> None:
    """Removes sealed files whose job is no longer open. What cannot be told now stays until the next start."""

    async def is_open(conversation_id: str, entry: str) -> bool:
        return await store.has_noted(conversation_id, name_of(entry))

    try:
        removed = await spool.sweep(is_open)
    except (RedisFailed, FileError, OSError) as error:
        log.warning(
            "worker: the spool could not be looked through, it will be at the next start", reason=type(error).__name__
        )
        return
    if removed:
        log.info("worker: sealed files of jobs that have ended were removed", files=removed)
