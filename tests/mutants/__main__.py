"""`python -m tests.mutants [PART|NAME…]`: switches each guard off in turn and shows that a test fails; all of them without a name.

A mutant that no test notices is a hole in the tests, and the exit code is 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tests.mutants.bus import BUS
from tests.mutants.crypto import CRYPTO
from tests.mutants.files import FILES
from tests.mutants.model import THREADS
from tests.mutants.mutant import Mutant, Part
from tests.mutants.run import Outcome, complaint, fates, unchanged_copy
from tests.mutants.supervisor import SUPERVISOR

PARTS = (CRYPTO, BUS, SUPERVISOR, THREADS, FILES)


def main(names: Sequence[str]) -> int:
    """Run the named parts or mutants, or all; the exit code."""
    known = {part.name for part in PARTS} | {mutant.name for part in PARTS for mutant in part.mutants}
    if unknown := sorted(set(names) - known):
        print(f"no part and no mutant is named {', '.join(unknown)}")
        return 2
    are_killed = [_run(part, chosen) for part in PARTS if (chosen := _chosen(part, names))]
    return 0 if all(are_killed) else 1


def _chosen(part: Part, names: Sequence[str]) -> list[Mutant]:
    return [mutant for mutant in part.mutants if not names or mutant.name in names or part.name in names]


def _run(part: Part, chosen: Sequence[Mutant]) -> bool:
    """Whether all were killed."""
    began, holes = time.monotonic(), 0
    with unchanged_copy(part) as copy:
        if problem := complaint(part, chosen, copy):
            print(problem, flush=True)
            return False
        for mutant, fate in fates(part, chosen, copy):
            holes += fate.outcome is Outcome.SURVIVED
            print(f"{fate.outcome.value:13} {part.name}: {mutant.name}  {fate.by}".rstrip(), flush=True)
    seconds = time.monotonic() - began
    print(f"{part.name}: {len(chosen) - holes} of {len(chosen)} mutants killed in {seconds:.0f} s", flush=True)
    return not holes


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
