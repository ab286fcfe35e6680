"""Says why something outside failed without a library's own text, which may quote an address or a password."""

import os
import socket
import ssl
from collections.abc import Iterator


def why(error: BaseException) -> str:
    """Returns the cause of `error` in a few words: an errno's text, what is wrong with a certificate, else the exception's type."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: the certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or type(cause).__name__}"
        if isinstance(cause, socket.gaierror):
            return "its name is not found"
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        if isinstance(cause, TimeoutError):
            return "no answer in time"
    return type(error).__name__


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
