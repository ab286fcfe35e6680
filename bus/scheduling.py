"""How the kernel shares the cores between supervisor, workers and Redis."""

import os


def wait_for_a_turn() -> bool:
    """From now on this process, once woken, lets whoever runs finish a turn instead of interrupting it (SCHED_BATCH, sched(7)).

    On busy cores a switch of processes costs as much as a message, and what comes meanwhile is handled in one go: a tenth more messages
    (docs/benchmarks.md). On a free core nothing changes. What this process starts inherits it. False where a sandbox refuses it, which
    costs nothing but speed.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True
