"""Sets how our processes use cores and memory: rarer garbage collection, large memory given back, no interrupting of others."""

import ctypes
import gc
import os

GARBAGE_OBJECTS = 10_000
"""So many more containers made than freed start a garbage collection (Python: 700): a message leaves hardly any cycles, and collecting
took a twentieth of the CPU."""

LARGE_BYTES = 512 * 1024
"""Blocks from this size on go back to the kernel when freed: a large message and its copies do, our reads (256 KiB) do not."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def tune() -> None:
    """Applies all of this; supervisor and workers call it at their start, when all is imported."""
    collect_garbage_rarely()
    give_large_memory_back()
    wait_for_a_turn()


def collect_garbage_rarely() -> None:
    """Called when all is imported: that stays for good, so no collection looks through it again, which held everything up for 30 ms."""
    gc.set_threshold(GARBAGE_OBJECTS)
    gc.freeze()


def give_large_memory_back() -> bool:
    """Has large blocks given back to the kernel when freed. Returns False if the C library has no such setting (musl always does so).

    By default glibc raises its threshold with each large block that is freed, up to 32 MiB: after a flood of messages of 1 MB a
    supervisor kept 60 MB more than it used, and peaked 20 MB higher.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES))


def wait_for_a_turn() -> bool:
    """Sets SCHED_BATCH (sched(7)): once woken, this process does not interrupt the one that runs. Returns whether it was set.

    On busy cores a switch of processes costs as much as a message, and what arrives meanwhile is handled in one go: a tenth more messages
    (docs/benchmarks.md). On a free core nothing changes. Children inherit it. False where a sandbox refuses it, which only costs
    speed, or where the operator has chosen another policy.
    """
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False  # the operator has chosen another policy
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True
