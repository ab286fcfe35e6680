"""`python -m workers`: runs one worker process, in a fresh interpreter with few imports.

It ties the process to its parent, starts the heartbeat, loads the handler and runs it. No error that ends it is shown as a traceback,
since the owner's exceptions may quote what a person wrote.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import trio

from bus.records.control import Crashed, StartFailed, encode
from bus.settings.reader import SettingsError
from bus.steps.seal import StoreSealed
from host import parent_death
from host.current_directory import current_directory
from host.tuning import tune
from workers.errors import CannotStart
from workers.process.control_link import ControlLink
from workers.process.last_words import LastWords, alone, divert_streams, dump_on_signals
from workers.process.loading import PATCHED, CannotLoad, load_agent
from workers.process.logs import Log, kind, worker_log
from workers.process.open_tracing import open_tracing
from workers.process.settings import WorkerSettings, parse_options, read_settings
from workers.process.start_errors import is_the_owners_to_mend, report_of
from workers.process.worker import Worker, leave_without_owners_threads

EXIT_CONFIGURATION = 78
EXIT_CRASHED = 70
LAST_WORDS_SECONDS = 2.0


def main(arguments: Sequence[str]) -> int:
    """Runs the worker; returns the process' exit code."""
    options = parse_options(arguments)
    if options.parent_pid is not None:
        parent_death.die_with_parent(options.parent_pid)
    for descriptor in (options.control_fd, options.bus_key_fd):
        if descriptor is not None:
            os.set_inheritable(descriptor, False)
    with contextlib.suppress(RuntimeError, OSError, ValueError):
        dump_on_signals(options.log_fd)
    divert_streams(options.log_fd)
    try:
        settings = read_settings(options, os.environ)
    except SettingsError as error:
        print(f"hashee-agent worker: {error}", file=sys.stderr)  # noqa: T201 - before there is a log
        _send_last_words(options.control_fd, "settings", error)
        return EXIT_CONFIGURATION
    log = worker_log(os.environ, settings.consumer, level=settings.log_level, line_format=settings.log_format)
    last_words = LastWords(log, is_heard=options.log_fd is not None)
    last_words.install()
    tracing = open_tracing(settings, log)
    worker = Worker(settings, log, tracing)
    worker.show_title()
    tune()
    link = _link(settings, worker, log)
    try:
        code = _run(worker, settings, log, last_words)
    finally:
        tracing.close()
        if link is not None:
            link.close(LAST_WORDS_SECONDS)
    leave_without_owners_threads(log, code)
    return code


def _run(worker: Worker, settings: WorkerSettings, log: Log, last_words: LastWords) -> int:
    try:
        agent = load_agent(settings.handler, current_directory())
        trio.run(worker.run, agent)
    except CannotLoad as error:
        if error.report.kind == PATCHED:
            _leave_at_once(error.report, settings)
        return _refuse(error.report, worker, settings, log)
    except CannotStart as error:
        report = StartFailed(kind="lifespan", exception=kind(error), file="", line=0, last_line=str(error))
        return _refuse(report, worker, settings, log)
    except BaseException as error:  # noqa: BLE001 - a traceback would show values
        if sealed := _find(error, StoreSealed):
            report = StartFailed(kind="bus_key", exception=kind(sealed), file="", line=0, last_line=str(sealed))
            return _refuse(report, worker, settings, log)
        if worker.is_opening and not isinstance(error, KeyboardInterrupt):
            return _not_opened(error, worker, settings, log)
        worker.tell(last_words.of_the_end(error))
        return EXIT_CRASHED
    return worker.exit_code


def _not_opened(error: BaseException, worker: Worker, settings: WorkerSettings, log: Log) -> int:
    """Says in a line why the owner's lifespan could not be entered. What trying again may mend is tried again by whoever starts workers."""
    error = alone(error)
    report = report_of(error, current_directory(), "lifespan")
    if is_the_owners_to_mend(error, current_directory()):
        return _refuse(report, worker, settings, log)
    at = f"{Path(report.file).name}:{report.line}"
    log.warning("worker: lifespan failed", exception=report.exception, at=at, error=report.last_line)
    worker.tell(Crashed(exception=report.exception, at=at))
    return EXIT_CRASHED


def _find(error: BaseException, wanted: type[BaseException]) -> BaseException | None:
    """Returns the first exception of this type in `error` or in the groups within it, else None."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _find(inner, wanted))), None)
    return error if isinstance(error, wanted) else None


def _refuse(report: StartFailed, worker: Worker, settings: WorkerSettings, log: Log) -> int:
    worker.tell(report)
    if settings.control_fd is None:  # a supervisor reports it once for all its workers
        what = "bus key" if report.kind == "bus_key" else f"handler {settings.handler}"
        place = {"at": f"{report.file}:{report.line}"} if report.file else {}
        log.warning(f"worker: cannot use the {what}: {report.last_line}", **place)
    return EXIT_CONFIGURATION


def _leave_at_once(report: StartFailed, settings: WorkerSettings) -> NoReturn:
    """Says by the descriptor itself why there is no worker: of our threads and locks none does what it did."""
    try:
        if settings.control_fd is not None:
            os.write(settings.control_fd, encode(report))
        else:
            os.write(
                2, f"[hashee] warning: worker: cannot use the handler {settings.handler}: {report.last_line}\n".encode()
            )
    finally:
        os._exit(EXIT_CONFIGURATION)


def _link(settings: WorkerSettings, worker: Worker, log: Log) -> ControlLink | None:
    if settings.control_fd is None:
        return None
    link = ControlLink(
        socket.socket(fileno=settings.control_fd),
        pulse=worker.pulse,
        on_command=worker.command,
        on_end=lambda: os._exit(parent_death.PARENT_IS_GONE),
        say_passed_over=lambda tag: log.warning("supervisor: a message was passed over, not known here", tag=tag),
    )
    worker.attach(link)
    link.start()
    return link


def _send_last_words(control_fd: int | None, what: str, error: SettingsError) -> None:
    if control_fd is None:
        return
    report = StartFailed(kind=what, exception="SettingsError", file="", line=0, last_line=str(error))
    with contextlib.suppress(OSError), socket.socket(fileno=control_fd) as connection:
        connection.sendall(encode(report))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
