"""How our processes use the cores that they share."""

import gc

GARBAGE_OBJECTS = 10_000
"""Containers made and not freed until cycles are looked for (Python: 700): a message leaves hardly any, and looking took a twentieth."""


def tune() -> None:
    """Supervisor and workers, at their start."""
    gc.set_threshold(GARBAGE_OBJECTS)
