"""Imports a library without another one that it would load only where that is installed, and which we never use through it."""

import sys
from importlib import import_module


def import_without(library: str, hidden: str) -> None:
    """Imports a library as if another one were not installed. Whoever needs that one imports it later. Nothing happens where either is there already.

    structlog takes rich for tracebacks in colours, 3.5 MiB of each process; redis takes opentelemetry for figures of its own, 1.7 MiB.
    """
    if library in sys.modules or hidden in sys.modules:
        return
    sys.modules[hidden] = None  # type: ignore[assignment]  # an import of it fails then, which the library expects
    try:
        import_module(library)
    finally:
        del sys.modules[hidden]
