"""How our processes use the cores and the memory that they share."""

import ctypes
import gc
import os

GARBAGE_OBJECTS = 10_000
"""Containers made and not freed until cycles are looked for (Python: 700): a message leaves hardly any, and looking took a twentieth."""


LARGE_BYTES = 512 * 1024
"""What is allocated alone and goes back to the kernel when it is freed: a large message and its copies, and no read of ours (256 KiB)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""


def tune() -> None:
    """Supervisor and workers, at their start."""
    gc.set_threshold(GARBAGE_OBJECTS)
    give_large_memory_back()
    wait_for_a_turn()


def give_large_memory_back() -> bool:
    """From now on what is large leaves no hole in the heap. False where the C library has no such knob (musl frees so by itself).

    glibc raises its limit for it with each large block that is freed, up to 32 MiB: after a flood of messages of 1 MB a supervisor kept
    60 MB more than it held, and peaked at 20 MB more.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES))


def wait_for_a_turn() -> bool:
    """From now on this process, once woken, lets whoever runs finish a turn and does not interrupt it (SCHED_BATCH, sched(7)).

    On busy cores a switch of processes costs as much as a message, and what comes meanwhile is handled in one go: a tenth more messages
    (docs/benchmarks.md). On a free core nothing changes. What this process starts inherits it. False where a sandbox refuses it, which
    costs nothing but speed, or where it was started under another policy than the usual one.
    """
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False  # somebody has chosen for us
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True
