"""Imports the owner's agent, named as `module:attribute`, with the current directory first on the path.

Whatever is wrong with it is raised as `CannotLoad`, which says what and where in a line.
"""

import contextlib
import hashlib
import importlib
import sys
import threading
from pathlib import Path

import msgspec

from bus.records.control import StartFailed
from host.entrance import PACKAGES, PackageShadowed, refuse_shadows
from host.forks import ForksStay
from workers.handling.agent import Agent
from workers.process.start_errors import report_of

PATCHED = "patched"
NO_THREADS = (
    "its import replaces Python's threads and locks (monkey.patch_all() of gevent or eventlet), and a worker needs them: take that out. "
    "A plain `def` handler runs in a thread of its own, where what blocks holds nobody up"
)


class CannotLoad(Exception):
    """The handler cannot be loaded; `report` goes to the supervisor."""

    def __init__(self, report: StartFailed) -> None:
        super().__init__(report.last_line)
        self.report = report


def load_agent(handler: str, directory: Path) -> Agent:
    """Returns the agent that `handler` names. Raises CannotLoad."""
    try:
        refuse_shadows(directory.resolve())
    except PackageShadowed as error:
        raise _refusal("shadowed", str(error), str(error.path)) from None
    sys.path.insert(0, str(directory))
    module_name, _, attribute = handler.partition(":")
    if not module_name or not attribute:
        raise _refusal("handler", f"a handler is named MODULE:ATTRIBUTE, not {handler!r}")
    own_local = threading.local
    try:
        with ForksStay(_say_forked):
            module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
        if threading.local is not own_local:
            raise _refusal(PATCHED, NO_THREADS) from None
        # if the innermost line is ours, the module itself was not found
        report = report_of(error, directory, "import", ours=__file__)
        if isinstance(error, ModuleNotFoundError) and not report.file:
            where = f"in {directory}, where this was started, and it is not installed"
            report = msgspec.structs.replace(report, last_line=f"there is no module {error.name} {where}")
        raise CannotLoad(report) from None
    file = getattr(module, "__file__", None) or module_name
    if threading.local is not own_local:
        raise _refusal(PATCHED, NO_THREADS, file)
    agent = getattr(module, attribute, None)
    if agent is None:
        raise _refusal(
            "attribute",
            f"{module_name} has no {attribute}: name the object that Agent() made, as MODULE:ATTRIBUTE",
            file,
        )
    if not isinstance(agent, Agent):
        raise _refusal(
            "attribute", f"{handler} is a {type(agent).__name__}, not an Agent: name the object that Agent() made", file
        )
    if not agent.handlers:
        raise _refusal("no_handlers", f"{handler} has no handler; write one under @agent.on_message()", file)
    return agent


def _say_forked(_error: BaseException | None) -> None:
    print(  # noqa: T201 - there is no log here
        "[hashee] error: worker: a process that the import of the handler has forked came back from it, and is ended",
        file=sys.stderr,
    )


def owners_files(directory: Path) -> tuple[str, ...]:
    """Returns the files of loaded modules below `directory`, without those of an installation."""
    ours = Path(__file__).resolve().parents[2]
    found: set[str] = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not file or "site-packages" in file or not Path(file).is_relative_to(directory):
            continue
        inside = Path(file).resolve()
        if not any(inside.is_relative_to(ours / name) for name in PACKAGES):
            found.add(file)
    return tuple(sorted(found))


def code_of(agent: Agent, directory: Path) -> str:
    """Returns what tells this version of the owner's code from another: a hash of its modules that are loaded now, wherever they lie."""
    packages = {str(getattr(one.function, "__module__", "")).partition(".")[0] for one in agent.handlers} - set(
        PACKAGES
    )
    of_packages = {
        str(file): name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in packages and (file := getattr(module, "__file__", None))
    }
    digest = hashlib.sha256()
    for file in sorted({*owners_files(directory), *of_packages}):
        with contextlib.suppress(OSError):  # it has no file any more, or none that is read
            digest.update(of_packages.get(file, Path(file).name).encode() + b"\0")
            digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()[:16]


def _refusal(what: str, sentence: str, file: str = "", line: int = 0) -> CannotLoad:
    return CannotLoad(StartFailed(kind=what, exception="", file=file, line=line, last_line=sentence))
