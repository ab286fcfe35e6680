"""How our processes use the cores that they share."""

import gc
import os

GARBAGE_OBJECTS = 10_000
"""Containers made and not freed until cycles are looked for (Python: 700): a message leaves hardly any, and looking took a twentieth."""


def tune() -> None:
    """Supervisor and workers, at their start."""
    gc.set_threshold(GARBAGE_OBJECTS)
    wait_for_a_turn()


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
