"""Says why something outside failed without a library's own text, which may quote an address or a password."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from traceback import walk_tb

ERRORS_OF_FORM = range(79, 94)
"""OpenSSL's X509_V_ERR_INVALID_CA to X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3: a certificate is not made as RFC 5280 says. Python looks from 3.13 on."""

FORM_OF_AN_AUTHORITY = (
    "from Python 3.13 on a private authority's certificate needs basicConstraints=critical,CA:TRUE, keyUsage=critical,keyCertSign "
    "and a subjectKeyIdentifier, and what it signs an authorityKeyIdentifier: make them anew (docs/settings.md)"
)


def why(error: BaseException) -> str:
    """Returns the cause of `error` in a few words: an errno's text, what is wrong with a certificate, else the exception's type."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            remedy = f"; {FORM_OF_AN_AUTHORITY}" if cause.verify_code in ERRORS_OF_FORM else ""
            return f"TLS: the certificate is not accepted: {cause.verify_message}{remedy}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or type(cause).__name__}"
        if isinstance(cause, socket.gaierror):
            return "its name is not found"
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        if isinstance(cause, TimeoutError):
            return "no answer in time"
    return type(error).__name__


REMEDIES = {
    errno.EACCES: "run this as the user that owns it",
    errno.EPERM: "run this as the user that owns it",
    errno.ENOENT: "name a path that is there",
    errno.ENOTDIR: "name a path that is there",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOSPC: "make room on the disk: df -h; df -i",
    errno.EDQUOT: "make room within the quota of this user",
    errno.EROFS: "name a place that can be written to",
    errno.EIO: "the disk fails: dmesg; name a place on another one",
    errno.EMFILE: "raise the limit of open files: LimitNOFILE= (ulimit -n)",
}
"""What an operator can do about an error of a file."""


def fault_of_file(error: OSError, place: str = "") -> str:
    """Returns path, errno's text and what helps, for people. `place`: the name of the file if `error` does not know it."""
    where = error.filename or place or "a file"
    remedy = REMEDIES.get(error.errno or 0)
    return f"{where}: {error.strerror or type(error).__name__}" + (f"; {remedy}" if remedy else "")


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def leaves_of(problem: BaseException) -> Iterator[BaseException]:
    """Yields the exceptions in a group and in the groups within it, or `problem` itself."""
    if isinstance(problem, BaseExceptionGroup):
        for inner in problem.exceptions:
            yield from leaves_of(inner)
    else:
        yield problem


WRITERS = frozenset({"click", "rich"})
"""Packages by which a command says something."""


def fault_of_output(problem: BaseException) -> str | None:
    """Returns what is to be said where the terminal, file or pipe that a command's output goes to does not take it (a full disk); else None."""
    if not isinstance(problem, OSError) or problem.filename is not None:
        return None
    last = next((frame for frame, _ in reversed(list(walk_tb(problem.__traceback__)))), None)
    is_output = last is not None and str(last.f_globals.get("__name__")).partition(".")[0] in WRITERS
    return f"the output cannot be written: {problem.strerror}" if is_output else None


def fault_of_full_output(problem: BaseException) -> str | None:
    """Returns what is to be said where `problem`, or one in that group, is that what a command has said found no room; else None.

    For the sandbox, which writes by `print` and keeps no files of its own: no frame of a traceback tells that from the write of a file.
    """
    full = (
        leaf for leaf in leaves_of(problem) if isinstance(leaf, OSError) and leaf.errno in FULL and not leaf.filename
    )
    return next((f"the output cannot be written: {leaf.strerror}" for leaf in full), None)


NO_THREAD = "can't start new thread"
MORE_THREADS = "no thread could be started: raise TasksMax=, --pids-limit, ulimit -u or ulimit -v"


def remedy_of_threads(error: BaseException) -> str | None:
    """Returns what helps where `error` is Python's that no thread can be started, which has no type of its own; else None."""
    return MORE_THREADS if isinstance(error, RuntimeError) and str(error) == NO_THREAD else None


MORE_DESCRIPTORS = (
    "nothing can be opened any more: close what is opened for each message (a file, a client), make a client once in `lifespan`, "
    "or raise LimitNOFILE= (ulimit -n)"
)


def remedy_of_descriptors(error: BaseException) -> str | None:
    """Returns what helps where `error` came of a process that has as many open files and connections as it may; else None."""
    has_none = any(isinstance(cause, OSError) and cause.errno == errno.EMFILE for cause in _causes(error))
    return MORE_DESCRIPTORS if has_none else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the error, its causes and contexts, and the members of groups among them; each once."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [cause for cause in (found.__cause__, found.__context__) if cause is not None]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
