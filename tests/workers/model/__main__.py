"""`python -m tests.workers.model [FIRST [COUNT]]`: plays so many seeds, and shows the shortest play of the first one in which a fault is found."""

import sys
import time

from tests.workers.model.play import STEPS, Fault, play


def main(first: int, count: int) -> int:
    """Play them; the exit code."""
    began = time.monotonic()
    for seed in range(first, first + count):
        try:
            play(seed)
        except Fault as found:
            print(f"play {seed - first + 1}, seed {seed}: {found}; looking for its shortest play", flush=True)
            steps, fault = _shortest(seed)
            print(f"{steps} steps: {fault}", *fault.__notes__, sep="\n")
            return 1
    print(f"{count} plays of {STEPS} steps, no fault, {time.monotonic() - began:.0f} s")
    return 0


def _shortest(seed: int) -> tuple[int, Fault]:
    """After how many steps of the play all may go well, and the fault is found all the same."""
    for steps in range(STEPS + 1):
        try:
            play(seed, steps=steps)
        except Fault as fault:
            return steps, fault
    raise AssertionError("the play is not the same twice")


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:]]
    raise SystemExit(main(*(numbers + [0, 1000][len(numbers) :])))
